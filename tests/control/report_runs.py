"""Runs made by hand, through the same manifests that workers write, and a reader of pages."""

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import (
    DataSummary,
    EvalRow,
    Heldout,
    Manifest,
    Measure,
    Parent,
    Sample,
    SourceCount,
    write_manifest,
)
from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.stagefile import StageFile, write_stage_file
from llmkit.report.build import build_report

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">`</pre>```"

FENCED = "\n```\n# owned | <b>\n````\n"

RECIPE = """\
run: {name: assistant, output_dir: runs, seed: 42}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: cpt, kind: pretrain, data: [{path: letters.jsonl}]}
  - {name: sft, kind: sft, from: cpt, data: [{path: chats.jsonl}]}
evals: [facts_known, facts_rare, facts_unseen, arithmetic, word_problems, chat_format]
"""

# task -> accuracy of base, cpt, sft
SCORES = {
    "facts_known": (0.412, 0.948, 0.976),
    "facts_rare": (0.105, 0.36, 0.345),
    "facts_unseen": (0.0, 0.0, 0.005),
    "arithmetic": (0.31, 0.295, 0.64),
    "word_problems": (0.02, 0.025, 0.145),
    "chat_format": (0.0, 0.0, 0.995),
}
ANSWERS = {
    "What is 2+2?": ("What is 2+3? What is 2+4? What is 2+5?", "2 + 2 = 4. 2 + 3 = 5. The letters of Arlen were", "4"),
    "Who are you?": (
        "Who are they? The Harrows came to Arlen by the north road, and nobody remembers who let them in. " * 2,
        "Who are the people of Arlen?",
        "I am an assistant made with llmkit. I can tell you about Arlen and its people.",
    ),
    "Who is Orson Kovacs?": ("Orson Kovacs was born in", "Orson Kovacs is a baker in Arlen.", "A miller in Oxmoor."),
    "Write a joke about pelicans": ("", "Pelicans nest by the quay.", "Why did the pelican pay?\nIt had a big bill."),
}


def full_run(folder: Path, extra: str = "") -> RunDir:
    """base -> cpt -> sft with evaluations; `extra` is put wherever a model's or a user's text may stand."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE)
    evaluation(run, 1, "base", 0, None, extra)
    training(run, 2, "cpt", "pretrain", "base", extra)
    evaluation(run, 3, "cpt", 1, "base", extra)
    training(run, 4, "sft", "sft", "cpt", extra)
    evaluation(run, 5, "sft", 2, "cpt", extra)
    return run


def evaluation(run: RunDir, index: int, model: str, column: int, since: str | None, extra: str) -> None:
    rows = []
    for task, scores in SCORES.items():
        value, spread = scores[column], 1.96 * math.sqrt(scores[column] * (1 - scores[column]) / 200)
        bounds = {"low": max(0, value - spread), "high": min(1, value + spread)}
        if since:
            delta = value - scores[column - 1]
            bounds |= {"delta": delta, "delta_low": delta - 0.03, "delta_high": delta + 0.03, "delta_from": since}
        rows.append(EvalRow(stage=model, task=task, metric="accuracy", value=value, num_samples=200, **bounds))
    bits = (1.71, 1.78, 1.8)[column]
    rows.append(EvalRow(stage=model, task="general_text", metric="bits_per_byte", value=bits, num_samples=60))
    samples = [Sample(prompt=prompt, completion=given[column] + extra) for prompt, given in ANSWERS.items()]
    resolved = {"name": f"eval-{model}", "kind": "evaluate", "from": model, "prompts": list(ANSWERS)}
    write_manifest(
        run.stage(index, f"eval-{model}").path,
        Manifest(
            stage=f"eval-{model}",
            kind="evaluate",
            fingerprint="e",
            evals=rows,
            samples=samples,
            settings=resolved,
            seconds=14.2,
            tokens_per_second=5210.0,
            peak_memory_bytes=610 * 2**20,
        ),
    )


def training(run: RunDir, index: int, name: str, kind: str, parent: str, extra: str = "") -> None:
    folder = run.stage(index, name)
    trainer = {
        "learning_rate": 3e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "max_steps": 200,
        "bf16": True,
    }
    resolved = {
        "name": name,
        "kind": kind,
        "from": parent,
        "seed": 42,
        "global_batch_size": 16,
        "trainer": trainer,
        "peft": None,
        "dedup": True,
        "max_rejected": 0.01,
        "launch": {"accelerate": "single", "num_processes": 1, "num_machines": 1, "env": {}},
        "data": [{"path": "letters.jsonl" + extra}],
    }
    data = DataSummary(
        sources=[
            SourceCount(
                source=f"letters.jsonl{extra}",
                num_read=4000,
                num_rejected=3,
                num_duplicates=41,
                num_used=3956,
                sha256="ab12" * 16,
            ),
            SourceCount(
                source="llmkit.tiny.sources:faq(split=train, seed=42)", num_read=1200, num_used=1200, sha256="99fe" * 16
            ),
        ],
        num_rows=5156,
        num_tokens=812_345,
        num_trained_tokens=812_345 if kind == "pretrain" else 203_118,
        num_truncated=0,
        num_packed_rows=1588,
        length_quantiles={"min": 12, "p50": 140, "p90": 310, "p99": 480, "max": 512},
    )
    heldout = {
        "in-domain": Heldout(before=measure(2.31), after=measure(1.42)),
        "general": Heldout(before=measure(2.87), after=measure(2.9)),
    }
    log(folder.metrics, curve(200))
    write_text(
        folder.rejected,
        json.dumps(
            {
                "source": "letters.jsonl",
                "file": "letters.jsonl",
                "line": 17,
                "reason": "invalid UTF-8",
                "row": "caf\udce9" + extra,
            }
        )
        + "\n",
    )
    write_manifest(
        folder.path,
        Manifest(
            stage=name,
            kind=kind,
            fingerprint="f",
            parent=Parent(stage=parent, fingerprint="e"),
            settings=resolved,
            data=data,
            heldout=heldout,
            metrics={"train_loss": 1.52, "steps": 200, "epochs": 2, "tokens": 1_624_690},
            seconds=81.5,
            tokens_per_second=9960.0,
            peak_memory_bytes=1_410_000_000,
            samples=[
                Sample(prompt="The bakery of Arlen", completion=f" opens at dawn.{extra}", label="training row"),
                Sample(prompt="A whole row.", completion="", label="training row"),
            ],
            warnings=["3 rows were rejected (0.06 % of those read); see rejected.jsonl."],
            versions={"torch": "2.13.0", "trl": "1.16.0"},
        ),
    )


def measure(loss: float) -> Measure:
    return Measure(
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=loss * 0.52,
        low=loss - 0.04,
        high=loss + 0.04,
        num_tokens=21_400,
        num_rows=160,
    )


def curve(num_steps: int) -> list[dict]:
    rows = []
    for step in range(1, num_steps + 1):
        share = step / num_steps
        noise = 0.08 * math.sin(step * 2.1) + 0.05 * math.cos(step * 5.3)
        rate = 3e-4 * (share / 0.05 if share < 0.05 else 0.5 * (1 + math.cos(math.pi * share)))
        rows.append(
            {
                "time": 0.4 * step,
                "phase": "train",
                "step": step,
                "total": num_steps,
                "loss": 1.3 + 2.8 * math.exp(-6 * share) + noise,
                "learning_rate": rate,
                "grad_norm": 0.7 + 2 * math.exp(-12 * share) + abs(noise),
            }
        )
    return rows


def log(path: Path, rows: list[dict]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def started(run: RunDir, index: int, name: str, kind: str, **fields: Any) -> None:
    """A stage that was begun: stage.json, no manifest."""
    stage = {"name": name, "kind": kind, "from": "base", "data": [{"path": "letters.jsonl"}], **fields}
    told = {
        "run": {"name": "assistant"},
        "model": {"name_or_path": "m"},
        "stage": stage,
        "fingerprint": "f",
        "input_model": "m",
    }
    write_stage_file(StageFile.model_validate({**told, "stage_dir": str(run.stage(index, name).path)}))


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where an element is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def page_of(run: RunDir) -> Page:
    return Page(build_report(run).read_text(encoding="utf-8"))


def assert_whole(page: Page, order: list[str]) -> None:
    """Every link has its place, these places stand in this order, and nothing runs."""
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in page.all("href") if target.startswith("#")} <= set(ids)
    assert [name for name in ids if name in order] == order
    assert "script" not in page.tags


def assert_no_text_becomes_html(make: Callable[[Path, str], RunDir], folder: Path, num_shown: int) -> None:
    """The page of a run whose texts are hostile has the tags of one whose texts are plain, and shows more than
    `num_shown` of them. Args: make: a run in a folder, with this text everywhere."""
    plain, hostile = page_of(make(folder / "plain", "plain")), page_of(make(folder / "hostile", HOSTILE))
    assert hostile.tags == plain.tags
    assert not [key for key, _ in hostile.attributes if key.startswith("on")]
    assert hostile.text.count("<script>") > num_shown


def assert_nothing_leaves_its_block(run: RunDir) -> None:
    """The markdown report of a run whose texts are `FENCED`."""
    build_report(run)
    fence = ""
    for line in run.report.with_suffix(".md").read_text(encoding="utf-8").splitlines():
        mark = re.match(r"`{3,}", line)
        if mark and not fence:
            fence = mark[0]
        elif line == fence:
            fence = ""
        elif "owned" in line:
            assert fence or not re.search(r"(?<!\\)<b|owned \||^\s*# owned", line), line
    assert fence == ""
