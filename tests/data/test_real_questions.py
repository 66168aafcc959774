"""Questions from real data that nobody on this project wrote; skipped without LLMKIT_REAL_DATA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from llmkit.chat.ask import Answer, Ask
from llmkit.data.sources import read_source
from llmkit.knowledge.match import contradictory
from llmkit.knowledge.questions import from_rows
from llmkit.knowledge.records import Question
from llmkit.knowledge.snippets import Snippet, reservoir, snippets
from llmkit.knowledge.split import split_of
from llmkit.knowledge.templates import Bad
from llmkit.knowledge.writer import PROMPT, ModelWriter
from llmkit.recipe.knowledge import QuestionSource, TemplateSpec
from llmkit.recipe.parts import DataSource

COUNTRY_TEMPLATES = {
    "What is the capital of {name.common}?": "{capital}",
    "What is the currency of {name.common}?": "{currencies[*].name}",
    "In which region of the world does {name.common} lie?": ["{region}", "{subregion}"],
    "Which language is spoken in {name.common}?": "{languages}",
    "What is a person from {name.common} called?": ["{demonyms.eng.m}", "{demonyms.eng.f}"],
    "Of which country is {capital} the capital?": ["{name.common}", "{name.official}"],
    "How many square kilometres does {name.common} measure?": "{area}",
}


def read(source: QuestionSource) -> tuple[list[Question], list[Bad]]:
    raws = ((raw.value, f"{Path(raw.file).name}:{raw.line}") for raw in read_source(source, {}, 0))
    made = list(from_rows(raws, source, contradictory))
    return [each for each in made if isinstance(each, Question)], [each for each in made if isinstance(each, Bad)]


def test_countries_by_templates(real_data: Path) -> None:
    specs = [TemplateSpec(question=q, answers=a, entity="{name.common}") for q, a in COUNTRY_TEMPLATES.items()]
    source = QuestionSource(
        path=str(real_data / "countries/countries.json"), templates=specs, columns={"group": "region"}
    )
    questions, bad = read(source)
    assert len(questions) + len(bad) == 7 * 250 and len(bad) == 23
    assert {each.reason for each in bad} == {"template does not apply"}
    assert len({each.about for each in questions}) == 250
    assert Counter(each.group for each in questions)["Europe"] == 7 * 53 - sum(
        each.where in places_of(questions, "Europe") for each in bad
    )
    answers = {each.question: each.answers for each in questions}
    assert answers["What is the capital of South Africa?"] == ("Pretoria", "Bloemfontein", "Cape Town")
    assert answers["What is the currency of Bhutan?"] == ("Bhutanese ngultrum", "Indian rupee")
    assert answers["Of which country is Helsinki the capital?"] == ("Finland", "Republic of Finland")
    assert answers["How many square kilometres does Iraq measure?"] == ("438317",)
    for each in questions:
        assert each.question.endswith("?") and "{" not in each.question and "  " not in each.question
        assert each.answers and all(answer.strip() == answer and answer for answer in each.answers)
    sides = Counter(split_of(each.about, 0.2, 42) for each in questions)
    assert 0.12 < sides["heldout"] / len(questions) < 0.28


def places_of(questions: list[Question], group: str) -> set[str]:
    return {each.source for each in questions if each.group == group}


def test_popqa_by_columns(real_data: Path) -> None:
    columns = {"answers": "possible_answers", "entity": "subj", "group": "prop"}
    questions, bad = read(QuestionSource(path=str(real_data / "popqa/popqa_500.jsonl"), columns=columns))
    assert (len(questions), bad) == (500, [])
    assert questions[0].question == "What is George Rankin's occupation?" and questions[0].entity == "George Rankin"
    assert questions[0].answers == ("politician", "political leader", "political figure", "polit.", "pol")
    assert Counter(each.group for each in questions) == {"occupation": 457, "place of birth": 43}


def test_nq_open_with_its_faults(real_data: Path) -> None:
    path = str(real_data / "nq_open/dev.jsonl")
    questions, bad = read(QuestionSource(path=path, columns={"answers": "answer"}))
    assert len(questions) + len(bad) == 3610
    reasons = Counter(each.reason for each in bad)
    assert set(reasons) == {"answers that contradict", "answer without letters or digits"}
    assert reasons["answer without letters or digits"] == 2  # "---" and ")"
    assert 50 < reasons["answers that contradict"] < 250
    assert all(each.where.startswith("dev.jsonl:") and each.detail for each in bad)


def wikitext(
    real_data: Path, max_chars: int = 800, num_documents: int | None = None
) -> tuple[list[Snippet], Counter[str]]:
    dropped: Counter[str] = Counter()
    found = [
        Snippet(text, f"{raw.file}:{raw.line}")
        for raw in islice(read_source(DataSource(path=str(real_data / "wikitext-2/valid.txt")), {}, 0), num_documents)
        for text in snippets(raw.value["text"], max_chars, dropped)
    ]
    return found, dropped


def test_wikitext_snippets(real_data: Path) -> None:
    found, dropped = wikitext(real_data)
    whole = (real_data / "wikitext-2/valid.txt").read_text(encoding="utf-8")
    assert sum(len(each.text) for each in found) > 0.97 * len(whole)
    assert all(each.text in whole and len(each.text) <= 800 and " = = " not in each.text for each in found)
    assert dropped["heading"] == sum(line.startswith(" =") and line.endswith("= ") for line in whole.split("\n"))
    # Nearly all end where a sentence or a line does.
    ends = sum(each.text.endswith((".", '"', "!", "?", ":", ";", ")", "'")) for each in found)
    assert ends > 0.97 * len(found)


class Extractor:
    """Stands in for a chat model that obeys: asks for the year in the snippet, and for what is not there."""

    def answer(
        self,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[list[Answer]]:
        for ask in asks:
            assert not isinstance(ask.prompt, str)
            text = str(ask.prompt[0]["content"]).split("```")[1]
            years = [word for word in text.split() if word.isdigit() and len(word) == 4]
            name = next((word for word in text.split() if word[0].isupper() and len(word) > 3), "Nobody")
            pairs = f"Q: In which year did {name} appear?\nA: {years[0] if years else 'never told'}\n"
            yield [Answer(pairs + "Q: When did he leave?\nA: 1066\n", "stop")]


def test_questions_about_wikitext(real_data: Path) -> None:
    drawn = reservoir(wikitext(real_data, num_documents=30)[0], 200, 42)
    results = list(ModelWriter(Extractor(), PROMPT.load(None), 3, 42, 128).write(drawn))
    questions = [question for result in results for question in result.questions]
    dropped = sum((result.dropped for result in results), Counter())
    assert len(questions) + dropped.total() == 400 and len(questions) > 50
    assert dropped["answer not in the snippet"] + dropped["not self-contained"] > 200
    for question in questions:
        assert question.answers[0] in question.document
        assert question.entity == question.question or question.entity in question.document
        assert question.source.rpartition(":")[2].isdigit()


def test_rubbish_of_a_real_model_is_dropped_and_counted(real_data: Path) -> None:
    """The embedded base knows nothing of this prompt, so nearly nothing that it writes can pass; and a snippet that
    fills its context of 512 tokens is an error of its own."""
    from llmkit.generation.engine import TransformersEngine
    from llmkit.modeling.load import load_model, load_tokenizer

    model, tokenizer = load_model("llmkit.tiny:base"), load_tokenizer("llmkit.tiny:base")
    engine = TransformersEngine(model, tokenizer, batch_size=4)
    short = wikitext(real_data, 160, num_documents=4)[0]
    drawn = [*reservoir(short, 4, 42), Snippet(" ".join(each.text for each in short[:20]), "many")]
    results = list(ModelWriter(engine, PROMPT.load(None), 3, 42, 16, chat=False).write(drawn))
    assert len(results) == 5 and [bool(each.error) for each in results] == [False] * 4 + [True]
    for result, snippet in zip(results, drawn, strict=True):
        assert result.questions or result.dropped
        assert bool(result.error) == bool(result.dropped["no answer from the engine"])
        for question in result.questions:
            assert question.answers[0].casefold() in snippet.text.casefold()
