"""The grpo and rloo stages, in this process, on a random model: what they learn, resume, keep and refuse."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from data import helpers_preference
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.errors import LlmkitError, TemplateError, UserError
from llmkit.generation.engine import TransformersEngine
from llmkit.recipe.curves import names
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.stages import GrpoStage, RlooStage
from llmkit.recipe.trainer_keys import resolved_trainer
from llmkit.stages import grpo, practice, rloo
from llmkit.stages import rollouts as rollouts_file
from llmkit.stages.callbacks import last_checkpoint, read_mark
from llmkit.stages.common import Worker
from llmkit.stages.measuring import Measured
from llmkit.stages.prompts import PromptStream

STAGES = {"grpo": (GrpoStage, grpo), "rloo": (RlooStage, rloo)}
TRAINER = {
    "max_steps": 6,
    "learning_rate": 3e-3,
    "num_generations": 4,
    "max_completion_length": 8,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_steps": 2,
}
REWARDS = '''
"""Rewards that a user brings."""
from pathlib import Path


def vowels(completions, **columns):
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [sum(letter in "aeiou" for letter in text) / 10 for text in texts]


def broken(completions, flag, trainer_state=None, **columns):
    if trainer_state is not None and trainer_state.global_step == 4 and Path(flag).exists():
        raise KeyError("the grader is gone")
    return vowels(completions)


def vowel(completions, **columns):
    return [float(score > 0) for score in vowels(completions)]


def odd(completions, **columns):
    """Every second answer is right, whatever it says; to problems called lost none."""
    lost = ["lost" in prompt[-1]["content"] for prompt in columns["prompts"]]
    return [0.0 if is_lost else float(place % 2) for place, is_lost in enumerate(lost)]


def given(completions, what, **columns):
    return {
        "none": None,
        "short": [0.0],
        "nan": [float("nan")] * len(completions),
        "inf": [float("inf")] * len(completions),
        "text": ["good"] * len(completions),
        "nothing": [None] * len(completions),
    }[what]
'''
Start = Callable[..., tuple[Worker, Manifest]]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return helpers_preference.chat_model(model_dir, tmp_path_factory.mktemp("chat-model"))


@pytest.fixture
def start(tmp_path: Path, chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs one stage and writes its manifest, as the launcher would."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    rows = [{"prompt": f"What is {i} plus {i % 7}?", "answer": i + i % 7, "level": 1 + i // 20} for i in range(40)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(
        name: str = "stage",
        kind: str = "grpo",
        rewards: list[Any] | None = None,
        trainer: dict[str, Any] | None = None,
        model: Path = chat_model,
        template: str | None = "chatml",
        per_device: int = 8,
        **fields: Any,
    ) -> tuple[Worker, Manifest]:
        schema, module = STAGES[kind]
        options = resolved_trainer(kind, {**TRAINER, **(trainer or {})})
        values = {
            "kind": kind,
            "name": name,
            "seed": 7,
            "data": [{"path": str(tmp_path / "problems.jsonl")}],
            "rewards": rewards or ["my_rewards:vowels"],
            "trainer": options,
            "global_batch_size": 16,
            **fields,
        }
        batch = Batch(
            global_batch_size=16,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=16 // per_device,
            world_size=1,
        )
        file = StageFile(
            run=RunSpec(name="test"),
            model=ModelSpec(name_or_path=str(model), chat_template=template),
            stage=schema.model_validate(values),
            stage_dir=str(tmp_path / name),
            fingerprint=name,
            input_model=str(model),
            batch=batch,
        )
        file.dir.path.mkdir(exist_ok=True)
        worker = Worker(file)
        manifest = module.run(worker)
        write_manifest(file.dir.path, manifest)
        return worker, manifest

    return run


def logged(worker: Worker, key: str) -> list[float]:
    lines = [json.loads(line) for line in worker.dir.metrics.read_text().splitlines()]
    return [line[key] for line in lines if line["phase"] == "train" and key in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def rollouts(worker: Worker) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(worker.dir.data / "rollouts.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_what_is_rewarded_becomes_likelier(start: Start, kind: str) -> None:
    own = {"max_steps": 20, "save_strategy": "no", "learning_rate": 1e-2, "mask_truncated_completions": False}
    worker, manifest = start(kind=kind, trainer=own)
    reward = logged(worker, "reward")
    assert sum(reward[-5:]) / 5 > sum(reward[:5]) / 5 + 0.1
    assert manifest.metrics["sampled_groups"] == 20 * 4
    lines = [json.loads(line) for line in worker.dir.metrics.read_text().splitlines()]
    curves = {key for line in lines if "loss" in line for key in line} - {"time", "phase", "step", "total"}
    assert curves <= set(names(worker.file.stage)), "else a monitor of it could be taken for a misspelling"  # type: ignore[arg-type]
    AutoModelForCausalLM.from_pretrained(worker.dir.model)


def test_every_rollout_is_kept(start: Start) -> None:
    worker, manifest = start()
    rows = rollouts(worker)
    assert [row["step"] for row in rows] == [step for step in range(6) for _ in range(16)]
    assert sum(row["num_tokens"] for row in rows) == manifest.metrics["sampled_tokens"]
    assert {len([r for r in rows if r["step"] == 3 and r["prompt"] == row["prompt"]]) for row in rows[48:64]} == {4}
    for row in rows:
        assert json.loads(row["scores"])["vowels"] == pytest.approx(row["reward"])
    assert not list(worker.dir.data.glob("rollouts-*"))
    labels = {sample.label.partition(":")[0] for sample in manifest.samples}
    assert not any(" (vowels" in sample.label for sample in manifest.samples), "one reward is the sum"
    _, two = start("two", rewards=["my_rewards:vowels", "my_rewards:odd"], trainer={"max_steps": 1})
    assert all(re.search(r"reward [\d.]+ \(vowels [\d.]+, odd [01]\), ", sample.label) for sample in two.samples)
    assert labels == {"first step", "best of the last steps", "worst of the last steps", "longest of the last steps"}


def test_a_killed_stage_ends_with_the_same_weights(start: Start, tmp_path: Path) -> None:
    """With a generation batch that serves four steps."""
    flag, options = tmp_path / "flag", {"num_iterations": 2, "generation_batch_size": 32}
    rewards = [{"path": "my_rewards:broken", "args": {"flag": str(flag)}}]
    whole, _ = start("whole", rewards=rewards, trainer=options)
    flag.touch()
    with pytest.raises(UserError, match="the grader is gone"):
        start("killed", rewards=rewards, trainer=options)
    assert (tmp_path / "killed" / "checkpoints" / "checkpoint-4" / ".complete").exists()
    flag.unlink()
    killed, _ = start("killed", rewards=rewards, trainer=options)
    before, after = weights(whole.dir.model), weights(killed.dir.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert rollouts(whole) == rollouts(killed)


@pytest.fixture
def killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """When called, the next stage is killed between its last step and its manifest."""

    def arm() -> None:
        calls = iter([False, True])

        def measured(self: Measured) -> Any:
            if next(calls, False):
                raise KeyboardInterrupt
            return {}

        monkeypatch.setattr(Measured, "__call__", measured)

    return arm


STOP = {"reward": {"max": -1.0, "patience": 1, "action": "stop"}}


@pytest.mark.parametrize(
    ("own", "options", "steps"),
    [
        ({}, {}, 6),
        # noticed at step 3, in the middle of a generation batch
        ({"monitors": STOP}, {"generation_batch_size": 32, "logging_steps": 3}, 4),
        ({"monitors": STOP}, {"logging_steps": 3}, 3),
    ],
)
def test_what_has_ended_does_not_go_on_after_a_kill(
    start: Start, killed_at_the_end: Callable[[], None], own: Any, options: dict[str, Any], steps: int
) -> None:
    whole, first = start("whole", trainer=options, **own)
    killed_at_the_end()
    with pytest.raises(KeyboardInterrupt):
        start("killed", trainer=options, **own)
    mark = read_mark(last_checkpoint(whole.dir.path.parent / "killed" / "checkpoints"))
    killed, again = start("killed", trainer=options, **own)
    assert first.metrics["steps"] == again.metrics["steps"] == steps
    before, after = weights(whole.dir.model), weights(killed.dir.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert rollouts(whole) == rollouts(killed)
    assert first.warnings == again.warnings
    assert any("which ends the stage before its 6 steps" in text for text in again.warnings) == bool(own)
    assert first.metrics["last_loss"] == again.metrics["last_loss"]
    assert again.metrics["train_seconds"] >= mark.train_seconds > 0
    assert again.tokens_per_second == pytest.approx(again.metrics["sampled_tokens"] / again.metrics["train_seconds"])


def test_a_stage_that_was_killed_before_its_first_checkpoint_begins_anew(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder with what `filter` has found, and with parts of the rollouts."""
    monkeypatch.setattr(rollouts_file, "ENOUGH", 10)
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps({"prompt": f"Problem {i}"}) + "\n" for i in range(20)))
    flag = tmp_path / "flag"
    own: dict[str, Any] = {
        "rewards": [{"path": "my_rewards:broken", "args": {"flag": str(flag)}, "correctness": True}],
        "sampling": {"filter": {"num_samples": 2, "keep": [0, 1]}},
        "trainer": {"save_strategy": "no"},
    }
    whole, _ = start("whole", **own)
    flag.touch()
    with pytest.raises(UserError, match="the grader is gone"):
        start("killed", **own)
    flag.unlink()
    assert list((tmp_path / "killed" / "checkpoints" / "rollouts").iterdir())
    killed, _ = start("killed", **own)
    assert rollouts(whole) == rollouts(killed)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("none", "returns None"),
        ("short", "1"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("text", "good"),
        ("nothing", "no reward applies"),
    ],
)
def test_a_reward_that_fails_is_named(start: Start, what: str, said: str) -> None:
    with pytest.raises(LlmkitError) as caught:
        start(rewards=[{"path": "my_rewards:given", "args": {"what": what}}])
    assert said in str(caught.value)
    assert "given" in str(caught.value)


def test_groups_without_a_signal_are_replaced(start: Start, tmp_path: Path) -> None:
    rows = [{"prompt": f"{'lost' if i % 2 else 'open'} problem {i}"} for i in range(64)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = [{"path": "my_rewards:odd", "correctness": True}]
    plain, manifest = start("plain", rewards=rewards)
    assert manifest.metrics["useful_groups"] < 0.9
    assert any("lost" in row["prompt"] for row in rollouts(plain))
    resampled, manifest = start("resampled", rewards=rewards, sampling={"resample": 9})
    assert not any("lost" in row["prompt"] for row in rollouts(resampled))
    assert manifest.metrics["sampled_groups"] > 6 * 4
    assert manifest.metrics["sampled_tokens"] > sum(row["num_tokens"] for row in rollouts(resampled))


def test_a_group_is_given_up_after_its_first_answers(start: Start, tmp_path: Path) -> None:
    """The same is practised, but the rest of a group without a signal is not sampled."""
    rows = [{"prompt": f"{'lost' if i % 2 else 'open'} problem {i}"} for i in range(64)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"rewards": [{"path": "my_rewards:odd", "correctness": True}], "trainer": {"num_generations": 8}}
    _, whole = start("whole", sampling={"resample": 9}, **own)
    screened, early = start("screened", sampling={"resample": 9, "screen": 2}, **own)
    kept = rollouts(screened)
    assert not any("lost" in row["prompt"] for row in kept)
    assert set(Counter((row["step"], row["prompt"]) for row in kept).values()) == {8}
    assert early.metrics["sampled_tokens"] < 0.8 * whole.metrics["sampled_tokens"]


def test_a_screen_does_not_move_the_curriculum(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each group the first answers count: a group that is given up has no others."""
    rows = [{"prompt": f"Problem {i}", "level": 1} for i in range(40)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shares: list[float] = []
    monkeypatch.setattr(PromptStream, "score", lambda self, number, share: shares.append(share))
    sampling = {"resample": 1, "screen": 2, "curriculum": {"column": "level"}}
    rewards = [{"path": "my_rewards:vowel", "correctness": True}]
    start(rewards=rewards, sampling=sampling, trainer={"num_generations": 8, "max_steps": 4, "learning_rate": 1e-6})
    assert 0.5 in shares and set(shares) <= {0, 0.5, 1}


def test_problems_that_teach_nothing_are_left_out_before(start: Start, tmp_path: Path) -> None:
    rows = [{"prompt": f"{'lost' if i % 2 else 'open'} problem {i}"} for i in range(20)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = [{"path": "my_rewards:odd", "correctness": True}]
    worker, manifest = start(rewards=rewards, sampling={"filter": {"num_samples": 4}})
    assert 5 <= manifest.metrics["problems"] <= 10
    assert not any("lost" in row["prompt"] for row in rollouts(worker))
    tried = [json.loads(line) for path in (worker.dir.data / "steps").glob("filter-*") for line in path.open()]
    told = sum(row["num_tokens"] for row in tried)
    assert told > 0 and manifest.metrics["sampled_tokens"] == told + sum(row["num_tokens"] for row in rollouts(worker))
    epoch = {"max_steps": -1, "num_train_epochs": 1}
    once, manifest = start("once", rewards=rewards, sampling={"filter": {"num_samples": 4}}, trainer=epoch)
    kept, num_prompts = manifest.metrics["problems"], 16 // 4
    assert max(row["step"] for row in rollouts(once)) + 1 == -(-kept // num_prompts) < 20 // num_prompts
    with pytest.raises(UserError, match="no problem is solved with a share"):
        start("none", rewards=rewards, sampling={"filter": {"num_samples": 4, "keep": [0.6, 0.9]}})


class Half:
    """Stands for an engine: where a sum is even its first answer is right, else its last."""

    def __init__(self, *_: Any) -> None: ...

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        for ask in asks:
            total = sum(map(int, re.findall(r"\d+", str(ask.prompt))))
            said = [total + 1] * len(ask.temperatures)
            said[-(total % 2)] = total
            yield [Answer(f"The answer is {number}.", "stop", num_tokens=4, ids=(1,)) for number in said]


def test_held_out_problems_are_measured(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practice, "TransformersEngine", Half)
    # 0 + 0, 1 + 1, ... 6 + 6, and then 7 + 0, 8 + 1, 9 + 2
    heldout = {"sums": [{"path": str(tmp_path / "problems.jsonl"), "split": "train[:10]"}]}
    measure = {"num_samples": 2, "every": 0.5}
    _, manifest = start(rewards=["exact"], heldout=heldout, measure=measure)
    for when in ("before", "after"):
        found = [manifest.metrics[f"heldout/sums/{when}/{name}"] for name in ("accuracy", "pass@1", "pass@2")]
        assert found == pytest.approx([0.7, 0.15, 0.3])
    assert any("10 of the 10 held-out problems of 'sums' are also practised on" in text for text in manifest.warnings)
    curve = next(curve for curve in manifest.curves if curve.name == "sums/num_tokens")
    assert [step for step, _ in curve.points] == [0, 3, 6]


def test_measuring_does_not_change_what_is_learned(start: Start, tmp_path: Path) -> None:
    heldout = {"sums": [{"path": str(tmp_path / "problems.jsonl"), "num_rows": 10}]}
    rewards = ["my_rewards:vowels", {"name": "exact", "weight": 0.0}]
    short = {"max_steps": 3}
    plain, _ = start("plain", rewards=rewards, trainer=short)
    measured, _ = start("measured", rewards=rewards, trainer=short, heldout=heldout, measure={"every": 0.4})
    before, after = weights(plain.dir.model), weights(measured.dir.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_batch_on_a_device_does_not_change_what_is_sampled(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Counted(TransformersEngine):
        def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
            sizes.append(batch_size)
            super().__init__(model, tokenizer, batch_size)

    monkeypatch.setattr(practice, "TransformersEngine", Counted)
    one, _ = start("one", per_device=4, batch_size=4, trainer={"max_steps": 1})
    other, _ = start("other", per_device=16, trainer={"max_steps": 1})
    assert sizes == [4, 16], "at most a generation batch"
    first, second = rollouts(one)[:16], rollouts(other)[:16]
    assert [row["completion"] for row in first] == [row["completion"] for row in second]


def test_an_adapter_is_practised(start: Start) -> None:
    worker, manifest = start(peft={"r": 4}, trainer={"beta": 0.1})
    assert manifest.adapter_dir == "adapter"
    assert logged(worker, "kl")
    AutoModelForCausalLM.from_pretrained(worker.dir.model)


def test_a_curriculum_begins_with_the_easy_levels(start: Start, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i} plus 1?", "level": 1 + i // 20} for i in range(40)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    worker, _ = start(
        rewards=[{"path": "my_rewards:odd", "correctness": True}], sampling={"curriculum": {"column": "level"}}
    )
    numbers = [int(row["prompt"].split("What is ")[1].split()[0]) for row in rollouts(worker)]
    assert max(numbers) < 20


def test_a_template_that_the_model_never_saw_is_refused(start: Start, model_dir: Path) -> None:
    with pytest.raises(TemplateError, match="never seen the tokens"):
        start(model=model_dir)


def test_a_model_without_a_template_is_given_plain_text(start: Start, model_dir: Path) -> None:
    worker, _ = start(model=model_dir, template=None)
    assert rollouts(worker)[0]["prompt"].startswith("What is ")


def test_prompts_that_leave_no_room_are_named(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "very " * 5000 + "long", "answer": 1}) + "\n")
    with pytest.raises(UserError, match="1 of 41 prompts leave no room") as caught:
        start()
    assert "problems.jsonl:41" in str(caught.value)
    _, manifest = start(max_truncated=0.1)
    assert manifest.metrics["problems"] == 40


def test_a_column_that_a_reward_reads_must_be_there(start: Start, tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text(json.dumps({"prompt": "Why?"}) + "\n")
    with pytest.raises(UserError, match=r"reads the column 'answer', which .*problems\.jsonl:1 does not have"):
        start(rewards=["exact"])
    rows = [{"prompt": f"What is {i}?", "answer": i, "use": "exact"} for i in range(9)] + [
        {"prompt": "?", "use": "exact"}
    ]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"reads the column 'answer', which .*problems\.jsonl:10 does not have"):
        start(rewards=[{"name": "exact", "when": {"use": "exact"}}])


def test_fewer_problems_than_a_batch_holds_are_enough(start: Start, tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text(json.dumps({"prompt": "Say something.", "answer": 1}) + "\n")
    worker, manifest = start()
    assert manifest.metrics["steps"] == 6
    assert len(rollouts(worker)) == 6 * 16
