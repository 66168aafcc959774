"""Questions in all their variants: phrasings, few-shot draws, shares of samples."""

from __future__ import annotations

import pytest

from llmkit.errors import DataError
from llmkit.knowledge.asking import POOL_SIZE, Asking, fewshot_pool
from llmkit.knowledge.records import Question
from llmkit.recipe.knowledge import AskSpec

QUESTIONS = [Question(f"Where was person {i} born?", (f"Town {i}", f"T{i}"), f"Person {i}") for i in range(100)]
QUESTIONS += [Question(f"What is the job of person {i}?", (f"Job {i}",), f"PERSON  {i}.") for i in range(100)]


def asking(chat: bool = False, seed: int = 0, **spec: object) -> Asking:
    options = AskSpec.model_validate(spec)
    return Asking(options, fewshot_pool(QUESTIONS, options), chat, seed)


def test_plain_text_ends_where_the_answer_begins() -> None:
    (ask,) = asking(num_samples=2).asks(QUESTIONS[0])
    assert ask.prompt == "Question: Where was person 0 born?\nAnswer:"
    assert ask.temperatures == (0.0, 0.7, 0.7) and asking().stop_strings == ("\n",)


def test_a_chat_model_gets_messages_with_examples_as_earlier_turns() -> None:
    (ask,) = asking(chat=True, num_fewshot=2, system="Be brief.", num_samples=0).asks(QUESTIONS[0])
    roles = [message["role"] for message in ask.prompt]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert ask.prompt[-1]["content"] == QUESTIONS[0].question
    answers = {question.question: question.answers[0] for question in QUESTIONS}
    assert all(answers[ask.prompt[i]["content"]] == ask.prompt[i + 1]["content"] for i in (1, 3))
    assert asking(chat=True).stop_strings == ()


@pytest.mark.parametrize("num_samples", [0, 1, 5, 6, 16])
def test_samples_are_shared_out_evenly(num_samples: int) -> None:
    spec = {"phrasings": ["{question}", "Tell me: {question}", "{question} "], "num_fewshot": 1, "num_variants": 2}
    asked = asking(num_samples=num_samples, **spec)
    asks = asked.asks(QUESTIONS[3])
    shares = [len(ask.temperatures) - 1 for ask in asks]
    assert len(asks) == asked.spec.prompts_per_question == 6
    assert sum(shares) == num_samples and max(shares) - min(shares) <= 1
    assert sum(len(ask.temperatures) for ask in asks) == asked.spec.answers_per_question
    assert [ask.temperatures[0] for ask in asks] == [0.0] * 6
    assert [ask.key for ask in asks] == [f"{QUESTIONS[3].id}:{variant}" for variant in range(6)]
    assert len({ask.prompt for ask in asks}) == 6, "each variant is a prompt of its own"


def test_examples_are_never_about_the_questions_own_entity_however_it_is_spelled() -> None:
    asked = asking(num_fewshot=8, num_variants=6)
    for question in QUESTIONS:
        number = question.entity.split()[-1].rstrip(".")
        for ask in asked.asks(question):
            *examples, own = str(ask.prompt).split("\n\n")
            assert len(examples) == 8 and question.question in own
            assert not any(f"person {number} " in e or f"person {number}?" in e for e in examples)


def test_a_draw_is_the_same_for_all_questions_and_differs_by_draw_and_seed() -> None:
    def prefixes(seed: int) -> list[str]:
        asks = asking(num_fewshot=4, num_variants=3, seed=seed)
        far = [Question(f"What is {i}?", ("x",)) for i in range(5)]
        drawn = [[str(ask.prompt).rpartition("\n\n")[0] for ask in asks.asks(question)] for question in far]
        assert all(prefix == drawn[0] for prefix in drawn)
        return drawn[0]

    assert prefixes(0) == prefixes(0) and len({*prefixes(0), *prefixes(1)}) == 6


def test_braces_in_questions_stay_as_they_are() -> None:
    question = Question("What does {question} in {0} mean {", ("nothing",))
    (ask,) = asking(phrasings=["Say: {question}"], num_samples=0).asks(question)
    assert ask.prompt == "Question: Say: What does {question} in {0} mean {\nAnswer:"


def test_the_pool_takes_one_short_question_of_each_entity() -> None:
    spec = AskSpec(num_fewshot=1)
    long = Question("Why? " * 1000, ("because",), "Long")
    pool = fewshot_pool(iter([long, *QUESTIONS]), spec)
    assert len(pool) == POOL_SIZE and pool == tuple(QUESTIONS[:POOL_SIZE])
    assert len(fewshot_pool([QUESTIONS[0], QUESTIONS[100], QUESTIONS[1]], spec)) == 2


def test_too_few_entities_for_the_examples_are_refused() -> None:
    with pytest.raises(DataError, match=r"is 4, but there are short questions about only 4 entities; set it to 3"):
        fewshot_pool(QUESTIONS[:4], AskSpec(num_fewshot=4))
    assert fewshot_pool([], AskSpec()) == ()
