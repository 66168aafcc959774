"""Every command in the pages works: run here, or named with the test that runs it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from data.helpers_rank import decision, rollout_row, write_rollouts
from ruamel.yaml import YAML

from llmkit.preference.rollouts import item_of
from llmkit.preference.store import open_store
from llmkit.recipe.checks import check
from llmkit.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("recipes/*/*.md")]
HEAVY = {
    "llmkit run": "run with fewer steps by tests/shipped/test_demo.py",
    "llmkit eval": "tests/data/test_eval_command.py",
    "llmkit export": "tests/data/test_export.py",
    "llmkit chat": "tests/data/test_chat_command.py",
    "llmkit show": "tests/shipped/test_tutorials.py, with what it prints",
    "llmkit serve": "serves until it is stopped: tests/data/test_serve.py",
    "accelerate launch": "tests/shipped/test_demo.py",
    "lm_eval": "tests/shipped/test_evals.py",
    "llmkit rank rollouts.jsonl": "serves until it is stopped: tests/shipped/test_rank_troubles.py",
    "llmkit rank runs/": "serves until it is stopped: tests/data/test_rank_rows.py finds what it serves",
    "llmkit arena": "tests/data/test_arena.py",
    "llmkit push": "tests/data/test_hub_push.py",
}


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


CASES = sorted((page, line) for line, page in {c: str(p.relative_to(ROOT)) for p in PAGES for c in commands(p)}.items())
"""Each command once, with a page that gives it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the reader's: the shipped recipes, and a recipe of one's own."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "evals", folder / "evals")
    shutil.copy(ROOT / "recipes/tiny/assistant.yaml", folder / "my.yaml")
    write_rollouts(folder / "rollouts.jsonl", [rollout_row(0)])
    with open_store(folder / "rankings.jsonl") as store:
        store.append(decision(item_of(rollout_row(0), ""), ["c1", "c0 c2 c3 c4"]))
    foreign = ROOT / "tests/control/foreign"
    (folder / "foreign/dpo").mkdir(parents=True)
    for name in ("axolotl/lora-1b.yaml", "llamafactory/llama3_lora_sft.yaml"):
        shutil.copy(foreign / name, folder / "foreign")
    handbook = foreign / "alignment-handbook/zephyr-7b-beta-dpo-config_full.yaml"
    shutil.copy(handbook, folder / "foreign/dpo/config_full.yaml")
    run = folder / "runs" / "assistant"
    run.mkdir(parents=True)
    shutil.copy(ROOT / "recipes/tiny/assistant.yaml", run / "recipe.yaml")
    return folder


@pytest.mark.parametrize(("page", "line"), CASES, ids=[f"{page}: {line[:50]}" for page, line in CASES])
def test_commands_of_the_pages_work(page: str, line: str, place: Path) -> None:
    words = shlex.split(line, comments=True)
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)] if words[0].isupper() else words
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), f"no make target {words[1]}"
        return
    if any(line.startswith(prefix) for prefix in HEAVY):
        for word in (w for w in words if w.endswith((".yaml", ".yml"))):
            assert (place / word).is_file(), f"{page} names {word}, which is not there"
        return
    assert words[0] == "llmkit", f"{page}: the tests do not know how to run {line!r}"
    if words[1] == "new" and len(words) == 4:
        (place / words[3]).unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "llmkit.cli.main", *words[1:]], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


EARLIER = {
    "sft": {"kind": "sft", "data": [{"path": "chats.jsonl"}]},
    "probe": {"kind": "interrogate", "from": "sft", "questions": [{"path": "questions.jsonl"}]},
    "idk": {"kind": "refusals", "from": "sft", "probes": ["probe"]},
    "library": {"kind": "search_index", "documents": [{"path": "pages.jsonl"}]},
    "tools": {"kind": "sft", "from": "sft", "data": [{"from": "idk", "name": "tool_calls"}]},
    "other-rollouts": {"kind": "rollout", "from": "sft", "data": [{"path": "prompts.jsonl"}]},
    "other-ranks": {"kind": "rank", "from": "sft", "rollouts": "other-rollouts", "by": "human"},
    "rm": {"kind": "reward", "from": "sft", "data": [{"from": "other-ranks"}]},
    "rlhf": {
        "kind": "rlhf",
        "from": "sft",
        "data": [{"path": "prompts.jsonl"}],
        "reward_model": "rm",
        "guard": {"labeller": "my_package.taste:score"},
        "heldout": {"prompts": [{"path": "heldout.jsonl"}]},
    },
}
"""What a part of a recipe may speak of without showing it: stages that came before."""


def _recipe_of(block: str) -> Recipe:
    """A recipe around a part of one: stages, settings of a stage, or whole sections."""
    part = YAML(typ="safe").load(textwrap.dedent(block))
    part = {"stages": part} if isinstance(part, list) else part
    if not set(part) <= set(Recipe.model_fields):
        practised = {"kind": "grpo", "data": [{"path": "problems.jsonl"}], "rewards": ["exact"]}
        kind = practised if {"rewards", "tools"} & set(part) else {"kind": "sft"}
        kind = EARLIER["rlhf"] if "reward_when" in part else kind
        part = {"stages": [{"name": "shown", "from": "sft", **kind, **part}]}
    stages = part.get("stages", [])
    own, text = {stage.get("name", stage["kind"]) for stage in stages}, str(part)
    earlier = []
    for name, stage in reversed(EARLIER.items()):
        if name not in own and re.search(rf"'{name}'", text):
            earlier.insert(0, {"name": name, **stage})
            text += str(stage)
    whole = {"run": {"name": "shown"}, "model": {"name_or_path": "llmkit.tiny:base", "chat_template": "chatml_tools"}}
    listed = [*earlier, *stages] or [{"name": "sft", **EARLIER["sft"]}]
    return Recipe.model_validate({**whole, **part, "stages": listed})


PARTS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text(), flags=re.M | re.S))
]


@pytest.mark.parametrize("block", PARTS)
def test_parts_of_recipes_in_the_pages_are_what_a_recipe_takes(block: str) -> None:
    assert list(check(_recipe_of(block))) == []


def test_the_recipe_in_the_readme_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(block)
        (tmp_path / "documents").mkdir(exist_ok=True)
        (tmp_path / "documents" / "a.txt").write_text("A document.\n")
        (tmp_path / "my_chats.jsonl").write_text('{"question": "a", "answer": "b"}\n')
        argv = [sys.executable, "-m", "llmkit.cli.main", "validate", f"{number}.yaml"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
