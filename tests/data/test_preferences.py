"""From prompts to a policy that was trained on a reward model, in this process, on a random model."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from data.helpers_preference import Chain, chat_model, rows_of, write_prompts
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from llmkit.artifacts.manifest import Manifest, SourceCount, write_manifest
from llmkit.chat.ask import Answer
from llmkit.data.problems import Problem
from llmkit.data.rankings import build_rankings, place_of
from llmkit.errors import DataError, LlmkitError, ModelError, RunError, UserError
from llmkit.modeling.reward_model import RewardCard, load_rewards, load_scorer
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import read_rollouts
from llmkit.preference.watch import Evaluation, best_of
from llmkit.recipe.parts import DataSource
from llmkit.recipe.preference import DegenerateSpec, LabellerSpec, PreferenceSpec, RankingLossSpec, RewardModelSpec
from llmkit.stages import guard_judge, guarding, rlhf, rollout
from llmkit.stages.common import Worker
from llmkit.stages.grpo import GrpoTrainer
from llmkit.stages.guarding import Guard
from llmkit.stages.preferences import evaluate_preference
from llmkit.stages.preferring import (
    PreferenceScorer,
    answer_ids,
    check_renders,
    combined,
    labelled_by,
    score_texts,
)
from llmkit.stages.ranking_trainer import RankingCollator, RankingTrainer
from llmkit.stages.reward_measures import ceiling, measured_on, scaled_card

LIKES = "data.helpers_preference:vowels"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return chat_model(model_dir, tmp_path_factory.mktemp("chat") / "model")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Chain:
    """Rollouts and rankings of 60 prompts, and two reward models of other prompts."""
    folder = tmp_path_factory.mktemp("run")
    chain = Chain(folder, model)
    prompts = {
        name: write_prompts(folder / f"{name}.jsonl", numbers)
        for name, numbers in (("own", range(40)), ("other", range(40, 60)))
    }
    for name, path in prompts.items():
        chain.run("rollout", f"answers-{name}", data=[{"path": str(path)}], num_completions=4, max_new_tokens=8)
        chain.run("rank", f"ranks-{name}", rollouts=f"answers-{name}", by="labeller", labeller=LIKES)
        chain.run("reward", f"rm-{name}", data=[{"from": f"ranks-{name}"}], global_batch_size=8, heldout_fraction=0.3)
    return chain


# --- rollouts ---------------------------------------------------------------------------------------------------------


def test_answers_are_distinct_and_can_be_ranked(made: Chain) -> None:
    items = read_rollouts(made.dirs["answers-own"] / "data" / "rollouts.jsonl")
    assert len(items) == 40
    assert all(len({text.strip() for text in item.texts.values()}) == len(item.texts) for item in items)
    rows = rows_of(made.dirs["answers-own"] / "data" / "rollouts.jsonl")
    assert all(one["model"] == "base" and one["logprob"] < 0 for row in rows for one in row["completions"])


def test_answers_depend_on_prompt_and_seed_alone_and_a_kill_costs_a_chunk(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "CHUNK", 4)
    path = write_prompts(tmp_path / "p.jsonl", range(12))
    options: dict[str, Any] = {"data": [{"path": str(path)}], "num_completions": 3, "max_new_tokens": 6}
    chain = Chain(tmp_path, model)
    whole = rows_of(chain.run("rollout", "whole", **options)[0].dir.data / "rollouts.jsonl")
    file = chain.file("rollout", "killed", **options)
    file.dir.path.mkdir()
    asked, answer = [], rollout.completions

    def dies(engine: Any, prompts: Any, *args: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return answer(engine, prompts, *args)

    monkeypatch.setattr(rollout, "completions", dies)
    with pytest.raises(KeyboardInterrupt):
        rollout.run(Worker(file))
    asked.clear()
    rollout.run(Worker(file))
    assert asked == [4]
    assert rows_of(file.dir.data / "rollouts.jsonl") == whole


def test_two_models_answer_the_same_prompts(tmp_path: Path, model: Path) -> None:
    chain = Chain(tmp_path, model)
    other = tmp_path / "01-other"
    shutil.copytree(model, other / "model")
    _, manifest = chain.run(
        "rollout", "first", data=[{"path": str(write_prompts(tmp_path / "p.jsonl", range(6)))}], max_new_tokens=6
    )
    write_manifest(other, manifest.model_copy(update={"stage": "other", "kind": "sft", "model_dir": "model"}))
    chain.dirs["other"] = other
    worker, _ = chain.run(
        "rollout", "both", data=[{"path": str(tmp_path / "p.jsonl")}], models=["other"], max_new_tokens=6
    )
    rows = rows_of(worker.dir.data / "rollouts.jsonl")
    # the same weights and the same random numbers: the other model adds nothing new
    assert {one["model"] for row in rows for one in row["completions"]} == {"base"}
    assert all(one["models"] == ["base", "other"] for row in rows for one in row["completions"])


def test_a_prompt_of_two_sources_is_asked_once(tmp_path: Path, model: Path) -> None:
    """Rankings know prompts by their id."""
    data = [
        {"path": str(write_prompts(tmp_path / f"{name}.jsonl", range(size)))} for name, size in (("a", 6), ("b", 9))
    ]
    worker, _ = Chain(tmp_path, model).run("rollout", "both", data=data, max_new_tokens=4)
    rows = rows_of(worker.dir.data / "rollouts.jsonl")
    assert len(rows) == len({row["id"] for row in rows}) == 9
    assert "6 of 15 prompts stand there before" in worker.warnings[0]


# --- rankings ---------------------------------------------------------------------------------------------------------


def test_ranks_follow_the_function(made: Chain) -> None:
    from data.helpers_preference import vowels

    for row in rows_of(made.dirs["ranks-own"] / "data" / "train.jsonl"):
        (ranks,) = row["rankings"]
        liked = vowels(row["answers"])
        assert sorted(range(len(ranks)), key=lambda i: ranks[i]) == sorted(
            range(len(ranks)), key=lambda i: (-liked[i], ranks[i])
        )
    pairs = rows_of(made.dirs["ranks-own"] / "data" / "pairs.jsonl")
    assert all(vowels([row["chosen"]]) > vowels([row["rejected"]]) for row in pairs)


def test_a_labeller_that_does_not_score_an_answer_stops_the_stage(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    silent = "data.helpers_preference:silent"
    with pytest.raises(UserError, match=r"labeller .*silent: does not score an answer to prompt \w+"):
        chain.run("rank", "silent", rollouts="answers-own", by="labeller", labeller=silent)
    with pytest.raises(UserError, match="does not score an answer to prompt 1"):
        labelled_by(LabellerSpec(path=silent))(["a", "b"], ["yes", "no"])


def test_people_are_waited_for_with_words_and_their_rankings_outlive_the_stage(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    with pytest.raises(UserError, match="none of 40 prompts is ranked yet"):
        chain.run("rank", "people", rollouts="answers-own", by="human")
    folder = tmp_path / "rankings" / "people"
    assert (folder / "rollouts.jsonl").is_file()
    decisions = (made.dirs["ranks-own"] / "data" / "rankings.jsonl").read_text().splitlines()
    (folder / "rankings.jsonl").write_text("\n".join(decisions[:30]) + "\n")
    with pytest.raises(UserError, match="30 of 40 prompts are ranked"):
        chain.run("rank", "people", rollouts="answers-own", by="human")
    worker, manifest = chain.run("rank", "people", rollouts="answers-own", by="human", min_ranked=0.75)
    assert manifest.metrics["decisions"] == 30
    assert len(rows_of(worker.dir.data / "train.jsonl")) <= 30


# --- rows of the reward stage -----------------------------------------------------------------------------------------


def ranking(i: int, size: int = 3) -> dict[str, Any]:
    answers = [f"Answer {letter} to {i}." for letter in "abcde"[:size]]
    return {"prompt": f"Question {i}?", "answers": answers, "rankings": [list(range(1, size + 1))]}


def built(path: Path, rows: list[dict[str, Any]], model: Path, **options: Any) -> Any:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"max_length": 128, "seed": 0, "max_rejected": 0.5, "dedup": True, "data_stages": {}, **options}
    return build_rankings([DataSource(path=str(path))], AutoTokenizer.from_pretrained(model), **settings)


def test_every_answer_ends_with_its_stop_token_also_an_empty_one(tmp_path: Path, model: Path) -> None:
    rows = [ranking(1), {"prompt": "Q?", "answers": ["", "Yes."], "rankings": [[2, 1]]}]
    stop = AutoTokenizer.from_pretrained(model).eos_token_id
    for row in built(tmp_path / "r.jsonl", rows, model).rows:
        assert all(ids[-1] == stop for ids in row["answers_ids"])
        assert all(stop not in ids[:-1] for ids in row["answers_ids"])


def test_pairs_are_rankings_of_two(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "Q?", "chosen": "Yes.", "rejected": "No."}]
    (row,) = built(tmp_path / "r.jsonl", rows, model).dataset
    assert row["rankings"] == [[1, 2]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"rankings": [[1, 1, 1]]}, "all answers in one place"),
        ({"rankings": [[1, 2]]}, "for each of 3 answers"),
        ({"rankings": [[1, 2, 0]]}, "above 0"),
        ({"rankings": [[1, 2, "3"]]}, "above 0"),
        ({"rankings": []}, "no list of ranks"),
        ({"answers": ["one"]}, "two or more"),
    ],
)
def test_rows_that_are_no_rankings(tmp_path: Path, model: Path, row: dict[str, Any], said: str) -> None:
    rejected = tmp_path / "rejected.jsonl"
    made = built(tmp_path / "r.jsonl", [*map(ranking, range(5)), ranking(9) | row], model, rejected_file=rejected)
    assert len(made.rows) == 5
    assert said in rejected.read_text()


def test_answers_that_are_the_same_cannot_have_different_ranks(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match=r"r\.jsonl:1.*the same to the tokenizer"):
        built(tmp_path / "r.jsonl", [{"prompt": "Q?", "answers": ["Yes.", "Yes."], "rankings": [[1, 2]]}], model)


def test_such_a_row_is_rejected_with_a_reason_and_the_others_are_kept(tmp_path: Path, model: Path) -> None:
    rejected, same = tmp_path / "rejected.jsonl", {"prompt": "Q?", "answers": ["Yes.", "Yes."], "rankings": [[1, 1]]}
    rows = [*map(ranking, range(5)), {**same, "rankings": [[1, 2]]}, {**same, "answers": ["yes.", "Yes."]}]
    rows[-1] |= {"rankings": [[1, 2]]}
    found = built(tmp_path / "r.jsonl", rows, model, rejected_file=rejected)
    (row,) = rows_of(rejected)
    assert (len(found.rows), row["line"]) == (6, 6)
    assert row["reason"] == "answers 0 and 1 are the same to the tokenizer"
    assert found.summary.sources[0].num_rejected == 1


def test_scoring_sees_the_shape_that_was_trained(tmp_path: Path, model: Path) -> None:
    turns = [{"role": r, "content": f"{r} says a word {n}"} for n in range(6) for r in ("user", "assistant")]
    prompt = [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "And now?"}]
    row = {"prompt": prompt, "answers": ["Now it is so.", "Now it is not."], "rankings": [[1, 2]]}
    tokenizer = AutoTokenizer.from_pretrained(model)
    (trained,) = built(tmp_path / "r.jsonl", [row], model, max_length=96).rows
    assert answer_ids(tokenizer, prompt, "Now it is so.", 96) == trained["prompt_ids"] + trained["answers_ids"][0]
    endless = [{"role": "user", "content": "And now? " * 60}]
    assert len(answer_ids(tokenizer, endless, "Now it is so.", 96)) == 96


def test_old_turns_go_before_an_answer_does(tmp_path: Path, model: Path) -> None:
    turns = [{"role": r, "content": f"{r} says a word {n}"} for n in range(6) for r in ("user", "assistant")]
    prompt = [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "And now?"}]
    long = {"prompt": prompt, "answers": ["Now it is so.", "Now it is not."], "rankings": [[1, 2]]}
    tokenizer = AutoTokenizer.from_pretrained(model)
    (row,) = built(tmp_path / "r.jsonl", [long], model, max_length=96).rows
    text = tokenizer.decode(row["prompt_ids"])
    assert "Be kind." in text
    assert "And now?" in text
    assert "word 0" not in text
    assert tokenizer.decode(row["answers_ids"][0][:-1]) == "Now it is so."
    endless = {**long, "prompt": [{"role": "user", "content": "And now? " * 60}]}
    lost = built(tmp_path / "s.jsonl", [endless, ranking(1)], model, max_length=96)
    assert (len(lost.rows), lost.summary.num_truncated) == (1, 1)


def test_degenerate_answers_come_last_for_every_rater_and_are_not_measured(tmp_path: Path, model: Path) -> None:
    rows = [{**ranking(i), "rankings": [[1, 2, 3], [3, 2, 1]]} for i in range(200)]
    found = built(tmp_path / "r.jsonl", rows, model, degenerate=DegenerateSpec(fraction=0.5)).rows
    longer = [row for row in found if len(row["answers_ids"]) == 4]
    assert 60 < len(longer) < 140
    assert all(ranks[3] == 4 for row in longer for ranks in row["rankings"])
    assert {row["num_ranked"] for row in found} == {3}


def test_a_prompt_is_held_out_in_every_stage_or_in_none(made: Chain) -> None:
    prompts = [json.dumps(row["prompt"]) for row in rows_of(made.dirs["ranks-own"] / "data" / "train.jsonl")]
    trained = np.load(made.dirs["rm-own"] / "model" / "prompts.npy")
    assert all(place >= 0.3 for place in trained)
    assert len(trained) == sum(place_of(json.loads(prompt)) >= 0.3 for prompt in prompts)


def test_a_text_stands_where_its_conversation_does() -> None:
    assert place_of("Joke?") == place_of([{"role": "user", "content": "Joke?"}])
    assert place_of("Joke?") != place_of([{"role": "system", "content": "Joke?"}])


# --- the trainer ------------------------------------------------------------------------------------------------------


def gradients(trainer: Any, rows: Dataset, collator: Any) -> dict[str, torch.Tensor]:
    batch = collator([rows[i] for i in range(len(rows))])
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_one_reading_of_each_answer_gives_the_gradients_of_all_pairs(tmp_path: Path, model: Path) -> None:
    """TRL's trainer over the ten pairs of each prompt, and ours over the five answers."""
    rows = built(tmp_path / "r.jsonl", [ranking(i, size=5) for i in range(4)], model).dataset
    tokenizer = AutoTokenizer.from_pretrained(model)
    args = RewardConfig(
        output_dir=str(tmp_path / "t"),
        bf16=False,
        use_cpu=True,
        report_to=[],
        remove_unused_columns=False,
        gradient_checkpointing=False,
        center_rewards_coefficient=0.01,
    )
    pairs = [
        {f"{side}_ids": row["prompt_ids"] + row["answers_ids"][k] for side, k in (("chosen", i), ("rejected", j))}
        for row in rows
        for i in range(5)
        for j in range(i + 1, 5)
    ]
    common = {"args": args, "processing_class": tokenizer}
    theirs = RewardTrainer(model=load_scorer(str(model), seed=3), train_dataset=Dataset.from_list(pairs), **common)
    ours = RankingTrainer(
        model=load_scorer(str(model), seed=3),
        train_dataset=rows,
        data_collator=RankingCollator(tokenizer.pad_token_id),
        loss=RankingLossSpec(),
        **common,
    )
    expected = gradients(theirs, theirs.train_dataset, theirs.data_collator)
    found = gradients(ours, rows, ours.data_collator)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-4 * float(gradient.abs().max() + 1e-6), rtol=1e-3), name


def test_heads_of_members_differ_by_seed_and_layers_can_be_left_out(model: Path) -> None:
    one, same, other = (load_scorer(str(model), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.score.weight, same.score.weight)
    assert not torch.equal(one.score.weight, other.score.weight)
    assert len(load_scorer(str(model), seed=1, num_layers=1).model.layers) == 1
    with pytest.raises(ModelError, match="num_layers"):
        load_scorer(str(model), seed=1, num_layers=99)


# --- the reward stage -------------------------------------------------------------------------------------------------


def test_it_learns_what_is_liked(made: Chain) -> None:
    from llmkit.artifacts.manifest import read_manifest

    manifest = read_manifest(made.dirs["rm-own"])
    assert manifest is not None
    assert manifest.metrics["heldout/accuracy"] > 0.5
    card = RewardCard.model_validate(json.loads((made.dirs["rm-own"] / "model" / "reward.json").read_text()))
    assert card.accuracy == manifest.metrics["heldout/accuracy"]
    assert manifest.metrics["heldout/ceiling"] == 1.0, "the function errs in no pair"
    models = load_rewards(made.dirs["rm-own"] / "model")
    scores = score_texts(models, [[{"role": "user", "content": "What is 1 plus 1?"}]] * 2, ["aeiou", ""])
    assert np.isfinite(scores).all()


def test_the_ceiling_of_several_rank_stages_is_their_mean_over_prompts(made: Chain, tmp_path: Path) -> None:
    for name, metrics in (
        ("a", {"right_pairs": 0.7, "ceiling_with_oneself": 0.9}),
        ("b", {"ceiling_between_raters": 0.8, "ceiling_with_oneself": 0.9}),
        ("c", {"pairs": 3.0}),
    ):
        write_manifest(tmp_path / name, Manifest(stage=name, kind="rank", fingerprint="f", metrics=metrics))
    file = made.file("reward", "rm", data=[{"from": "ranks-own"}])
    worker = Worker(file.model_copy(update={"data_stages": {name: str(tmp_path / name) for name in "abc"}}))

    def found(**num_used: int) -> dict[str, float]:
        counts = [SourceCount(source=name, num_read=9, num_used=num, sha256="") for name, num in num_used.items()]
        return ceiling(worker, [DataSource.model_validate({"from": name}) for name in num_used], counts)

    assert found(a=1)["ceiling"] == 0.7
    assert found(a=30, b=10)["ceiling"] == pytest.approx(0.725)
    assert found(a=30, c=10) == {}, "of some of the rankings nobody knows it"


def test_rows_as_those_of_hh_rlhf(made: Chain, tmp_path: Path) -> None:
    """Whole conversations as text, the same but for their last answers."""
    rows = []
    for i in range(24):
        asked = f"\n\nHuman: What is {i}?\n\nAssistant: A number.\n\nHuman: And {i} plus {i % 3}?\n\nAssistant:"
        rows.append({"chosen": f"{asked} It is {i + i % 3}.", "rejected": f"{asked} Go away {i}."})
    rows.append({"chosen": rows[0]["chosen"], "rejected": rows[0]["chosen"]})
    path = tmp_path / "hh.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {"max_rejected": 0.1, "global_batch_size": 8, "trainer": {"max_steps": 2}}
    chain = Chain(tmp_path, made.model)
    worker, manifest = chain.run("reward", "hh", data=[{"path": str(path)}], heldout_fraction=0.5, **options)
    metrics = manifest.metrics
    assert (manifest.data.num_rows, manifest.data.sources[0].num_rejected) == (24, 1)
    assert 0 <= metrics["heldout/accuracy_low"] <= metrics["heldout/accuracy"] <= metrics["heldout/accuracy_high"] <= 1
    assert metrics["heldout/num_pairs"] == metrics["heldout/num_prompts"]
    assert "heldout/ceiling" not in metrics
    assert (worker.dir.model / "model.safetensors").is_file()


def test_what_a_reward_model_cannot_read_is_said_before_anything_is_asked(made: Chain, tmp_path: Path) -> None:
    models = load_rewards(made.dirs["rm-own"] / "model")
    plain = Problem([{"role": "user", "content": "Hello"}], {}, "p.jsonl:1", "a")
    odd = Problem([{"role": "tool", "content": "4"}, {"role": "user", "content": "So?"}], {}, "p.jsonl:7", "b")
    check_renders(models, [plain] * 3, "stage")
    with pytest.raises(UserError, match="has a chat template, and the policy is asked texts"):
        check_renders(models, [plain, Problem("Hello", {}, "p.jsonl:2", "c")], "stage")
    loop, refuses = (
        "{%- for message in messages",
        "{%- if messages[0].role == 'tool' %}{{ raise_exception('no tools') }}",
    )
    assert loop in models.tokenizer.chat_template
    refusing = models.tokenizer.chat_template.replace(loop, f"{refuses}{{% endif %}}{loop}", 1)
    models.tokenizer.chat_template = refusing
    with pytest.raises(UserError, match=r"stage: its own template cannot render p\.jsonl:7 \(.*no tools"):
        check_renders(models, [plain, plain, odd], "stage")


def test_a_reward_model_with_another_template_than_it_was_trained_with_is_refused(made: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(made.dirs["rm-own"] / "model", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template += " "
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="has another chat template than it was trained with"):
        load_rewards(folder)


def test_members_of_an_ensemble_and_shares_of_the_rankings(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options: dict[str, Any] = {
        "data": [{"from": "ranks-own"}],
        "global_batch_size": 8,
        "heldout_fraction": 0.3,
        "trainer": {"max_steps": 4},
    }
    worker, manifest = chain.run(
        "reward",
        "both",
        num_models=2,
        learning_curve=[0.25, 0.5],
        degenerate=0.5,
        **options,
    )
    assert {path.name for path in worker.dir.model.iterdir()} == {"0", "1", "reward.json", "prompts.npy"}
    first, second = (AutoModelForCausalLM.from_pretrained(worker.dir.model / name).state_dict() for name in "01")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    metrics = manifest.metrics
    assert metrics["steps"] == 8
    assert metrics["heldout/disagreement"] > 0
    assert {"heldout/accuracy_of_0", "heldout/accuracy_of_1", "heldout/degenerate_last"} <= set(metrics)
    (curve,) = manifest.curves
    assert [x for x, _ in curve.points] == sorted(x for x, _ in curve.points)
    assert len(curve.points) == 3


def test_an_ensembles_log_odds_are_those_that_its_members_were_trained_to_give() -> None:
    """Scaling changes no order, but it changes chances: each member is sure by 4 nats."""
    raw, rows = np.array([[4.0, 104.0], [0.0, 100.0]]), Dataset.from_list([measured_row()])
    for members in (["."], ["0", "1"]):
        models = SimpleNamespace(
            members=members,
            card=SimpleNamespace(members=members),
            raw=lambda _, num=len(members): raw[:, :num],
            scaled=lambda raw_NM: (raw_NM - 2.0) / 40.0,
        )
        found = measured_on(models, rows)  # type: ignore[arg-type]
        assert found["loss"] == pytest.approx(np.log1p(np.exp(-4.0)))
        assert found["calibration_error"] == pytest.approx(1 - 1 / (1 + np.exp(-4.0)))
        assert found["accuracy"] == 1.0


def measured_row() -> dict[str, Any]:
    return {"prompt_ids": [1], "answers_ids": [[2], [3]], "num_ranked": 2, "rankings": [[1, 2]]}


def test_shares_of_the_rankings_are_not_trained_where_nothing_measures_them(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = {"heldout_fraction": 1e-9, "learning_curve": [0.5], "trainer": {"max_steps": 1}}
    worker, manifest = chain.run("reward", "blind", data=[{"from": "ranks-own"}], global_batch_size=8, **options)
    assert any("learning_curve is left out" in warning for warning in manifest.warnings)
    assert [path.name for path in worker.dir.checkpoints.iterdir()] == ["0"]


def test_an_adapter_is_merged_with_its_head(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    peft = {"r": 4, "lora_alpha": 8}
    worker, manifest = chain.run(
        "reward", "lora", data=[{"from": "ranks-own"}], global_batch_size=8, heldout_fraction=0.3, peft=peft
    )
    assert manifest.adapter_dir == "adapter"
    assert (worker.dir.adapter / "0" / "adapter_model.safetensors").is_file()
    plain = load_scorer(str(made.model), seed=7)
    scores = load_rewards(worker.dir.model)
    assert not torch.equal(scores.members[0].score.weight, plain.score.weight)


def test_a_killed_ensemble_goes_on_with_its_second_member(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmkit.stages import reward

    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options: dict[str, Any] = {
        "data": [{"from": "ranks-own"}],
        "global_batch_size": 8,
        "heldout_fraction": 0.3,
        "num_models": 2,
        "trainer": {"max_steps": 4},
    }
    whole, _ = chain.run("reward", "whole", **options)
    trained, between = [], reward.train_between

    def dies(worker: Any, trainer: Any, measured: Any) -> Any:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(trainer.args.seed)
        return between(worker, trainer, measured)

    file = chain.file("reward", "killed", **options)
    file.dir.path.mkdir()
    monkeypatch.setattr(reward, "train_between", dies)
    with pytest.raises(KeyboardInterrupt):
        reward.run(Worker(file))
    trained.clear()
    manifest = reward.run(Worker(file))
    assert trained == [8]
    assert manifest.metrics["steps"] == 8
    trained.append(9)  # none is trained any more
    again = reward.run(Worker(file))
    assert again.metrics == manifest.metrics
    for name in "01":
        a, b = (load_rewards_of(folder, name) for folder in (whole.dir.model, file.dir.model))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def load_rewards_of(folder: Path, member: str) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(folder / member / "model.safetensors").values())


# --- practice ---------------------------------------------------------------------------------------------------------


def rlhf_options(tmp_path: Path, **fields: Any) -> dict[str, Any]:
    train, held = write_prompts(tmp_path / "t.jsonl", range(30)), write_prompts(tmp_path / "h.jsonl", range(100, 112))
    guard = {"gold": "rm-other", "num_prompts": 12, "every": 0.34, "patience": 2, "max_unlikely": None}
    return {
        "data": [{"path": str(train)}],
        "heldout": {"prompts": [{"path": str(held)}]},
        "reward_model": "rm-own",
        "guard": guard,
        "global_batch_size": 16,
        "measured_by": LIKES,
        **fields,
    }


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_practice_looks_at_held_out_prompts_and_keeps_the_best_step(
    made: Chain, tmp_path: Path, algorithm: str
) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    worker, manifest = chain.run("rlhf", "rlhf", algorithm=algorithm, **rlhf_options(tmp_path))
    looks = rows_of(worker.dir.path / "guard.jsonl")
    assert [row["step"] for row in looks] == [0, 2, 4, 6]
    assert looks[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert looks[-1]["kl"] > 0
    assert manifest.metrics["guard_best_step"] == looks[best_of([Evaluation(**row) for row in looks])]["step"]
    assert {curve.name for curve in manifest.curves} >= {"guard/kl", "guard/gold", "guard/reward_model", "guard/true"}


def test_a_policy_that_only_gets_worse_ends_where_it_began(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving(monkeypatch, by=-1.0)
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path, trainer={"max_steps": 12})
    # an earlier start was killed while it saved the first weights
    half = chain.file("rlhf", "worse", **options).dir.checkpoints / "checkpoint-0"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    worker, manifest = chain.run("rlhf", "worse", **options)
    assert manifest.metrics["guard_stopped"] == 1
    assert manifest.metrics["guard_best_step"] == 0
    assert manifest.metrics["steps"] < 12
    start, end = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (made.model, worker.dir.model)
    )
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert any("gold has fallen" in warning for warning in manifest.warnings)


def moving(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """Gold goes up, or down, by so much at every look."""
    judged(monkeypatch, (by * look for look in range(1000)))


def judged(monkeypatch: pytest.MonkeyPatch, levels: Iterable[float]) -> None:
    """Gold of each look in turn."""
    golds = iter(levels)

    def gold(prompts: Any, texts: Any, *_: Any) -> np.ndarray:
        return np.full(len(texts), next(golds)) + 0.01 * np.arange(len(texts))

    monkeypatch.setattr(rlhf, "gold_of", lambda worker: gold)


def killed_behind_training(chain: Chain, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Worker, Any]:
    """A stage whose first start was killed once training had ended."""
    with monkeypatch.context() as killed:
        killed.setattr(rlhf, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            chain.run("rlhf", "killed", **options)
    return chain.run("rlhf", "killed", **options)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"max_kl": 1e-6}, "nats per answer from its start, more than 1e-06"),
        ({"max_unlikely": 1e-6}, "of the answers are such as it hardly ever gave at the start"),
    ],
)
def test_a_step_beyond_a_limit_is_not_kept_and_a_stop_outlives_a_kill(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, float], said: str
) -> None:
    """Gold rises, and the second look is too far from the start. The stage is killed once training has ended."""
    moving(monkeypatch, by=1.0)
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path)
    options["guard"] |= limit
    worker, manifest = killed_behind_training(chain, monkeypatch, **options)
    assert (manifest.metrics["guard_stopped"], manifest.metrics["guard_best_step"]) == (1, 0)
    looks = rows_of(worker.dir.path / "guard.jsonl")
    assert [row["step"] for row in looks] == [0, 2]
    assert looks[0]["unlikely"] <= 1 / 12, "all but one in 200 of its own"
    assert any(said in text for text in manifest.warnings)
    start, end = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (made.model, worker.dir.model)
    )
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_the_last_step_is_looked_at_and_can_be_kept_within_a_generation_batch(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps train on one batch. The stage is killed once training has ended."""
    moving(monkeypatch, by=1.0)
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path, trainer={"max_steps": 3, "num_iterations": 2})
    worker, manifest = killed_behind_training(chain, monkeypatch, **options)
    assert [row["step"] for row in rows_of(worker.dir.path / "guard.jsonl")] == [0, 2, 3]
    assert (manifest.metrics["guard_best_step"], manifest.metrics["steps"]) == (3, 3)


def test_killed_practice_ends_as_if_it_had_not_been(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first step was saved, and behind it."""
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path)
    whole, expected = chain.run("rlhf", "whole", **options)
    look, due = Guard.__call__, [2, 3]

    def dies(guard: Guard) -> Evaluation:
        if len(guard.evaluations) + 1 == due[0]:
            raise KeyboardInterrupt
        return look(guard)

    file = chain.file("rlhf", "killed", **options)
    file.dir.path.mkdir()
    with monkeypatch.context() as killed:
        killed.setattr(Guard, "__call__", dies)
        while due:
            with pytest.raises(KeyboardInterrupt):
                rlhf.run(Worker(file))
            del due[0]
    manifest = rlhf.run(Worker(file))
    before, after = (
        [{**row, "seconds": 0} for row in rows_of(folder / "guard.jsonl")] for folder in (whole.dir.path, file.dir.path)
    )
    assert after == before
    timed = {"train_seconds", "guard_seconds", "guard_share", "train_loss"}
    assert {k: v for k, v in manifest.metrics.items() if k not in timed} == {
        k: v for k, v in expected.metrics.items() if k not in timed
    }
    one, other = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (whole.dir.model, file.dir.model)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_kill_while_the_best_step_is_saved_leaves_the_best_before(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 1 is no better than the start, step 2 is. Two checkpoints are kept: killed before that of step 2 is marked
    as whole, the stage must find that of the start, and not the one of step 1 alone."""
    judged(monkeypatch, [0.0, 0.0, 1.0, 0.0, 1.0, 2.0])
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    trainer = {"max_steps": 3, "save_steps": 1, "save_total_limit": 2}
    file = chain.file("rlhf", "killed", **rlhf_options(tmp_path, trainer=trainer))
    file.dir.path.mkdir()
    saved = GrpoTrainer._save_checkpoint

    def dies(trainer: Any, *args: Any, **kwargs: Any) -> None:
        saved(trainer, *args, **kwargs)
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(GrpoTrainer, "_save_checkpoint", dies)
        rlhf.run(Worker(file))
    manifest = rlhf.run(Worker(file))
    assert (manifest.metrics["guard_best_step"], manifest.metrics["steps"]) == (3, 3)


def test_the_best_step_that_was_not_loaded_stops_the_stage(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving(monkeypatch, by=-1.0)
    monkeypatch.setattr(GrpoTrainer, "_load_best_model", lambda trainer: None)
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    with pytest.raises(RunError, match=r"checkpoint-0: does not hold the weights .* step 0 is the best"):
        chain.run("rlhf", "lost", **rlhf_options(tmp_path, trainer={"max_steps": 1}))


def test_a_function_that_reads_a_column_guards_members_that_are_combined(made: Chain, tmp_path: Path) -> None:
    """Answers that are cut off lose as many deviations as is said, in the unit of the reward model's weighted score."""
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    tuned = "data.helpers_preference:tuned"
    options = rlhf_options(tmp_path, trainer={"max_steps": 2}, measured_by=LIKES)
    options["guard"] = {**options["guard"], "gold": None, "labeller": tuned}
    options["heldout"]["prompts"][0]["set"] = {"tone": "low"}
    spec = {"from": ["rm-own", "rm-other"], "combine": "variance", "uncertainty": 2.0}
    worker, _ = chain.run(
        "rlhf", "rlhf", **{**options, "reward_model": spec, "reward_weight": 0.5, "missing_eos_penalty": 3.0}
    )
    for row in rows_of(worker.dir.path / "guard.jsonl"):
        assert row["gold"] == [-value for value in row["true"]]
    rows = pq.read_table(worker.dir.data / "rollouts.parquet").to_pylist()
    assert {row["truncated"] for row in rows} == {True, False}
    for row in rows:
        scores = json.loads(row["scores"])
        members = np.array([scores["reward_model_0"], scores["reward_model_1"]])
        assert scores["reward_model"] == pytest.approx(members.mean() - 2 * members.var())
        assert scores["missing_eos"] == (-3 if row["truncated"] else 0)
        assert row["reward"] == pytest.approx(0.5 * (scores["reward_model"] + scores["missing_eos"]))


def test_a_judge_compares_with_the_first_answers(made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It likes vowels, and once it writes no order; a stage that goes on compares with the same answers."""
    from data.helpers_preference import vowels

    pairs: list[dict[str, str]] = []

    class Judge:
        failures = Counter({"no order": 1})

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def rank(self, items: Any) -> list[Decision]:
            pairs.extend(dict(item.texts) for item in items)
            return [
                Decision(
                    id=item.id, rater="judge", time="", item=item.id, version=item.version, by="judge", seconds=0.0,
                    shown=tuple(item.texts),
                    groups=tuple((id,) for id in sorted(item.texts, key=lambda id: -vowels([item.texts[id]])[0])),
                )
                for item in items[1:]
            ]  # fmt: skip

    monkeypatch.setattr(guard_judge, "RankJudge", Judge)
    monkeypatch.setattr(guard_judge, "own_engine", lambda *_: (None, True))
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path, trainer={"max_steps": 2})
    spec = {"by": "openai", "name_or_path": "m", "base_url": "http://127.0.0.1:9", "max_undecided": 0.1}
    options["guard"] = {"judge": spec, "num_prompts": 12, "every": 0.5, "max_unlikely": None}
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    worker, manifest = chain.run("rlhf", "judged", **options)
    first, last = rows_of(worker.dir.path / "guard.jsonl")[0::2]
    assert first["gold"] == [0.5] * 12
    assert set(last["gold"]) <= {0.0, 0.5, 1.0}
    assert last["gold"].count(0.5) < 12
    assert pairs
    start = {row["text"] for row in rows_of(worker.dir.path / "guard-start.jsonl")}
    assert {pair["start"] for pair in pairs} <= start
    assert any("1 of 12 pairs have no readable order (no order)" in text for text in manifest.warnings)
    options["guard"] = {**options["guard"], "judge": {**spec, "max_undecided": 0.0}}
    with pytest.raises(UserError, match=r"guard.judge: 1 of 12 pairs have no readable order"):
        chain.run("rlhf", "strict", **options)


def test_an_evaluation_gives_a_function_the_rows_columns(made: Chain) -> None:
    class Engine:
        def answer(self, asks: Any, **_: Any) -> Any:
            return ([Answer("aeiou", "stop", num_tokens=1)] for _ in asks)

    labeller = "data.helpers_preference:tuned"
    fields = {"task": "preference", "prompts": [{"path": "x"}], "labeller": labeller, "num_samples": 1}
    rows = [Problem("Say it.", {"tone": tone}, f"x:{tone}", tone) for tone in ("high", "low")]
    worker = Worker(made.file("rlhf", "unused", data=[{"path": "x"}], rewards=[], reward_model="rm-own", guard="off"))
    worker.dir.path.mkdir(exist_ok=True)
    spec = PreferenceSpec.model_validate(fields)
    found = evaluate_preference(worker, PartialState(), spec, rows, Engine(), "m")  # type: ignore[arg-type]
    assert [document.metrics["gold"] for document in found.documents] == [1.0, -1.0]


@pytest.mark.parametrize(("how", "expected"), [("mean", [2.0, 2.0]), ("min", [1.0, 2.0]), ("variance", [1.5, 2.0])])
def test_ways_to_combine_members(how: str, expected: list[float]) -> None:
    spec = RewardModelSpec.model_validate({"from": ["rm"], "combine": how})
    assert combined(np.array([[1.0, 3.0], [2.0, 2.0]]), spec).tolist() == expected


def test_scores_that_are_no_numbers_are_refused(made: Chain) -> None:
    models = load_rewards(made.dirs["rm-own"] / "model")
    with torch.no_grad():
        models.members[0].score.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"rm-own.*gives scores that are no numbers"):
        score_texts(models, ["What is 1 plus 1?"], ["2"])


@pytest.mark.parametrize(("value", "said"), [(1.5, "gives all answers one score"), (float("nan"), "no numbers")])
def test_a_reward_model_without_a_scale_is_refused(made: Chain, value: float, said: str) -> None:
    card = RewardCard.model_validate(json.loads((made.dirs["rm-own"] / "model" / "reward.json").read_text()))
    with pytest.raises(DataError, match=said):
        scaled_card(card, np.full((4, 1), value))


def test_a_guard_has_enough_prompts_for_a_test(made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads no more answers at a time than are trained on."""
    sizes, read = [], guarding.log_probs_from
    monkeypatch.setattr(
        guarding, "log_probs_from", lambda model, rows, *args: sizes.append(len(rows)) or read(model, rows, *args)
    )
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path, trainer={"max_steps": 1}, global_batch_size=8)
    few = {"prompts": [{"path": str(write_prompts(tmp_path / "few.jsonl", range(100, 101)))}]}
    with pytest.raises(UserError, match=r"guard: has 1 of the 8 prompts that it needs.*'heldout'"):
        chain.run("rlhf", "few", **{**options, "heldout": few})
    options["guard"]["num_prompts"] = 40
    _, manifest = chain.run("rlhf", "fewer", **options)
    assert any("looks at 12 prompts: there are no more, and 40 are wanted" in text for text in manifest.warnings)
    assert sizes == [8, 4] * 2


@pytest.mark.parametrize(("num_shared", "said"), [(14, "refused"), (1, "warned"), (0, "")])
def test_gold_of_the_same_prompts_is_no_judge(made: Chain, tmp_path: Path, num_shared: int, said: str) -> None:
    own, folder = np.load(made.dirs["rm-own"] / "model" / "prompts.npy"), tmp_path / "gold"
    shutil.copytree(made.dirs["rm-other"], folder)
    np.save(folder / "model" / "prompts.npy", np.concatenate([own[:num_shared], 1 + np.arange(20 - num_shared)]))
    chain = Chain(tmp_path, made.model)
    chain.dirs = {**made.dirs, "rm-other": folder}
    file = chain.file("rlhf", "rlhf", **rlhf_options(tmp_path))
    file.dir.path.mkdir()
    worker = Worker(file)
    if said == "refused":
        with pytest.raises(UserError, match=r"14 of the 20 prompts of 'rm-other'.*fooled with it"):
            rlhf.check_apart(worker)
    else:
        rlhf.check_apart(worker)
        assert worker.warnings == ["1 of the 20 prompts of 'rm-other' are also those of 'rm-own'"] * bool(said)


def test_gold_that_cannot_read_the_prompts_is_refused_before_the_model_loads(
    made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gold"
    shutil.copytree(made.dirs["rm-other"], folder)
    (folder / "model" / "chat_template.jinja").unlink()
    card = json.loads((folder / "model" / "reward.json").read_text())
    (folder / "model" / "reward.json").write_text(json.dumps({**card, "chat_template_sha256": None}))
    monkeypatch.setattr(rlhf, "build_trainer", lambda *_: pytest.fail("the model is loaded"))
    chain = Chain(tmp_path, made.model)
    chain.dirs = {**made.dirs, "rm-other": folder}
    said = "stage 'rlhf': guard.gold 'rm-other': has no chat template, and the policy is asked conversations"
    with pytest.raises(UserError, match=said):
        chain.run("rlhf", "rlhf", **rlhf_options(tmp_path))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((20,), [f"0.{number}" for number in range(12)]),
        ((20, 3, 9), ["0.0", "1.0", "2.0", "0.1", "1.1", "2.1", "0.2", "1.2", "2.2", "0.3", "2.3", "0.4"]),
    ],
)
def test_the_guard_looks_at_all_held_out_sets_in_turn(
    made: Chain, tmp_path: Path, sizes: tuple[int, ...], expected: list[str]
) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    file = chain.file("rlhf", "rlhf", **rlhf_options(tmp_path))
    file.dir.path.mkdir()
    options: dict[str, Any] = {"weight": 1.0, "missing_eos_penalty": 1.0, "when": {"kind": "joke"}, "where": "here"}
    scorer = PreferenceScorer([], RewardModelSpec.model_validate({"from": ["rm-own"]}), None, **options)
    heldout = {
        str(place): [
            Problem("Say it.", {"kind": kind}, f"{place}.{number}", "key")
            for number in range(size)
            for kind in ("sum", "joke")
        ]
        for place, size in enumerate(sizes)
    }
    prepared = SimpleNamespace(scorer=scorer, heldout=heldout)
    assert [problem.place for problem in rlhf.looked_at(Worker(file), prepared)] == expected  # type: ignore[arg-type]


def test_the_guard_never_reads_the_measure(made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golds = []
    for name, labeller in (("one", LIKES), ("two", "data.test_preferences:noise")):
        chain = Chain(tmp_path / name, made.model)
        (tmp_path / name).mkdir()
        chain.dirs = dict(made.dirs)
        worker, _ = chain.run("rlhf", "rlhf", **rlhf_options(tmp_path, measured_by=labeller))
        golds.append([row["gold"] for row in rows_of(worker.dir.path / "guard.jsonl")])
    assert golds[0] == golds[1]


def noise(completions: list[Any], **_: Any) -> list[float]:
    return [float(len(str(each)) % 5) for each in completions]


def test_a_guard_that_is_off_says_so_and_keeps_the_last_step(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    worker, manifest = chain.run("rlhf", "off", **rlhf_options(tmp_path, guard="off"))
    assert any("guard is off" in warning for warning in manifest.warnings)
    assert "guard_best_step" not in manifest.metrics
    assert len(rows_of(worker.dir.path / "guard.jsonl")) > 2


def test_prompts_that_a_reward_model_was_trained_on_are_no_test(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    held = {"prompts": [{"path": str(write_prompts(tmp_path / "seen.jsonl", range(10, 22)))}]}
    options = rlhf_options(tmp_path, trainer={"max_steps": 1}) | {"heldout": held}
    _, manifest = chain.run("rlhf", "seen", **options)
    assert any("'rm-own' was trained on" in warning for warning in manifest.warnings)
    assert not any("'rm-other' was trained on" in warning for warning in manifest.warnings)


def test_looks_are_fewer_where_they_would_be_more_than_their_share(made: Chain, tmp_path: Path) -> None:
    found = []
    for name, max_share in (("dear", 1.0), ("cheap", 0.1)):
        chain = Chain(tmp_path / name, made.model)
        (tmp_path / name).mkdir()
        chain.dirs = dict(made.dirs)
        guard = {"gold": "rm-other", "num_prompts": 12, "every": 0.17, "patience": 1, "max_share": max_share}
        guard |= {"max_unlikely": None}
        worker, manifest = chain.run("rlhf", "rlhf", **rlhf_options(tmp_path, guard=guard, trainer={"max_steps": 6}))
        steps = [row["step"] for row in rows_of(worker.dir.path / "guard.jsonl")]
        found.append((steps, any("more than 'max_share'" in warning for warning in manifest.warnings)))
    assert found == [([0, 1, 2, 3, 4, 5, 6], False), ([0, 2, 4, 6], True)]


def test_rows_beside_the_reward_model_are_for_functions(made: Chain, tmp_path: Path) -> None:
    """Two kinds of rows: the reward model scores one, a function the other, and the guard looks at the first."""
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path, trainer={"max_steps": 4})
    sums = write_prompts(tmp_path / "sums.jsonl", range(200, 230))
    liked, checked = {"set": {"verifier": "taste"}}, {"set": {"verifier": "fine"}}
    held = [{**options["heldout"]["prompts"][0], **liked}, {"path": str(sums), **checked}]
    fine = {"path": "data.helpers_preference:fine", "when": {"verifier": "fine"}, "correctness": True}
    levelled = [{"path": str(sums), "set": {"verifier": "fine", "level": 1}}]
    mixed = {
        "data": [{**options["data"][0], **liked, "fraction": 0.5}, *levelled],
        "heldout": {"prompts": held},
        "reward_when": {"verifier": "taste"},
        "rewards": [fine],
        # what only the reward model scores has no level, and nothing says how hard it is
        "sampling": {"resample": 1, "filter": {"num_samples": 2, "keep": [0.5, 1.0]}, "curriculum": {}},
    }
    worker, manifest = chain.run("rlhf", "rlhf", **{**options, **mixed})
    assert 30 < manifest.metrics["problems"] <= 60
    rows = pq.read_table(worker.dir.data / "rollouts.parquet").to_pylist()
    scored = {(json.loads(row["prompt"])[0]["content"], *json.loads(row["scores"])) for row in rows}
    by_model = {prompt for prompt, *labels in scored if labels == ["reward_model", "missing_eos"]}
    by_function = {prompt for prompt, *labels in scored if labels == ["fine"]}
    assert by_model and by_function
    assert len(by_model) + len(by_function) == len(scored)
    assert by_function <= {row["prompt"] for row in rows_of(sums)}
    assert not by_model & {row["prompt"] for row in rows_of(sums)}
    assert {len(row["gold"]) for row in rows_of(worker.dir.path / "guard.jsonl")} == {12}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"reward_when": {"verifier": "taste"}, "rewards": [{"path": LIKES}]},
            "none of 30 prompts has verifier: taste",
        ),
        ({"reward_when": {"a": 1}, "rewards": [{"path": LIKES, "when": {"a": 2}}]}, "no reward applies to this row"),
    ],
)
def test_rows_that_nobody_scores_are_refused(made: Chain, tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = dict(made.dirs)
    options = rlhf_options(tmp_path)
    if "a" in fields["reward_when"]:
        options["heldout"]["prompts"][0]["set"] = {"a": 1}
        more = write_prompts(tmp_path / "more.jsonl", range(60, 61))
        options["data"] = [{**options["data"][0], "set": {"a": 3}}, {"path": str(more), "set": {"a": 1}}]
    with pytest.raises(UserError, match=said):
        chain.run("rlhf", "rlhf", **{**options, **fields})


def test_what_holds_no_reward_model_is_refused(made: Chain, tmp_path: Path) -> None:
    chain = Chain(tmp_path, made.model)
    chain.dirs = {**made.dirs, "rm-own": made.dirs["ranks-own"]}
    with pytest.raises(LlmkitError, match="holds no reward model"):
        chain.run("rlhf", "rlhf", **rlhf_options(tmp_path))
