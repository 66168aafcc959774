"""Reasoning that is ended after so many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers_talking import tool_tokenizer

from llmkit.chat.ask import Answer, Ask
from llmkit.data.orders import worked
from llmkit.errors import UserError
from llmkit.knowledge.answering import answer_chunk, only_thought
from llmkit.knowledge.asking import Asking
from llmkit.knowledge.records import Question
from llmkit.knowledge.store import Steps
from llmkit.recipe.knowledge import AskSpec
from llmkit.stages.thinking import BudgetEngine, check_thinking

ASKED = ({"role": "user", "content": "How much is 2 + 2?"},)


class Thinker:
    """Reasons in letters (a token each), closes its span after `length` of them, and answers by how far it came."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length, self.prompts = tokenizer, length, list[str]()

    def answer(
        self, asks: Sequence[Ask], *, max_new_tokens: int, stop_strings: Sequence[str] = (), **_: Any
    ) -> Iterator[Any]:
        for ask in asks:
            prompt = self.tokenizer.decode(ask.ids)
            self.prompts.append(prompt)
            if "</think>" not in prompt:
                assert "</think>" in stop_strings
                yield [Answer("r" * min(self.length, max_new_tokens), "stop")]
            else:
                thought = prompt.rpartition("<think>\n")[2].partition("\n</think>")[0]
                yield [Answer(f"{len(thought)} {ask.temperatures[0]}", "stop")]


@pytest.mark.parametrize(("budget", "seen"), [(0, 0), (3, 3), (50, 10)])
def test_the_model_answers_after_at_most_so_many_tokens(budget: int, seen: int) -> None:
    tokenizer = tool_tokenizer("chatml_think")
    engine = Thinker(tokenizer, 10)
    asks = [Ask(ASKED, "a", (0.0, 1.0)), Ask(ASKED, "b", (0.5,))]
    made = list(BudgetEngine(engine, tokenizer, budget).answer(asks, max_new_tokens=20))
    assert [[answer.text for answer in each] for each in made] == [[f"{seen} 0.0", f"{seen} 1.0"], [f"{seen} 0.5"]]
    assert len(engine.prompts) == (3 if budget == 0 else 6)
    assert all(prompt.count("<think>") == 1 for prompt in engine.prompts)
    assert engine.prompts[-1].endswith("\n</think>\n\n"), "the answer begins behind the span"


def test_a_model_without_a_place_to_think_is_refused() -> None:
    with pytest.raises(UserError, match="no span of reasoning"):
        check_thinking(tool_tokenizer("chatml"), "problems")
    check_thinking(tokenizer := tool_tokenizer("chatml_think"), "problems")
    with pytest.raises(UserError, match="no place to think"):
        list(BudgetEngine(Thinker(tokenizer, 1), tokenizer, 1).answer([Ask("plain", "a")], max_new_tokens=1))


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
