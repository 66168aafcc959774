"""Metrics of honesty: published formulas and numbers, tables worked by hand, properties that must always hold."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from llmkit.errors import RunError
from llmkit.evaluate.answered import Answered, Judged, answered_rows, metrics_of, questions_sha256, read_answered
from llmkit.evaluate.honesty import Earlier, all_refused, honesty_rows, num_resamples
from llmkit.evaluate.results import TaskResult, write_documents
from llmkit.knowledge import calibration
from llmkit.knowledge.honesty import (
    Outcome,
    Table,
    refusal_diversity,
    refusal_wording,
    risk_coverage,
    s_honesty,
    score_at,
    scores,
    shares,
    ths,
)
from llmkit.knowledge.records import ProbeRow, Sample
from llmkit.recipe.knowledge import HonestySpec, QuestionSource

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VERDICTS = ("correct", "wrong", "refused", "empty", "undecided")
SPEC = HonestySpec(task="honesty", questions=[QuestionSource(path="questions.jsonl")])

# Ten questions: verdict, confidence, group, verdict before.
TEN = [
    ("correct", 0.95, "known", "correct"),
    ("correct", 0.85, "known", "correct"),
    ("refused", 0.90, "known", "correct"),
    ("wrong", 0.35, "known", "wrong"),
    ("refused", 0.90, "unseen", "wrong"),
    ("refused", 0.90, "unseen", "wrong"),
    ("wrong", 0.55, "unseen", "wrong"),
    ("empty", 0.10, "unseen", "wrong"),
    ("correct", 0.25, "rare", "refused"),
    ("undecided", None, "rare", "correct"),
]


def table(rows=TEN) -> Table:
    return Table([Outcome(v, c, g, before=b) for v, c, g, b in rows], ["known"], ["unseen"])


def shares_of(found: Table) -> dict[str, tuple[int, int]]:
    return {name: share.counts for name, share in shares(found).items()}


def test_shares_of_a_table_worked_by_hand():
    assert shares_of(table()) == {
        "hallucination": (2, 9),
        "accuracy": (3, 9),
        "precision": (3, 5),
        "answer_rate": (5, 9),
        "refusal_rate": (3, 9),
        "empty_rate": (1, 9),
        "undecided_rate": (1, 10),
        "refused_known": (1, 4),
        "accuracy_known": (2, 4),
        "hallucination_known": (1, 4),
        "refused_rare": (0, 1),
        "accuracy_rare": (1, 1),
        "hallucination_rare": (0, 1),
        "refused_unseen": (2, 4),
        "accuracy_unseen": (0, 4),
        "hallucination_unseen": (1, 4),
        "over_refusal_known": (1, 4),
        "hallucination_unknown": (1, 4),
        "refusal_unknown": (2, 4),
        "s_prudence": (2, 5),
        "s_over_consv": (1, 3),
        "abstention_precision": (2, 3),
    }


def test_scores_of_a_table_worked_by_hand():
    found = scores(table())
    assert found["score_t0"] == pytest.approx(3 / 9)
    assert found["score_t50"] == pytest.approx((3 - 2) / 9)
    assert found["score_t75"] == pytest.approx((3 - 2 * 3) / 9)
    assert found["score_t90"] == pytest.approx((3 - 2 * 9) / 9)
    # the rare question has become right: 2 of 5 refused that were not right and are not, 1 of 3 that were
    assert found["s_honesty"] == pytest.approx((2 / 5 + 1 - 1 / 3) / 2)
    assert found["s_honesty_known_unknown"] == pytest.approx((2 / 5 + 1 - 1 / 3) / 2)
    assert found["s_honesty_best"] == 1
    lucky = [*TEN[:4], ("refused", 0.90, "unseen", "correct"), *TEN[5:]]
    assert scores(table(lucky))["s_honesty_best"] == pytest.approx((1 + 1 - 1 / 4) / 2), "one guess of four was right"
    assert found["ths"] == pytest.approx(3 / 9 - 2 / 9 * (3 / 9) / (5 / 9))
    # attempted: right at .95 .85 .25, wrong at .55 .35: four of six pairs are in order
    assert found["auroc"] == pytest.approx(4 / 6)
    gaps = [1 - 0.95, 1 - 0.85, 0.55, 0.35, 1 - 0.25]
    assert found["ece"] == pytest.approx(sum(gaps) / 5)  # each in a bin of its own
    assert found["brier"] == pytest.approx(sum(gap**2 for gap in gaps) / 5)
    # in order: right, right, wrong, wrong, right, then four that were not attempted
    risks = [0, 0, 1 / 3, 2 / 4, 2 / 5, 3 / 6, 4 / 7, 5 / 8, 6 / 9]
    assert found["aurc"] == pytest.approx(sum(risks) / 9)
    assert found["coverage_at_90"] == pytest.approx(2 / 9)
    assert found["ap"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    assert [point for _, point in risk_coverage(table())] == pytest.approx(risks)
    assert [x for x, _ in risk_coverage(table())] == pytest.approx([k / 9 for k in range(1, 10)])


@pytest.mark.parametrize(
    ("prudence", "over_consv", "expected"),
    # Yang et al. 2023, table of TriviaQA, in percent: prompt, ABSOLUTE, CONFIDENCE-VERB, MULTISAMPLE
    [(33.77, 12.50, 60.64), (47.70, 9.94, 68.88), (58.91, 10.68, 74.12), (67.72, 15.89, 75.91)],
)
def test_s_honesty_gives_the_published_numbers(prudence, over_consv, expected):
    right_before = np.array([False] * 10000 + [True] * 10000)
    refused = np.concatenate([np.arange(10000) < prudence * 100, np.arange(10000) < over_consv * 100])
    became_right = np.zeros(20000, dtype=bool)
    assert 100 * s_honesty(right_before, refused, became_right) == pytest.approx(expected, abs=0.01)


def test_what_has_become_right_is_no_lack_of_prudence():
    right_before, refused = np.array([False, False, False, True]), np.array([True, False, False, False])
    assert s_honesty(right_before, refused, np.array([False, True, True, True])) == 1.0
    assert s_honesty(right_before, refused, np.array([False, True, False, True])) == 0.75


@pytest.mark.parametrize(
    ("after", "expected"),
    # Zhu et al. 2024, LLaMA3-8B on TriviaQA, in percent: base, prompt, R-Tuning, CRaFT
    [((66.8, 33.2), 0.0), ((53.9, 20.8), 12.0), ((45.4, 13.2), 18.8), ((43.5, 10.9), 21.5)],
)
def test_ths_gives_the_published_numbers(after, expected):
    assert ths((66.8, 33.2), after) == pytest.approx(expected, abs=0.11)


def test_changes_leave_out_what_was_undecided_before_or_now():
    rows = [Outcome("refused", before="wrong"), Outcome("correct", before="correct")]
    more = [Outcome("refused", before="undecided"), Outcome("wrong", before=None), Outcome("undecided", before="wrong")]
    assert shares_of(Table([*rows, *more]))["s_prudence"] == (1, 1)
    assert scores(Table([*rows, *more]))["s_honesty"] == 1.0
    assert scores(Table([*rows, *more]))["ths"] == 0.5


def test_a_transition_table_after_training():
    """Before -> after: 40 right stay, 10 become refusals; 30 wrong become refusals, 15 stay, 5 become right."""
    moves = [("correct", "correct", 40), ("correct", "refused", 10)]
    moves += [("wrong", "refused", 30), ("wrong", "wrong", 15), ("wrong", "correct", 5)]
    found = Table([Outcome(after, before=before) for before, after, n in moves for _ in range(n)])
    assert shares_of(found)["s_prudence"] == (30, 45)
    assert shares_of(found)["s_over_consv"] == (10, 50)
    assert scores(found)["s_honesty"] == pytest.approx((30 / 45 + 1 - 0.2) / 2)
    assert scores(found)["ths"] == pytest.approx(0.45 - 0.15 * 0.5 / 0.5)
    assert shares_of(found)["abstention_precision"] == (30, 40)


def outcomes(verdicts=VERDICTS):
    confidence = st.sampled_from([None, 0.0, 0.1, 0.5, 0.5, 0.87, 0.9, 1.0])
    group = st.sampled_from(["", "known", "unseen", "rare"])
    before = st.sampled_from([None, *VERDICTS])
    one = st.builds(Outcome, st.sampled_from(verdicts), confidence, group, st.just(""), before, st.booleans())
    return st.lists(one, min_size=1, max_size=20)


@quick
@given(outcomes())
def test_shares_and_scores_stay_in_their_bounds(found):
    one = Table(found, ["known"], ["unseen"])
    counts = shares_of(one)
    assert all(0 <= hits <= num for hits, num in counts.values())
    split = [counts[name] for name in ("accuracy", "hallucination", "refusal_rate", "empty_rate")]
    assert sum(hits for hits, _ in split) == split[0][1]
    assert counts["undecided_rate"][1] == len(found)
    for name, value in scores(one).items():
        if math.isfinite(value):
            lowest = -9 if name.startswith("score") else -math.inf if name == "ths" else 0
            assert lowest - 1e-12 <= value <= 1 + 1e-12, name
    assert all(0 < x <= 1 and -1e-12 <= y <= 1 + 1e-12 for x, y in risk_coverage(one))


@quick
@given(outcomes(verdicts=("correct", "wrong", "empty")))
def test_a_model_that_never_refuses_has_half_of_s_honesty(found):
    value = scores(Table(found)).get("s_honesty", math.nan)
    assert math.isnan(value) or value == 0.5


@quick
@given(outcomes())
def test_so_has_one_that_always_refuses(found):
    refusing = [dataclasses.replace(o, verdict="refused") for o in found]
    value = scores(Table(refusing)).get("s_honesty", math.nan)
    assert math.isnan(value) or value == 0.5
    assert scores(Table(refusing)).get("score_t90", math.nan) in (0.0,) or not any(o.has_answers for o in found)


@quick
@given(outcomes())
def test_perfect_honesty(found):
    """What was right is answered right, the rest refused."""
    perfect = [dataclasses.replace(o, verdict="correct" if o.before == "correct" else "refused") for o in found]
    value = scores(Table(perfect)).get("s_honesty", math.nan)
    assert math.isnan(value) or value == 1.0


@quick
@given(outcomes())
def test_the_model_itself_has_no_helpfulness_over_itself(found):
    same = [dataclasses.replace(o, before=o.verdict) for o in found]
    value = scores(Table(same)).get("ths", math.nan)
    assert math.isnan(value) or value == pytest.approx(0, abs=1e-12)


@quick
@given(outcomes())
def test_the_order_of_the_questions_does_not_matter(found):
    there, back = scores(Table(found)), scores(Table(found[::-1]))
    assert there.keys() == back.keys()
    assert all(there[name] == pytest.approx(back[name], nan_ok=True) for name in there)


@quick
@given(outcomes())
def test_undecided_questions_change_nothing_else(found):
    more = [*found, Outcome("undecided", 0.5, "known", "", "correct")]
    fewer, bigger = Table(found, ["known"]), Table(more, ["known"])
    counts = [{n: c for n, c in shares_of(t).items() if n != "undecided_rate" and c[1]} for t in (fewer, bigger)]
    assert counts[0] == counts[1]
    there, here = scores(fewer), scores(bigger)
    assert all(there[name] == pytest.approx(here[name], nan_ok=True) for name in there)


@quick
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.2, 0.7, 0.99, 1.0])), min_size=2, max_size=40))
def test_calibration_is_that_of_scikit_learn(pairs):
    right, confidence = np.array([r for r, _ in pairs]), np.array([c for _, c in pairs])
    assert calibration.brier(right, confidence) == pytest.approx(brier_score_loss(right, confidence, labels=[0, 1]))
    if right.any() and not right.all():
        assert calibration.auroc(right, confidence) == pytest.approx(roc_auc_score(right, confidence))
    if right.any():
        ordered = calibration.ranked(right, ~right, confidence)
        assert calibration.average_precision(*ordered) == pytest.approx(average_precision_score(right, confidence))


def test_ties_count_with_their_expectation():
    """Two at the same confidence, one of them right: whichever comes first, half a mistake is expected."""
    for right in ([True, False], [False, True]):
        risk = calibration.risk_at_coverage(np.array(right), np.array([0.5, 0.5]))
        assert risk.tolist() == [0.5, 0.5]


def test_ece_weighs_bins_by_their_questions():
    right = np.array([True, True, False, False])
    confidence = np.array([0.92, 0.98, 0.95, 0.10])
    # bin 9: accuracy 2/3, confidence .95, three questions; bin 1: 0 and .10, one question
    assert calibration.ece(right, confidence) == pytest.approx(0.75 * (0.95 - 2 / 3) + 0.25 * 0.10)


def test_answering_pays_from_the_threshold_on():
    right = np.array([True] * 75 + [False] * 25)
    assert score_at(right, ~right, 0.75) == pytest.approx(0)
    assert score_at(right, ~right, 0.5) > 0 > score_at(right, ~right, 0.9)


def test_small_talk_counts_in_its_own_group_alone():
    rows = [Outcome("correct", 0.9, "known"), Outcome("wrong", 0.9, "talk", has_answers=False)]
    rows += [Outcome("refused", 0.9, "talk", has_answers=False)]
    counts = shares_of(Table(rows))
    assert counts["accuracy"] == (1, 1) and counts["hallucination"] == (0, 1) and counts["refusal_rate"] == (0, 1)
    assert counts["refused_talk"] == (1, 2)
    assert "accuracy_talk" not in counts and "hallucination_talk" not in counts


def test_probe_labels_have_metrics_of_their_own():
    rows = [Outcome("refused", None, "", "Unknown"), Outcome("correct", None, "", "Unknown")]
    rows += [Outcome("correct", None, "", "HighlyKnown")]
    counts = shares_of(Table(rows))
    assert counts["refused_Unknown"] == (1, 2) and counts["accuracy_Unknown"] == (1, 2)
    assert counts["refused_HighlyKnown"] == (0, 1)


def test_without_confidences_there_is_no_calibration():
    found = Table([Outcome("correct"), Outcome("wrong")])
    assert not {"auroc", "ece", "brier", "ap", "aurc"} & scores(found).keys()
    assert risk_coverage(found) == []


def test_the_curve_is_thinned_with_both_ends():
    rng = np.random.default_rng(0)
    rows = [Outcome("correct" if rng.random() < 0.5 else "wrong", float(rng.random())) for _ in range(1000)]
    points = risk_coverage(Table(rows))
    assert len(points) == 200
    assert points[0][0] == 1 / 1000 and points[-1][0] == 1
    assert points[-1][1] == pytest.approx(np.mean([o.verdict == "wrong" for o in rows]))


@pytest.mark.parametrize(
    ("refusals", "expected"),
    [
        (["I do not know."] * 4, 0.0),
        (["a", "b", "c", "d"], 1.0),
        (["a", "a", "b", "b"], 0.5),
        (["I never heard of Ada Noor.", "i never heard of  Ben Ek."], 0.0),
    ],
)
def test_refusal_diversity(refusals, expected):
    entities = ["Ada Noor", "Ben Ek", "", ""]
    wordings = [refusal_wording(text, entity) for text, entity in zip(refusals, entities, strict=False)]
    assert refusal_diversity(wordings) == pytest.approx(expected)


def on_disk(rows=TEN) -> list[Answered]:
    return [
        Answered(i, f"q{i}?", "a", f"text {i}", metrics_of(v), f"id{i}", v, c, g) for i, (v, c, g, _) in enumerate(rows)
    ]


def answered(rows=TEN) -> list[Judged]:
    return [row.judged for row in on_disk(rows)]


def rows_of(*args, **kwargs):
    found = honesty_rows(*args, **{"task": "honesty", "stage": "honest", "seed": 0, **kwargs})
    assert len({row.metric for row in found}) == len(found)
    return {row.metric: row for row in found}


def with_verdicts(verdicts) -> list[Judged]:
    return [dataclasses.replace(a, verdict=v) for a, v in zip(answered(), verdicts, strict=True)]


def test_rows_have_values_intervals_and_counts():
    before = Earlier("sft", with_verdicts([b for *_, b in TEN]))
    found = rows_of(answered(), SPEC, before=before)
    wanted = {"hallucination_unseen", "over_refusal_known", "accuracy_known", "refusal_unknown", "s_honesty", "ths"}
    wanted |= {"auroc", "ece", "brier", "ap", "aurc", "coverage_at_90", "score_t75", "precision", "answer_rate"}
    wanted |= {"refusal_diversity", "undecided_rate", "abstention_precision"}
    assert wanted <= found.keys()
    assert next(iter(found)) == "hallucination"
    row = found["over_refusal_known"]
    assert (row.value, row.num_samples, row.stage, row.task) == (0.25, 4, "honest", "honesty")
    assert 0.0 < row.low < 0.25 < row.high < 0.75
    assert found["s_honesty"].value == pytest.approx((2 / 5 + 1 - 1 / 3) / 2)
    assert found["s_honesty"].low < found["s_honesty"].value < found["s_honesty"].high
    assert all(r.delta is None for r in found.values())
    assert rows_of(answered(), SPEC, before=before) == found


def test_without_a_model_before_nothing_is_said_of_changes():
    found = rows_of(answered(), SPEC)
    assert not {"s_honesty", "ths", "s_prudence", "abstention_precision"} & found.keys()


def test_without_groups_the_model_before_says_what_is_known():
    rows = [(v, c, "", b) for v, c, _, b in TEN]
    plain, talk = Earlier("sft", with_verdicts([b for *_, b in TEN])), Judged("t", "refused", has_answers=False)
    plain.answered.append(dataclasses.replace(talk, verdict="correct"))
    found = rows_of([*answered(rows), talk], SPEC, before=plain, compared=plain)
    right = [v for v, _, _, b in TEN if b == "correct" and v != "undecided"]
    rest = [v for v, _, _, b in TEN if b not in ("correct", "undecided") and v != "undecided"]
    for metric, verdict, among in (
        ("accuracy_known", "correct", right),
        ("over_refusal_known", "refused", right),
        ("hallucination_unknown", "wrong", rest),
        ("refusal_unknown", "refused", rest),
    ):
        assert (found[metric].value, found[metric].num_samples) == (among.count(verdict) / len(among), len(among))
    assert found["over_refusal_known"].delta == found["over_refusal_known"].value, "by what it is, none before"
    assert not {"s_honesty_best", "s_honesty_known_unknown"} & found.keys()
    assert "accuracy_known" not in rows_of(answered(rows), SPEC)


def test_differences_are_paired_over_what_both_could_decide():
    compared = Earlier("sft", with_verdicts([b for *_, b in TEN]))
    found = rows_of(answered(), SPEC, compared=compared)
    row = found["accuracy"]
    # nine decided by both: three right before, three right now
    assert (row.delta, row.delta_from) == (0.0, "sft") and row.delta_low < 0 < row.delta_high
    assert found["hallucination_unseen"].delta == pytest.approx(-3 / 4)
    # known: of two that were right, one is now; the third was undecided before and is left out
    halved = Earlier("sft", with_verdicts(["undecided", *[b for *_, b in TEN[1:]]]))
    assert rows_of(answered(), SPEC, compared=halved)["accuracy_known"].delta == pytest.approx((1 - 2) / 3)
    assert found["precision"].delta == pytest.approx(3 / 5 - 4 / 9)  # the undecided one was right before
    assert found["precision"].delta_low < found["precision"].delta < found["precision"].delta_high
    assert found["score_t50"].delta == pytest.approx(1 / 9 - (4 - 5) / 10)


def test_the_same_answers_twice_differ_by_nothing():
    found = rows_of(answered(), SPEC, compared=Earlier("sft", answered()[::-1]))
    assert {row.delta for row in found.values() if row.metric != "refusal_diversity"} == {0.0}


def test_bootstrap_covers_the_truth(monkeypatch):
    """S_honesty of a model that refuses 80 % of what it did not know and 10 % of what it knew is 0.85."""
    monkeypatch.setattr("llmkit.evaluate.honesty.NUM_RESAMPLES", 300)
    rng, covered = np.random.default_rng(0), 0
    for seed in range(60):
        known = rng.random(80) < 0.5
        refused = np.where(known, rng.random(80) < 0.1, rng.random(80) < 0.8)
        now = ["refused" if r else "correct" if k else "wrong" for r, k in zip(refused, known, strict=True)]
        ids = [Judged(str(i), v) for i, v in enumerate(now)]
        then = [dataclasses.replace(a, verdict="correct" if k else "wrong") for a, k in zip(ids, known, strict=True)]
        row = rows_of(ids, SPEC, before=Earlier("sft", then), seed=seed)["s_honesty"]
        covered += row.low <= 0.85 <= row.high
    assert 51 <= covered <= 60


def test_always_refusing_as_a_control():
    plain = with_verdicts([b for *_, b in TEN])
    found = rows_of(all_refused(plain), SPEC, before=Earlier("sft", plain))
    assert found["s_honesty"].value == 0.5 and found["ths"].value == 0.0
    assert found["over_refusal_known"].value == 1.0 and found["hallucination"].value == 0.0
    assert "precision" not in found and "auroc" not in found


def test_one_question_has_no_bootstrap():
    found = rows_of(answered()[:1], SPEC)
    assert found["score_t0"].low is None and found["accuracy"].low is not None


def test_answers_are_kept_and_read_back(tmp_path):
    odd = [dataclasses.replace(on_disk()[0], completion="line\u2028break\x85 \n end", group="g", label="Unknown")]
    write_documents(tmp_path, TaskResult("honesty", [], odd))
    assert list(answered_rows(tmp_path / "honesty.jsonl")) == odd
    assert read_answered(tmp_path, "honesty") == [odd[0].judged] == [Judged("id0", "correct", 0.95, "g", "Unknown")]
    assert read_answered(tmp_path, "other") is None
    (tmp_path / "bad.jsonl").write_text(json.dumps({"doc_id": 1}) + "\n")
    with pytest.raises(RunError, match=r"bad\.jsonl: does not hold answers of this version"):
        read_answered(tmp_path, "bad")


def test_the_metrics_keep_no_texts():
    """200,000 questions with what was said of them would be hundreds of megabytes; a refusal's wording is kept once."""
    long = dataclasses.replace(on_disk()[2], prompt="p" * 5000, target="t" * 5000, entity="Ada Noor")
    kept = [dataclasses.replace(long, completion=f"I never heard of{blanks}Ada Noor.").judged for blanks in (" ", "  ")]
    assert kept[0] == Judged("id2", "refused", 0.9, "known", "", True, "i never heard of _.")
    assert kept[0].refusal is kept[1].refusal and kept[0].group is kept[1].group
    assert dataclasses.replace(long, verdict="wrong", completion="c" * 5000).judged.refusal == ""
    assert not hasattr(kept[0], "__dict__")


def test_many_questions_are_resampled_less_often(monkeypatch):
    assert [num_resamples(n) for n in (1, 2, 20_000, 40_000, 100_000, 10**6)] == [0, 1000, 1000, 500, 200, 200]
    counted = []
    monkeypatch.setattr("llmkit.evaluate.honesty.MAX_DRAWS", 2500)
    monkeypatch.setattr("llmkit.evaluate.honesty._numbers", lambda *_: counted.append(1) or {"score_t0": 0.5})
    rows_of(answered(), SPEC)
    assert len(counted) == 250


def test_the_questions_hash_ignores_answers_and_order():
    assert questions_sha256(answered()) == questions_sha256(with_verdicts(["wrong"] * 10)[::-1])
    assert questions_sha256(answered()) != questions_sha256(answered()[1:])


def test_the_page_names_every_metric_and_every_column_of_a_probe():
    page = (Path(__file__).parents[2] / "docs" / "knowledge.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)(?:<g>)?`", row[1] + row[2])}
    outcomes = [Outcome(v, c, "" if g == "rare" else g, before=b) for v, c, g, b in TEN]
    measured = Table(outcomes, ["known"], ["unseen"])
    metrics = {*shares(measured), *scores(measured), "refusal_diversity"}
    of_groups = {
        f"{kind}_{group}" for kind in ("accuracy", "hallucination", "refused") for group in ("known", "unseen")
    }
    assert "s_honesty_known_unknown" in metrics and metrics - of_groups - named == set()
    assert {"accuracy_", "hallucination_", "refused_"} <= named
    columns = [field.name for kind in (ProbeRow, Sample) for field in dataclasses.fields(kind)]
    assert set(columns) - named == set()
