"""Reasoning that is ended after so many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers_script import chat_model, script
from helpers_talking import tool_tokenizer
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

from llmkit.chat.ask import Answer, Ask
from llmkit.chat.calls import decode
from llmkit.chat.turn import thought_and_said
from llmkit.data.orders import worked
from llmkit.errors import UserError
from llmkit.generation.conversation import Conversation, Settings
from llmkit.generation.engine import TransformersEngine
from llmkit.generation.thought import ThoughtLimit, num_marks
from llmkit.knowledge.answering import answer_chunk, only_thought
from llmkit.knowledge.asking import Asking
from llmkit.knowledge.records import Question
from llmkit.knowledge.store import Steps
from llmkit.recipe.knowledge import AskSpec
from llmkit.stages.own_template import check_thinking

ASKED = ({"role": "user", "content": "How much is 2 + 3?"},)
THOUGHT = "2 and 3 " * 4


def ended(text: str, max_tokens: int, opened: bool) -> str | None:
    """What is written for a model that has written this, a token a letter; None: nothing."""
    tokenizer, ids = tool_tokenizer("chatml_think"), list[int]()
    limit = ThoughtLimit(tokenizer, max_tokens, opened=opened)
    for token in [*tokenizer(text, add_special_tokens=False).input_ids, None]:
        forced = limit(ids)
        if forced is not None:
            end = [forced]
            while (forced := limit([*ids, *end])) is not None:
                end.append(forced)
            return f"{len(ids)} {decode(tokenizer, end)}"
        ids += [] if token is None else [token]
    return None


@pytest.mark.parametrize(
    ("text", "max_tokens", "opened", "found"),
    [
        ("<think>\nab", 0, False, "7 \n\n</think>\n\n"),
        ("<think>\nab", 1, False, "9 \n</think>\n\n"),
        ("<think>\na\nb", 2, False, "10 </think>\n\n"),
        ("<think>ab", 2, False, "9 \n</think>\n\n"),
        ("<think>\nab", 3, False, None),
        ("<think>\nab\n</think>\n\nYes, 5.", 12, False, None),
        ("ab", 0, True, "0 \n</think>\n\n"),
        ("ab", 2, True, "2 \n</think>\n\n"),
        ("Yes.", 0, False, None),
    ],
)
def test_a_span_ends_as_the_template_writes_it(text: str, max_tokens: int, opened: bool, found: str | None) -> None:
    """Counted is what stands behind the line that opens it."""
    assert ended(text, max_tokens, opened) == found


@pytest.fixture(scope="module", params=["spelled", "tokens", "special"])
def reasoner(request: Any, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model and a tokenizer that spells the marks, or has tokens for them, special ones or not."""
    folder = chat_model(model_dir, tmp_path_factory.mktemp("reasoner"), "chatml_think")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    if request.param != "spelled":
        is_special = request.param == "special"
        tokenizer.add_tokens([AddedToken(m, special=is_special) for m in ("<think>", "</think>")], is_special)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


@pytest.mark.parametrize("budget", [0, 5, 200])
def test_evaluations_end_reasoning_as_chat_does(
    reasoner: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    model, tokenizer = reasoner
    script(monkeypatch, tokenizer, lambda _: f"<think>\n{THOUGHT}\n</think>\n\nIt is 5.")
    engine = TransformersEngine(model, tokenizer).thinking(budget)
    ((answer,),) = engine.answer([Ask(ASKED, "a")], max_new_tokens=300)
    conversation = Conversation(model, tokenizer, Settings(max_new_tokens=300))
    conversation.change(f"max_thinking_tokens={budget}")
    list(conversation.ask("How much is 2 + 3?"))
    assert conversation.row is not None and list(answer.ids) == conversation.row.ids
    thought, said = thought_and_said(answer.text)
    ids = tokenizer(THOUGHT, add_special_tokens=False).input_ids
    assert thought == decode(tokenizer, ids[:budget]) and said.endswith("It is 5.")
    assert conversation.num_thought <= min(budget, len(ids)) + num_marks(tokenizer)


def test_a_model_without_a_place_to_think_is_refused() -> None:
    with pytest.raises(UserError, match="no span of reasoning"):
        check_thinking(tool_tokenizer("chatml"), "problems")
    check_thinking(tool_tokenizer("chatml_think"), "problems")


@pytest.mark.parametrize(
    ("text", "opened", "thought", "said"),
    [
        ("Bern.", False, None, "Bern."),
        ("Bern?", True, "Bern?", ""),
        ("Bern?\n</think>\n\nRome.", True, "Bern?", "Rome."),
        ("Bern?\n</think>\n\nRome.", False, "Bern?", "Rome."),
        ("<think>\nBern?\n</think>\n\nRome.", True, "Bern?", "Rome."),
    ],
)
def test_a_question_s_answer_is_kept_without_its_reasoning(
    tmp_path: Path, text: str, opened: bool, thought: str | None, said: str
) -> None:
    class Says:
        def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[Any]:
            yield from ([Answer(text, "stop")] for _ in asks)

    asking, steps = Asking(AskSpec(num_samples=0), (), True, 0, opened), Steps(tmp_path)
    steps.begin({"answers": "key"})
    answer_chunk(steps, "answers", 0, [Question("Where?", ("Rome",))], asking, Says())
    (answer,) = next(iter(steps.read("answers", 0)))["answers"]
    assert (answer["thought"], answer["text"]) == (thought, said) and only_thought(answer) == (not said)


def test_worked_problems_become_reasoning() -> None:
    plain = worked(path="llmkit.tiny.sources:problems", order="reasoning_first", args={"num_rows": 10})
    for row, said in zip(
        worked(path="llmkit.tiny.sources:problems", order="think", args={"num_rows": 10}), plain, strict=True
    ):
        asked, answer = row["messages"]
        assert asked == {"role": "user", "content": said["prompt"]}
        assert f"{answer['reasoning_content']} {answer['content']}" == said["completion"]
        assert answer["content"].startswith("The answer is ")
