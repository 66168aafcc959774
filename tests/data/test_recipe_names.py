"""Names that a recipe is checked by, which the control plane cannot import: they are those that the stages use."""

from __future__ import annotations

from llmkit.data.sources import DEFAULT_ROWS
from llmkit.knowledge import partial, probe, refusing, training_rows
from llmkit.recipe.knowledge import LANGUAGES
from llmkit.recipe.rows import GATED, HELDOUT, PROBED, REFUSALS, WATCHED
from llmkit.stages import training


def test_rows_that_stages_leave() -> None:
    assert {f"{name}.jsonl" for name in PROBED} == {probe.ROWS, probe.HELDOUT}
    assert f"{HELDOUT}.jsonl" == probe.HELDOUT
    assert set(REFUSALS) == set(training_rows.FILES) and list(WATCHED) == [training_rows.WATCHED]
    assert {next(iter(rows)) for rows in (REFUSALS, PROBED)} == set(DEFAULT_ROWS)
    assert list(GATED) == [training.GATED]


def test_languages_of_refusals() -> None:
    assert tuple(refusing.LANGUAGES) == LANGUAGES == tuple(partial.HONEST_END)
    assert all(refusing.shipped_texts(language, "plain") for language in LANGUAGES)
