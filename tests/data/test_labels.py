"""SliCK's classes and Llama 3's rule, from verdicts."""

from __future__ import annotations

import itertools

import pytest

from llmkit.knowledge.labels import mean_logprob, probe_row, slick
from llmkit.knowledge.records import ProbeRow, Question, Sample, Verdict
from llmkit.recipe.knowledge import ThresholdSpec

QUESTION = Question("Where was Zoë born?", ("Arlen", "Arlen town"), "Zoë", "known", "Zoë is from Arlen.", "people:3")
LETTERS: dict[str, Verdict] = {"c": "correct", "w": "wrong", "r": "refused", "e": "empty", "u": "undecided"}


def samples(greedy: str, sampled: str) -> list[Sample]:
    """One letter a verdict."""
    drawn = [Sample(letter, 0.0, place, LETTERS[letter]) for place, letter in enumerate(greedy)]
    return drawn + [Sample(letter, 0.7, place, LETTERS[letter]) for place, letter in enumerate(sampled)]


def row(greedy: str, sampled: str, **thresholds: float) -> ProbeRow:
    return probe_row(QUESTION, samples(greedy, sampled), ThresholdSpec(**thresholds), "train")


@pytest.mark.parametrize(
    ("greedy", "sampled", "label"),
    [
        ("cc", "wwww", "HighlyKnown"),
        ("cw", "cccc", "MaybeKnown"),
        ("cr", "", "MaybeKnown"),
        ("cwww", "", "MaybeKnown"),
        ("ww", "wwwc", "WeaklyKnown"),
        ("re", "cccc", "WeaklyKnown"),
        ("ww", "wwww", "Unknown"),
        ("rr", "rree", "Unknown"),
        ("w", "", "Unknown"),
        ("cu", "cccc", "HighlyKnown"),
        ("wu", "wwwu", "Unknown"),
        ("uu", "cccc", "Undecided"),
        ("cu", "cuuu", "Undecided"),
        ("uu", "uuuu", "Undecided"),
    ],
)
def test_labels_by_slick(greedy: str, sampled: str, label: str) -> None:
    assert row(greedy, sampled).label == label


def test_an_undecided_answer_counts_neither_as_right_nor_as_wrong() -> None:
    """Whatever the judge would have said of it, the shares are those of the others."""
    found = row("cwu", "wwuu")
    assert (found.num_samples, found.num_correct, found.num_wrong, found.num_undecided) == (4, 1, 3, 3)
    assert found.p_greedy == 0.5 and found.p_sampled == 0.0
    assert row("w", "wwwu").p_sampled == 0.0 and not row("w", "wwwc").consistently_wrong


def test_highly_known_can_be_eased() -> None:
    assert row("cccw", "").label == "MaybeKnown"
    assert row("cccw", "", highly_known=0.75).label == "HighlyKnown"


@pytest.mark.parametrize(
    ("greedy", "sampled", "expected"),
    [
        ("w", "www", True),
        ("w", "wwr", True),  # 3 of 4 informative and wrong
        ("w", "wrr", False),
        ("r", "rrr", False),  # already says that it does not know
        ("w", "wwwwwwwc", False),  # one right answer: mixed questions are left alone
        ("w", "wwu", True),  # of the three that are decided
        ("u", "uuu", False),
        ("w", "uuu", False),  # too few are decided
    ],
)
def test_llama_3s_rule(greedy: str, sampled: str, expected: bool) -> None:
    assert row(greedy, sampled).consistently_wrong is expected


def test_more_right_answers_never_lower_the_label() -> None:
    """Turning any one wrong answer into a right one moves the label up or leaves it."""
    order = ["Unknown", "WeaklyKnown", "MaybeKnown", "HighlyKnown"]
    for letters in itertools.product("cw", repeat=5):
        before = order.index(row("".join(letters[:2]), "".join(letters[2:])).label)
        for place, letter in enumerate(letters):
            if letter == "w":
                better = [*letters[:place], "c", *letters[place + 1 :]]
                assert order.index(row("".join(better[:2]), "".join(better[2:])).label) >= before


def test_without_samples_there_is_no_weakly_known() -> None:
    assert slick(0.0, None) == "Unknown" and slick(1.0, None) == "HighlyKnown" and slick(None, 1.0) == "Undecided"


def test_logprob_is_per_token_of_the_first_greedy_answer() -> None:
    first = Sample("Arlen", 0.0, 0, "correct", logprob=-3.0, num_tokens=4)
    other = Sample("Bruma", 0.0, 1, "wrong", logprob=-50.0, num_tokens=2)
    drawn = Sample("Elsby", 0.7, 0, "wrong", logprob=-9.0, num_tokens=1)
    assert mean_logprob([drawn, first, other]) == -0.75
    assert mean_logprob([Sample("", 0.0, 0, "empty", logprob=0.0, num_tokens=0)]) is None
    assert mean_logprob([Sample("x", 0.0, 0, "wrong")]) is None and mean_logprob([]) is None


def test_a_row_survives_json() -> None:
    found = row("cw", "wr")
    assert ProbeRow.from_json(found.to_json()) == found
    assert found.thresholds == {"highly_known": 1.0, "consistently_wrong": 0.75, "min_decided": 0.5}
    assert found.id == QUESTION.id and found.about == QUESTION.about and found.document and found.source
