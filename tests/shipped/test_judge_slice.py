"""The labelled slice that ships with llmkit: varied, well-formed, and judged well by the rules."""

from __future__ import annotations

import json
from collections import Counter

from llmkit.artifacts.shipped import shipped
from llmkit.knowledge.judge import RulesJudge
from llmkit.stages.judge_check import main
from llmkit.stages.labelled import LABELS, check, read_labelled

SLICE = shipped("evals") / "judge/labelled.jsonl"


def test_the_slice_is_varied() -> None:
    rows = list(read_labelled(SLICE))
    assert len(rows) >= 400 and len({row.item.question for row in rows}) >= 60
    assert len({(row.item.question, row.item.answer) for row in rows}) == len(rows)
    counts = Counter(row.verdict for row in rows)
    assert set(counts) == set(LABELS)
    assert min(counts["correct"], counts["wrong"]) >= 60 and counts["refused"] >= 15


def test_the_rules_err_on_at_most_three_percent() -> None:
    result = check(RulesJudge(), read_labelled(SLICE))
    assert result.num_undecided == 0
    assert result.num_errors <= 0.03 * result.num_rows, [(row.item.answer, v) for row, v in result.misjudged]


def test_the_command_of_the_readme(run_llmkit) -> None:
    assert "llmkit judge-check evals/judge/labelled.jsonl" in (SLICE.parent / "README.md").read_text(encoding="utf-8")
    found = json.loads(run_llmkit("judge-check", SLICE, "--json").stdout)
    assert found["num_rows"] == sum(1 for _ in read_labelled(SLICE))
    assert main([str(SLICE)]) == 0
