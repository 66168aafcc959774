# ruff: noqa: E501 - whole messages in tables
"""Strict loading: every class of mistake is refused, with its place and its cure, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmkit.artifacts.shipped import shipped
from llmkit.cli.new import recipes
from llmkit.errors import RecipeError
from llmkit.recipe.load import Loaded, load
from llmkit.recipe.stages import PretrainStage, SftStage, TrainStage

GOOD = """\
run: {name: demo}
model: {name_or_path: org/model}
stages:
  - name: cpt
    kind: pretrain
    data: [{path: docs.jsonl}]
    trainer: {learning_rate: 2e-5}
  - kind: sft
    from: cpt
    data: [{path: chat.jsonl}]
evals: [facts]
"""


def loaded(tmp_path: Path, text: str, *overrides: str, overlay: str = "") -> Loaded:
    files = [tmp_path / "recipe.yaml"]
    files[0].write_text(text)
    if overlay:
        files.append(tmp_path / "overlay.yaml")
        files[1].write_text(overlay)
    return load(files, overrides)


def problems(tmp_path: Path, text: str, *overrides: str, overlay: str = "") -> list[str]:
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, text, *overrides, overlay=overlay)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, GOOD).recipe
    cpt, sft = recipe.stages
    assert isinstance(cpt, PretrainStage)
    assert isinstance(sft, SftStage)
    assert cpt.trainer == {"learning_rate": 2e-5}, "YAML 1.2 reads 2e-5 as a number"
    assert (sft.name, sft.from_) == ("sft", "cpt")
    assert recipe.evals[0].task == "facts"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("run: {name", "run: {nam", ["recipe.yaml:1: run.name: is required", "recipe.yaml:1: run.nam: unknown key; did you mean 'name'?"]),
        ("from: cpt", "form: cpt", ["recipe.yaml:9: stages.1.form: unknown key; did you mean 'from'?"]),
        ("kind: sft", "kind: stf", ["recipe.yaml:8: stages.1.kind: unknown kind 'stf'; did you mean 'sft'?"]),
        ("from: cpt", "from: ctp", ["recipe.yaml:9: stages.1.from: no stage is called 'ctp'; earlier: base, cpt"]),
        ("from: cpt", "from: sft", ["recipe.yaml:9: stages.1.from: 'sft' is not an earlier stage; earlier: base, cpt"]),
        ("learning_rate", "learing_rate", ["recipe.yaml:7: stages.0.trainer.learing_rate: unknown option of SFTConfig; did you mean 'learning_rate'?"]),
        ("learning_rate", "output_dir", ["recipe.yaml:7: stages.0.trainer.output_dir: is set by llmkit; set 'run.output_dir'"]),
        ("name: demo", "name: My Run", ["recipe.yaml:1: run.name: 'My Run' must be lower-case letters, digits, '.', '-' and '_'"]),
        ("  - name: cpt\n", "  - name: base\n", ["recipe.yaml:4: stages.0.name: 'base' is the recipe's model; choose another name", "recipe.yaml:9: stages.1.from: no stage is called 'cpt'; earlier: base, base"]),
        ("[{path: docs.jsonl}]", "[{path: docs.jsonl, from: x}]", ["recipe.yaml:6: stages.0.data.0: give exactly one of 'path' and 'from'"]),
        ("[{path: docs.jsonl}]", "[]", ["recipe.yaml:6: stages.0.data: list should have at least 1 item after validation, not 0"]),
        ("data: [{path: chat.jsonl}]", "data: [{path: chat.jsonl, fraction: 0.5}]", ["recipe.yaml:10: stages.1.data: the fractions sum to 0.5, not 1"]),
        ("model: {name_or_path: org/model}\n", "", ["recipe.yaml:3: stages.0: starts from the recipe's model, but there is no 'model.name_or_path'; add 'model' or 'init: scratch'"]),
    ],
)  # fmt: skip
def test_each_mistake(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new))
    assert sorted(found) == sorted(expected)


def test_all_problems_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = GOOD.replace("name: demo", "name: Demo").replace("learning_rate", "lr").replace("from: cpt", "frm: cpt")
    found = problems(tmp_path, text)
    assert [line.split(":")[1] for line in found] == ["1", "7", "9"]


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace("    from: cpt\n", "    from: cpt\n    from: base\n"))
    assert len(found) == 1
    assert found[0].startswith("recipe.yaml:10: ")
    assert "duplicate key" in found[0]


def test_two_stages_of_one_name(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace("kind: sft", "kind: sft\n    name: cpt"))
    assert any("two stages are called 'cpt'" in line for line in found)


def test_broken_yaml_and_wrong_files(tmp_path: Path) -> None:
    assert "not valid YAML" in problems(tmp_path, "run: {name: x\nstages: ]")[0]
    assert "a recipe is a mapping" in problems(tmp_path, "- a\n")[0]
    assert "a recipe is a mapping" in problems(tmp_path, "")[0]
    for path, words in ((tmp_path / "none.yaml", "no such recipe file"), (tmp_path, "is a folder")):
        with pytest.raises(RecipeError, match=words):
            load([path])


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00run")
    with pytest.raises(RecipeError, match="cannot be read"):
        load([tmp_path / "recipe.yaml"])


def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("docs.jsonl", "'${DOCS}/a.jsonl'")
    monkeypatch.delenv("DOCS", raising=False)
    assert problems(tmp_path, text) == ["recipe.yaml:6: environment variable DOCS is not set; export DOCS=..."]
    monkeypatch.setenv("DOCS", "/data")
    stage = loaded(tmp_path, text).recipe.stages[0]
    assert isinstance(stage, PretrainStage)
    assert stage.data[0].path == "/data/a.jsonl"


def test_overlays_merge_mappings_and_replace_other_lists(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, GOOD, overlay="run: {seed: 7}\nevals: [other]\n").recipe
    assert (recipe.run.name, recipe.run.seed) == ("demo", 7)
    assert [spec.task for spec in recipe.evals] == ["other"]


def test_stages_of_an_overlay_merge_by_name_and_new_ones_follow(tmp_path: Path) -> None:
    overlay = """\
stages:
  - {name: more, kind: sft, from: sft, data: [{path: more.jsonl}]}
  - {name: cpt, trainer: {weight_decay: 0.1}}
  - {name: late, kind: pretrain, from: cpt, data: [{path: late.jsonl}], sed: 1}
"""
    found = problems(tmp_path, GOOD, overlay=overlay)
    assert found == ["overlay.yaml:4: stages.3.sed: unknown key; did you mean 'seed'?"]
    recipe = loaded(tmp_path, GOOD, overlay=overlay.replace("sed", "seed")).recipe
    assert [stage.name for stage in recipe.stages] == ["cpt", "sft", "more", "late"]
    assert recipe.stages[0].trainer == {"learning_rate": 2e-5, "weight_decay": 0.1}
    assert recipe.stages[3].seed == 1


def test_a_mistake_in_an_overlay_names_the_overlay(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD, overlay="\nrun: {sed: 7}\n")
    assert found == ["overlay.yaml:2: run.sed: unknown key; did you mean 'seed'?"]


def test_overrides_name_stages(tmp_path: Path) -> None:
    words = [
        "stages.cpt.trainer.learning_rate=1e-4",
        "run.seed=3",
        "stages.sft.data.0.path=other.jsonl",
        "stages.1.seed=9",
    ]
    recipe = loaded(tmp_path, GOOD, *words).recipe
    cpt, sft = recipe.stages
    assert isinstance(cpt, PretrainStage)
    assert isinstance(sft, SftStage)
    assert cpt.trainer["learning_rate"] == pytest.approx(1e-4)
    assert (recipe.run.seed, sft.data[0].path, sft.seed) == (3, "other.jsonl", 9)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("run.seed", "command line: run.seed: expected key=value"),
        ("stages.cptt.seed=1", "no item 'cptt' in stages; have: cpt, sft"),
        ("run.sed=1", "command line: run.sed=1: run.sed: unknown key; did you mean 'seed'?"),
        ("run.seed=[", "the value is not valid YAML"),
        ("run.seed=many", "run.seed: input should be a valid integer"),
    ],
)
def test_wrong_overrides(tmp_path: Path, word: str, expected: str) -> None:
    assert expected in problems(tmp_path, GOOD, word)[0]


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMKIT_REAL_DATA", str(tmp_path))
    assert load([recipes()[name]]).recipe.stages


OVERLAYS = sorted(shipped("recipes").glob("*/overlays/*.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_a_shipped_overlay_fits_the_recipe_that_it_names(overlay: Path) -> None:
    """Its first comment gives the command; `run BASE OVERLAY`."""
    (command,) = [line for line in overlay.read_text().splitlines() if "llmkit run" in line]
    root = shipped("recipes").parent
    files = [root / word for word in command.split() if word.endswith(".yaml")]
    assert files[-1] == overlay
    assert len(load(files).recipe.stages) > len(load(files[:-1]).recipe.stages)


def test_controls_are_trained_as_what_they_control() -> None:
    folder = shipped("recipes") / "tiny"
    recipe = load([folder / "assistant.yaml", folder / "overlays" / "controls.yaml"]).recipe
    stages = {stage.name: stage for stage in recipe.stages}
    honest, plain, shuffled = stages["honest"], stages["control-plain"], stages["control-shuffled"]
    for control in (plain, shuffled):
        differ = {"name", "data"}
        assert control.model_dump(exclude=differ) == honest.model_dump(exclude=differ)
    assert isinstance(honest, SftStage) and isinstance(shuffled, SftStage)
    of_idk = [source.from_ == "idk" for source in honest.data]
    assert of_idk == [True, True, *[False] * (len(of_idk) - 2)]
    relabelled = {"from_": "shuffled"}
    assert shuffled.data == [
        source.model_copy(update=relabelled if is_of_idk else {})
        for source, is_of_idk in zip(honest.data, of_idk, strict=True)
    ]
    idk, random = (stages[name].model_dump(exclude={"name", "relabel"}) for name in ("idk", "shuffled"))
    assert idk == random


@pytest.mark.parametrize("path", sorted(recipes().values()), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes_train_all_weights_in_float32_unless_deepspeed_keeps_such_a_copy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMKIT_REAL_DATA", "data")
    recipe = load([path]).recipe
    whole = [each for each in recipe.stages if isinstance(each, TrainStage) and each.peft is None]
    assert recipe.model.dtype == "float32" or all("zero" in each.launch.accelerate for each in whole)
