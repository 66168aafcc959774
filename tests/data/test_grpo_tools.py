"""Practice with tools: answers are conversations, of which only what the model wrote is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from helpers_preference import chat_model
from helpers_talking import Scripted, call, results, tool_tokenizer
from transformers import AutoTokenizer
from trl import GRPOTrainer

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.chat.render import prompt_ids, render
from llmkit.errors import TemplateError, UserError
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.stages import GrpoStage
from llmkit.recipe.tools import CalculatorSpec, PythonSpec
from llmkit.recipe.trainer_keys import resolved_trainer
from llmkit.rewards.calls import make_calls
from llmkit.rewards.think import make_think
from llmkit.stages import grpo, practice
from llmkit.stages.common import Worker
from llmkit.stages.talking import ToolEngine, check_tools
from llmkit.tools.toolbox import open_tools

PYTHON = PythonSpec(name="python")
ASKED = ({"role": "user", "content": "What is 12 * 12?"},)


def works_out(ask: Ask) -> str:
    found = results(ask)
    return f"It is {found[0]}." if found else call("calculator", expression="12 * 12")


def told(tokenizer: Any, reply: Any, max_new_tokens: int = 400, **options: Any) -> tuple[Any, Scripted]:
    engine = Scripted(tokenizer, reply)
    with open_tools([CalculatorSpec(name="calculator")]) as box:
        wrapped = ToolEngine(engine, tokenizer, box, options.pop("max_calls", 4))
        ((answer,),) = wrapped.answer([Ask(ASKED, "key", (1.0,))], max_new_tokens=max_new_tokens, **options)
    return answer, engine


@pytest.mark.parametrize("template", ["chatml_tools", "chatml_search"])
def test_a_conversation_is_one_sequence_as_it_was_written(template: str) -> None:
    tokenizer = tool_tokenizer(template)

    def reply(ask: Ask) -> str:
        if template == "chatml_tools":
            return works_out(ask)
        return "It is 144." if results(ask) else "<|python_start|>print(12 * 12)<|python_end|>"

    engine = Scripted(tokenizer, reply)
    with open_tools([CalculatorSpec(name="calculator")] if template == "chatml_tools" else [PYTHON]) as box:
        wrapped = ToolEngine(engine, tokenizer, box, 4)
        ((answer,),) = wrapped.answer([Ask(ASKED, "key", (1.0,))], max_new_tokens=400)
        schemas = box.schemas
    assert answer.finish_reason == "stop" and answer.text == "It is 144."
    rendered = render(tokenizer, [*ASKED, *answer.messages], tools=schemas)
    prompt = prompt_ids(tokenizer, list(ASKED), tools=schemas)
    whole = [*prompt, *answer.ids]
    assert rendered.input_ids[: len(whole)] == whole, "what training sees is what the template writes"
    assert list(rendered.assistant_masks[len(prompt) : len(whole)]) == [int(own) for own in answer.own]
    assert answer.num_tokens == sum(answer.own) < len(answer.ids)
    assert list(engine.asks[1].ids) == whole[: len(engine.asks[1].ids)], (
        "the second turn follows the first's own tokens"
    )


def test_odd_tokens_of_a_turn_stay_as_they_are() -> None:
    """A model may write a text in other tokens than the tokenizer would: splitting it again would train another."""
    tokenizer = tool_tokenizer()
    odd = call("calculator", expression="12 * 12")

    class Odd(Scripted):
        def answer(self, asks: Any, **options: Any) -> Any:
            for ask in asks:
                self.asks.append(ask)
                text = self.reply(ask)
                ids = [i for letter in text for i in self.tokenizer(letter, add_special_tokens=False).input_ids]
                yield [Answer(text, "stop", ids=(*ids, self.tokenizer.eos_token_id))]

    engine = Odd(tokenizer, lambda ask: "done" if results(ask) else odd)
    with open_tools([CalculatorSpec(name="calculator")]) as box:
        ((answer,),) = ToolEngine(engine, tokenizer, box, 4).answer([Ask(ASKED, "key", (1.0,))], max_new_tokens=900)
    first = engine.asks[1].ids[len(engine.asks[0].ids) :]
    assert first[: len(odd)] == answer.ids[: len(odd)]


def test_a_conversation_that_is_too_long_is_cut_and_counts_as_cut() -> None:
    answer, _ = told(tool_tokenizer(), works_out, max_new_tokens=90)
    assert answer.finish_reason == "length" and len(answer.ids) == len(answer.own) == 90
    endless, _ = told(
        tool_tokenizer(), lambda ask: call("calculator", expression="1"), max_new_tokens=4000, max_calls=2
    )
    assert endless.finish_reason == "length" and sum(m["role"] == "tool" for m in endless.messages) == 2


def test_a_turn_with_calls_that_ends_as_documents_do_is_the_last_one() -> None:
    """Behind `<|endoftext|>` the template writes no result: what followed was a sequence that it never makes."""
    tokenizer = tool_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")

    class Ended(Scripted):
        def answer(self, asks: Any, **options: Any) -> Any:
            for (answer,) in super().answer(asks, **options):
                yield [replace(answer, ids=(*answer.ids[:-1], end))]

    def answered(reply: Any) -> Answer:
        with open_tools([CalculatorSpec(name="calculator")]) as box:
            wrapped = ToolEngine(Ended(tokenizer, reply), tokenizer, box, 4)
            ((answer,),) = wrapped.answer([Ask(ASKED, "key", (1.0,))], max_new_tokens=400)
        return answer

    cut = answered(works_out)
    assert cut.finish_reason == "length" and all(cut.own) and cut.ids.count(end) == 1 and len(cut.messages) == 1
    assert answered(lambda ask: "It is 144.").finish_reason == "stop"


def test_a_template_that_writes_earlier_turns_anew_is_refused() -> None:
    tokenizer = tool_tokenizer()
    forgets = "{% if message.tool_calls and not loop.last %}(a call){% endif %}"
    tokenizer.chat_template = tokenizer.chat_template.replace("{%- generation %}", "{%- generation %}" + forgets)
    with pytest.raises(TemplateError, match="writes an earlier turn anew"):
        told(tokenizer, works_out)


def test_plain_text_has_no_place_for_calls() -> None:
    tokenizer = tool_tokenizer()
    with open_tools([CalculatorSpec(name="calculator")]) as box, pytest.raises(UserError, match="no chat template"):
        list(ToolEngine(Scripted(tokenizer, works_out), tokenizer, box, 4).answer([Ask("12", "k")], max_new_tokens=9))


def test_calls_have_a_price() -> None:
    calls = [{"role": "assistant", "tool_calls": [{}, {}]}, {"role": "tool"}, {"role": "assistant", "content": "a"}]
    plain = [{"role": "assistant", "content": "a"}]
    assert make_calls()(completions=[calls, plain, "text"]) == [-2.0, 0.0, 0.0]
    assert make_calls(free=1)(completions=[calls]) == [-1.0]
    hidden = [
        {"role": "assistant", "content": "<tool_call>{}</tool_call><tool_call>x"},
        {"role": "tool"},
        {"role": "tool"},
    ]
    assert make_calls()(completions=[hidden]) == [-2.0], "calls of a turn that cannot be read whole"
    with pytest.raises(UserError, match="calls: free: is -1"):
        make_calls(free=-1)


def test_thoughts_beside_the_content_are_seen_by_rewards_on_form() -> None:
    turn = {"role": "assistant", "reasoning_content": "hm", "content": "It is 2."}
    assert make_think()(prompts=[[]], completions=[[turn]]) == [1.0]


def test_templates_are_tried_before_anything_is_trained() -> None:
    with open_tools([CalculatorSpec(name="calculator")]) as box:
        check_tools(tool_tokenizer(), box.schemas, exact=True)
        with pytest.raises(TemplateError):
            check_tools(tool_tokenizer("chatml"), box.schemas)
        forgets = tool_tokenizer()
        text = "{% if message.tool_calls and not loop.last %}(a call){% endif %}"
        forgets.chat_template = forgets.chat_template.replace("{%- generation %}", "{%- generation %}" + text)
        with pytest.raises(TemplateError, match="writes an earlier turn anew"):
            check_tools(forgets, box.schemas, exact=True)
        plain = tool_tokenizer()
        plain.chat_template = None
        with pytest.raises(UserError, match="no chat template"):
            check_tools(plain, box.schemas)


# In the stage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return chat_model(model_dir, tmp_path_factory.mktemp("tools-model"), "chatml_search")


def practised(tmp_path: Path, model: Path, **fields: Any) -> Manifest:
    rows = [{"prompt": f"What is {i} * {i}?", "answer": i * i} for i in range(12)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = {"max_steps": 2, "num_generations": 4, "max_completion_length": 150, "learning_rate": 1e-3}
    own = {"bf16": False, "gradient_checkpointing": False, "save_strategy": "no"}
    stage = GrpoStage.model_validate(
        {
            "kind": "grpo",
            "name": "stage",
            "seed": 7,
            "data": [{"path": str(tmp_path / "problems.jsonl")}],
            "heldout": {"problems": [{"path": str(tmp_path / "problems.jsonl")}]},
            "rewards": ["exact", {"name": "calls", "weight": 0.1}],
            "trainer": resolved_trainer("grpo", {**trainer, **own}),
            "global_batch_size": 8,
            "tools": ["python"],
            "measure": {"num_samples": 0},
            **fields,
        }
    )
    batch = Batch(global_batch_size=8, per_device_train_batch_size=8, gradient_accumulation_steps=1, world_size=1)
    folder = tmp_path / "stage"
    file = StageFile(
        run=RunSpec(name="t"),
        model=ModelSpec(dtype="float32", chat_template="chatml_search"),
        stage=stage,
        stage_dir=str(folder),
        fingerprint="f",
        input_model=str(model),
        batch=batch,
    )
    folder.mkdir()
    manifest = grpo.run(Worker(file))
    write_manifest(folder, manifest)
    return manifest


def test_practice_trains_what_the_model_wrote_and_nothing_else(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns = iter(range(10**6))

    def reply(ask: Ask) -> str:
        number = str(ask.prompt[0]["content"]).split()[2]  # type: ignore[index]
        if results(ask):
            return f"The answer is {results(ask)[0]}."
        guesses = next(turns) % 2
        return "The answer is 7." if guesses else f"<|python_start|>print({number} * {number})<|python_end|>"

    monkeypatch.setattr(practice, "TransformersEngine", lambda *_: Scripted(tokenizer, reply))
    seen: list[dict[str, Any]] = []
    score = GRPOTrainer._generate_and_score_completions

    def spy(self: Any, inputs: Any) -> Any:
        output = score(self, inputs)
        seen.append(output)
        return output

    logged: list[tuple[str, float]] = []
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", spy)
    monkeypatch.setattr(GRPOTrainer, "_log_metric", lambda self, name, value: logged.append((name, value)))
    manifest = practised(tmp_path, model)
    assert [pair for pair in logged if pair[0].startswith("tools/")] == [
        ("tools/python/calls", 4.0),
        ("tools/python/failed", 0.0),
    ] * 2
    assert manifest.metrics["heldout/problems/after/accuracy"] > 0
    for output in seen:
        for ids, mask, own in zip(
            output["completion_ids"], output["completion_mask"], output["tool_mask"], strict=True
        ):
            trained = tokenizer.decode(ids[(mask * own).bool()])
            rest = tokenizer.decode(ids[(mask * (1 - own)).bool()])
            if "<|python_start|>" in trained:
                assert "<|result_start|>" in rest and "<|result_start|>" not in trained
            else:
                assert rest == "" and trained.startswith("The answer is 7.")
    kept = pq.read_table(tmp_path / "stage" / "data" / "rollouts.parquet").to_pylist()
    called = [row for row in kept if "[call] python" in row["completion"]]
    assert called and all("[result] " in row["completion"] for row in called)
    assert (
        any(row["right"] for row in called) and torch.isfinite(torch.tensor([row["advantage"] for row in kept])).all()
    )


def test_random_weights_practise_with_tools(tmp_path: Path, model: Path) -> None:
    manifest = practised(tmp_path, model, max_calls=1)
    assert manifest.metrics["sampled_tokens"] > 0 and manifest.model_dir is not None
