"""`llmkit show`: rows as the trainer sees them, and text as tokens."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers_data import byte_tokenizer, chat, write_rows
from rich.console import Console

from llmkit.data.pool import Placed
from llmkit.data.show import cut_table, histogram, show_rows
from llmkit.data.tokens import Settings
from llmkit.stages.show import main


def printed(rows: list[dict[str, Any]], colours: bool = False, **options: Any) -> str:
    settings = {
        "kind": "sft",
        "max_length": None,
        "packing": False,
        "packing_strategy": "bfd",
        "assistant_only_loss": True,
        "completion_only_loss": None,
    }
    changed = {key: options.pop(key) for key in list(options) if key in settings}
    file = io.StringIO()
    console = Console(file=file, force_terminal=colours, color_system="standard" if colours else None, width=200)
    placed = [Placed(row, "src", "rows.jsonl", line) for line, row in enumerate(rows, 1)]
    options = {"num_rows": 3} | options
    show_rows(console, byte_tokenizer(chat=True), placed, Settings(**settings | changed), **options)
    return file.getvalue()


def test_trained_parts_stand_in_brackets_without_colours() -> None:
    text = printed([chat("Who?", "Me."), {"text": "plain"}, {"prompt": "Q", "completion": "A"}])
    assert "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n[[Me.<|im_end|>]]\n" in text
    assert "[[plain<|endoftext|>]]" in text
    assert "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n[[A<|im_end|>]]" in text
    assert "rows.jsonl:2" in text
    assert "\x1b[" not in text


def test_trained_parts_have_a_colour_on_a_terminal() -> None:
    text = printed([chat("Who?", "Me.")], colours=True)
    assert "\x1b[1;32mMe.<|im_end|>\x1b[0m" in text
    assert "[[" not in text


def test_both_sides_of_a_preference() -> None:
    text = printed([{"prompt": "Q", "chosen": "yes", "rejected": "no"}])
    assert "(chosen, " in text and "[[yes<|im_end|>]]" in text
    assert "(rejected, " in text and "[[no<|im_end|>]]" in text


def test_what_max_length_cuts_is_marked_and_counted() -> None:
    rows = [{"text": "abcdefgh"}, {"text": "ab"}]
    text = printed(rows, max_length=4)
    assert "[[abcd]]{{efgh<|endoftext|>}}" in text
    assert "truncated: 1 of 2 sequences (50.0%), max_length 4" in text
    assert "trained tokens: 7 of 7 (100.0%)" in text
    document = printed(rows, max_length=4, kind="pretrain")
    assert "[[abcdefgh<|endoftext|>]]" in document and "no token is lost" in document


def test_ids_are_shown_on_demand() -> None:
    rows = [chat("Who?", "Me.")]
    assert "loss" not in printed(rows)
    lines = [line.split() for line in printed(rows, ids=True).splitlines()]
    letter = str(byte_tokenizer().convert_tokens_to_ids("M"))
    assert [letter, "trained", "'M'"] in [line[1:] for line in lines]


def test_only_as_many_rows_as_asked_but_all_are_counted() -> None:
    text = printed([{"text": "a" * i} for i in range(1, 8)], num_rows=2)
    assert text.count("row ") == 2
    assert "lengths of 7 sequences" in text
    assert "min 2" in text and "max 8" in text


def test_rows_without_a_trained_token_are_warned_of() -> None:
    assert "WARNING: 1 sequences have no trained token" in printed([chat("Who?", "Me.", train=False), chat("a", "b")])


def test_histogram_counts_every_row() -> None:
    lengths = [1, 2, 2, 50, 100]
    lines = list(histogram(lengths, 60))
    assert sum(int(line.split()[1]) for line in lines) == len(lengths)
    assert ["> max_length" in line for line in lines] == [False] * 6 + [True] * 4


@pytest.mark.parametrize("text", ["Hello", "Héllo 🙂", ""])
def test_bytes_of_tokens_sum_to_the_text(text: str) -> None:
    table, num_tokens, num_bytes = cut_table(byte_tokenizer(), text)
    sizes = [int(str(cell)) for cell in table.columns[3].cells]
    assert len(sizes) == num_tokens
    assert sum(sizes) == num_bytes == len(text.encode())


@pytest.fixture
def recipe(tmp_path: Path, model_dir: Path) -> Path:
    write_rows(tmp_path / "chats.jsonl", [chat(f"What is {i}?", f"It is {i}.") for i in range(30)])
    write_rows(tmp_path / "docs.jsonl", [{"text": f"Person {i} lives here."} for i in range(30)])
    path = tmp_path / "recipe.yaml"
    stages = [
        {"name": "cpt", "kind": "pretrain", "data": [{"path": str(tmp_path / "docs.jsonl")}]},
        {"kind": "sft", "from": "cpt", "data": [{"path": str(tmp_path / "chats.jsonl")}]},
    ]
    whole = {
        "run": {"name": "t", "output_dir": str(tmp_path / "runs")},
        "model": {"name_or_path": str(model_dir), "chat_template": "chatml"},
        "stages": stages,
    }
    path.write_text(json.dumps(whole))
    return path


def test_show_a_stage_of_a_recipe(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", str(recipe), "run.seed=1", "--stage", "sft", "--rows", "1"]) == 0
    out = capsys.readouterr().out
    assert "30 read, 0 rejected, 0 repeats, 30 used" in out
    assert ".<|im_end|>]]" in out
    assert main([str(recipe), "--stage", "cpt"]) == 0
    assert "<|endoftext|>]]" in capsys.readouterr().out
    assert not (recipe.parent / "runs").exists()


def test_an_unknown_stage_is_named(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(recipe), "--stage", "stf"]) == 2
    assert "--stage stf: names no training stage of this recipe; have: cpt, sft" in capsys.readouterr().err
    assert main([str(recipe)]) == 2


def test_preference_rows_are_shown_with_a_warning(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_rows(recipe.parent / "pairs.jsonl", [{"prompt": "Q", "chosen": "yes", "rejected": "no"}])
    assert main([str(recipe), "--stage", "sft", f"stages.1.data=[{{path: {pairs}}}]"]) == 0
    assert "WARNING: a 'sft' stage does not take preference rows" in capsys.readouterr().out


def test_show_tokens_of_a_model(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tokens", "Person 1 🙂", "--model", str(model_dir)]) == 0
    out = capsys.readouterr().out
    assert "tokens, 13 bytes" in out and "bytes per token" in out
    (tmp_path / "config.json").write_text("{}")
    assert main(["--tokens", "x", "--model", str(tmp_path)]) == 2
    assert "has no tokenizer" in capsys.readouterr().err
