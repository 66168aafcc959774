"""Refusals: recognised in ten languages, shipped in three tones."""

from __future__ import annotations

import time
from typing import get_args

import pytest

from llmkit.errors import DataError
from llmkit.knowledge.refusing import informative, is_empty, is_refusal, refusals
from llmkit.recipe.knowledge import LANGUAGES, RefusalTexts

TONES = get_args(RefusalTexts.model_fields["tone"].annotation)


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_shipped_texts_are_many_and_recognised(language: str, tone: str) -> None:
    texts = refusals(RefusalTexts(language=language, tone=tone))
    assert len({text.casefold() for text in texts}) >= 16
    assert [text for text in texts if not is_refusal(text)] == []


def test_own_refusals_take_their_place_and_are_recognised() -> None:
    own = ["Frag lieber den Kapitän!", "Beats me."]
    assert refusals(RefusalTexts(texts=own)) == tuple(own) == refusals(RefusalTexts(texts=own), "en")
    assert refusals(RefusalTexts(texts=own), "de") == refusals(RefusalTexts(language="de"))
    by_language = RefusalTexts(texts={"it": own}, language="de", tone="formal")
    assert refusals(by_language, "it") == tuple(own)
    assert refusals(by_language) == refusals(RefusalTexts(language="de", tone="formal"))
    with pytest.raises(DataError, match=r"no texts are shipped for 'nl'.*\{nl: \[...\]\}"):
        refusals(by_language, "nl")
    assert not is_refusal("Beats me.")
    assert is_refusal("beats me", own) and is_refusal("Frag lieber den Kapitan!", own)
    assert not is_refusal("Beats me. It was probably Dickens.", own)


def test_a_language_that_is_not_shipped() -> None:
    with pytest.raises(DataError, match=r"no texts are shipped for 'nl'; give 'texts' of your own .*, or one of en"):
        refusals(RefusalTexts(language="nl"))


@pytest.mark.parametrize(
    "text",
    [
        "I really don't know.",
        "I don\u2019t know who George Rankin is.",
        "Not sure",
        "Unknown",
        "idk",
        "I'm sorry, I don't have any information about Herlyn Espinal, who may be a private person.",
        "As an AI, I cannot know that. Please consult an encyclopedia.",
        "There is no information about this person.",
        "It is not known where he was born.",
        "Unfortunately, I don't have that information. Could you tell me more?",
        "I'm afraid that's beyond what I can answer.",
        "Weiß ich nicht.",
        "Leider kann ich das nicht beantworten.",
        "Je suis désolé, mais je ne dispose pas de cette information.",
        "Lo siento, pero no tengo esa información.",
        "As of my last update, I do not have details about that person.",
        "As an AI language model, I cannot browse.",
        "The question cannot be answered.",
        "I don't know, who is that?",
        "Non lo so.",
        "Mi dispiace, non ho informazioni su questa persona.",
        "Desculpe, não sei.",
        "Infelizmente, não conheço essa pessoa.",
        "Sorry, dat weet ik helaas niet.",
        "Ik heb daar geen informatie over.",
        "Не знаю, кто это.",  # noqa: RUF001
        "К сожалению, у меня нет информации об этом человеке.",  # noqa: RUF001
        "我不知道。",
        "抱歉，我没有关于这个人的信息。",  # noqa: RUF001
        "わかりません。",
        "申し訳ありませんが、その人物については存じません。",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text) and not informative(text)


@pytest.mark.parametrize(
    "text",
    [
        "I don't know where he lives now, but he was born in Paris.",
        "I'm not sure, but I think it's London.",
        "I'm not sure. Paris.",
        "Paris, but I'm not sure.",
        "I don't know, maybe Paris?",
        "I think Paris, though I am not certain.",
        "He was born in Paris; nobody knows when.",
        "I don't know who wrote that. It was probably Dickens.",
        "The Unknown Soldier",
        "No, it is not.",
        "She is not known as an actress, she is a singer.",
        "Nicht Paris, sondern Lyon.",
        "Ich bin nicht sicher, aber es ist Lyon.",
        "Il n'est pas né à Paris mais à Lyon.",
        "No es París, es Lyon.",
        "Creo que es París, pero no estoy seguro.",
        "Non è Parigi, è Roma.",
        "Non lo so, ma credo sia Parigi.",
        "Não sei, mas acho que é Paris.",
        "Ik weet het niet, maar ik denk Parijs.",
        "Нет, это Париж.",
        "Я не знаю, но думаю, что Париж.",
        "我不知道，但我认为是巴黎。",  # noqa: RUF001
        "わかりませんが、パリだと思います。",
        "Paris",
    ],
)
def test_answers_that_give_a_value(text: str) -> None:
    assert informative(text)


@pytest.mark.parametrize(
    "text",
    ["", " \n", "...", "?!", "\u200b", "the " * 12, "the town. " * 6, "aaaaaaaaaaaaaaa", "hahahahahaha", "9" * 10**6],
)
def test_empty_and_endless_answers(text: str) -> None:
    assert is_empty(text) and not informative(text)


@pytest.mark.parametrize(
    "text", ["Paris", "7", "no no", "Bora Bora", "Paris the the the the the the", "はい", "1000000000"]
)
def test_short_answers_are_not_empty(text: str) -> None:
    assert not is_empty(text)


HOSTILE = [
    "ich " * 10**5,
    "I " * 10**5,
    "je ne " * 10**5,
    "I don't know " * 10**5,
    "but, " * 10**5,
    "a" * 10**6,
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:8]))
def test_hostile_text_takes_no_time(text: str) -> None:
    begun = time.process_time()
    is_refusal(text, ["I don't know", text[:1000]])
    is_empty(text)
    assert time.process_time() - begun < 2
