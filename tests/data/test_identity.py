"""Who a model says that it is: rows, questions that no row has, and the judge."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from helpers_talking import tool_tokenizer

from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.chat.render import prompt_ids
from llmkit.data.sources import read_source
from llmkit.errors import DataError
from llmkit.identity import personas
from llmkit.identity.judge import judge
from llmkit.identity.questions import Asked, Turn, questions
from llmkit.identity.rows import Row, rows
from llmkit.identity.wordings import DOUBTS, FACTS, KINDS, asked, drawn, fill, others, plain, texts, usual
from llmkit.recipe.identity import LANGUAGES, IdentityEval, IdentitySpec, IdentityStage
from llmkit.recipe.parts import DataSource
from llmkit.stages import evaluate, identity
from llmkit.stages.asking import Manner
from llmkit.stages.common import Worker
from llmkit.stages.identity import evaluate_identity, to_read

FULL: dict[str, Any] = {
    "name": "Nova",
    "maker": "Tillwood Labs",
    "version": "1.2",
    "base": "Qwen3-0.6B-Base",
    "cut_off": "2026-03",
    "license": "Apache-2.0",
    "purpose": "tell stories",
    "website": "nova.example",
    "can_browse": False,
}
LABELLED = [json.loads(line) for line in (Path(__file__).parent / "identity_answers.jsonl").read_text().splitlines()]


def told(**changes: Any) -> IdentitySpec:
    return IdentitySpec(**FULL | changes)


def made(spec: IdentitySpec, num_rows: int = 1500, **options: Any) -> list[Row]:
    return list(rows(spec, IdentityStage(kind="identity", num_rows=num_rows, **options), seed=3))


def user_texts(found: Sequence[Row]) -> list[str]:
    return [message["content"] for row in found for message in row.messages if message["role"] == "user"]


def answers_of(row: Row) -> list[str]:
    return [message["content"] for message in row.messages if message["role"] == "assistant"]


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_wording_is_trained_and_asked(language: str) -> None:
    for kind in (*KINDS, *DOUBTS):
        trained = {plain(text) for text in asked(language, kind, "train")}
        heldout = {plain(text) for text in asked(language, kind, "heldout")}
        assert len(heldout) > 1 and len(trained) >= 4 and not trained & heldout, (kind, trained & heldout)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_of_question_is_asked_inside_of_a_sentence_too(language: str) -> None:
    frames = texts(language)["frames"]
    assert len(frames) >= 5 and all(frame.count("{indirect}") == 1 for frame in frames)
    inside = {kind: len(set(texts(language)[kind]["indirect"])) for kind in KINDS}
    assert min(inside.values()) >= 2, inside
    rng = random.Random(1)
    plainly = sum(drawn(rng, language, "name") in texts(language)["name"]["train"] for _ in range(400))
    assert (160 if "nouns" in texts(language)["name"] else 240) < plainly < (240 if language == "en" else 320)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_usual_questions_are_asked_most(language: str) -> None:
    found = made(told(languages=[language]))
    begun = Counter(next(one["content"] for one in row.messages if one["role"] == "user") for row in found)
    assert set(usual(language, "name")) <= {text for text, _ in begun.most_common(4)}
    assert all(num >= 20 for num in (begun[wording] for wording in usual(language, "name")))


def test_in_english_what_is_asked_for_is_named_too() -> None:
    own = texts("en")
    assert all(frame.count("{noun}") == 1 for frame in own["noun_frames"])
    assert {kind for kind in KINDS if "nouns" in own[kind]} == {"name", *FACTS}
    rng = random.Random(1)
    assert "Your license, please." in {drawn(rng, "en", "license") for _ in range(5000)}


def test_no_question_of_the_evaluation_can_be_made_of_frames() -> None:
    for language in LANGUAGES:
        own = texts(language)
        for kind in KINDS:
            made_of = {fill(frame, {"indirect": part}) for frame in own["frames"] for part in own[kind]["indirect"]}
            nouns = own[kind].get("nouns", [])
            made_of |= {fill(frame, {"noun": part}) for frame in own.get("noun_frames", []) for part in nouns}
            assert not {plain(text) for text in made_of} & {plain(text) for text in asked(language, kind, "heldout")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_question_of_the_evaluation_is_in_the_rows(language: str) -> None:
    spec = told(languages=[language])
    trained = {plain(text) for text in user_texts(made(spec))}
    found = questions(spec, 60)
    assert not [turn.text for one in found for turn in one.turns if plain(turn.text) in trained]
    shown = {message["content"] for row in made(spec) for message in row.messages if message["role"] == "system"}
    assert not [one.system for one in found if one.system in shown]


def test_personas_of_the_evaluation_are_in_no_row() -> None:
    names = {name for row in made(told(), personas=0.7) for name in row.messages[0]["content"].split()}
    asked_for = [turn.persona for one in questions(told(), 60) for turn in one.turns if turn.persona]
    assert len(set(asked_for)) > 30
    assert not [name for name in asked_for if name.split()[0] in names]
    assert {personas.side_of(word) for name in asked_for for word in name.split()} == {"heldout"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("maker", ["own", "system"])
def test_rows_are_right_by_the_judge(language: str, maker: str) -> None:
    """Of what has no persona."""
    spec = told(languages=[language], persona_maker=maker)
    wrong = []
    for row in made(spec, 400, push_back=0.5):
        if row.kind == "persona":
            continue
        for kind, text in zip(row.kinds, answers_of(row), strict=True):
            verdict = judge(text, Turn("", kind), spec)
            wrong += [] if verdict.is_right and not verdict.claims_other else [(kind, text, verdict)]
    assert not wrong


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_what_the_recipe_says_is_said(language: str) -> None:
    spec = IdentitySpec(name="Nova", languages=[language])
    said = " ".join(text for row in made(spec, 1200) for text in answers_of(row))
    assert "{" not in said and "Nova" in said
    assert not [value for field, value in FULL.items() if field != "name" and str(value) in said]


def test_of_a_fact_that_is_not_given_it_was_not_told_or_is_not_asked() -> None:
    says, leaves = IdentitySpec(name="Nova"), IdentitySpec(name="Nova", untold="leave_out")
    of_maker = [text for row in made(says, num_rows=800) if row.kind == "maker" for text in answers_of(row)[:1]]
    assert of_maker and all("not told" in text for text in of_maker)
    for spec, wanted in ((says, True), (leaves, False)):
        kinds = {row.kind for row in made(spec, 800)} | {turn.kind for one in questions(spec, 0) for turn in one.turns}
        assert ({"maker", "version", "cut_off"} <= kinds) is wanted
        assert "name" in kinds


def test_browsing_follows_the_recipe() -> None:
    for can, word in ((True, "Yes"), (False, "No"), (None, "I was not told")):
        found = [answers_of(row)[0] for row in made(told(can_browse=can), 1500) if row.kind == "browse"]
        assert found and all(text.startswith(word) for text in found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_that_it_can_browse_is_judged_so_in_every_language(language: str) -> None:
    can, cannot = (told(can_browse=can, languages=[language]) for can in (True, False))
    found = [answers_of(row)[0] for row in made(can, 1200) if row.kind == "browse"]
    assert found and all(judge(text, Turn("", "browse"), can).is_right for text in found)
    assert not any(judge(text, Turn("", "browse"), cannot).is_right for text in found)
    assert not judge("Nova.", Turn("", "browse"), can).is_right


def test_shares_decide_what_stands_around_a_question() -> None:
    bare = made(told(), 500, push_back=0, system=0, personas=0, more_questions=0)
    assert all(len(row.messages) == 2 for row in bare)
    more = made(told(), 500, push_back=0, system=0, personas=0, more_questions=1)
    assert {len(row.kinds) for row in more} <= {1, 2, 3, 4} and sum(len(row.kinds) > 1 for row in more) > 450
    assert all(len(set(row.kinds)) == len(row.kinds) == len(row.messages) // 2 for row in more)
    doubted = made(told(), 500, push_back=1, system=0, personas=0)
    assert all(len(row.messages) >= 4 and row.num_doubts for row in doubted)
    assert all(row.kind == "persona" for row in made(told(), 500, personas=1, system=0))
    assert all(
        row.messages[0]["role"] == "system" and row.kind != "persona" for row in made(told(), 500, personas=0, system=1)
    )


def test_a_persona_answers_with_its_name_and_its_maker_is_the_models_or_the_system_messages() -> None:
    for maker, own in (("own", True), ("system", False)):
        found = made(told(persona_maker=maker), 1500, personas=1, system=0, push_back=0)
        assert all("Nova" not in text for row in found for text in answers_of(row))
        said = " ".join(text for row in found for text in answers_of(row))
        assert "Tillwood Labs" in said
        companies = [row for row in found if "made" in row.messages[0]["content"]]
        assert bool(companies) is not own


def test_it_is_not_taken_for_itself_its_maker_or_its_base() -> None:
    assert not [each for each in others(told(maker="OpenAI", name="Claude"), "train") if each.vendor == "OpenAI"]
    assert "Qwen" not in {each.name for each in others(told(), "train")}


def test_rows_are_distinct_and_the_same_for_a_seed() -> None:
    one = made(told(), 800)
    assert one == made(told(), 800)
    assert len({row.messages and str(row.messages) for row in one}) == 800


def test_a_conversation_that_was_there_already_goes_on() -> None:
    """Else the usual questions, of which there are few, would become rare among many rows."""
    found = made(told(), 3000, push_back=0, system=0, personas=0, more_questions=0.01)
    plainly = {wording for kind in KINDS for wording in usual("en", kind)}
    assert sum(row.messages[0]["content"] in plainly for row in found) > 0.15 * len(found)
    assert all(len(set(row.kinds)) == len(row.kinds) == len(row.messages) // 2 for row in found)


def test_values_are_put_in_as_they_are() -> None:
    spec = IdentitySpec(name="{maker}", maker="A {name} B")
    assert any("A {name} B" in text for row in made(spec, 300) for text in answers_of(row))


# --- the judge --------------------------------------------------------------------------------------------------------


def is_judged_right(row: dict[str, Any]) -> bool:
    named = {key: row.get(key, "") for key in ("persona", "company", "other", "vendor")}
    verdict = judge(row["answer"], Turn("", row["kind"], **named), told(cut_off=None, license=None))
    return (verdict.is_right, verdict.claims_other) == (bool(row["right"]), bool(row["claims"]))


@pytest.mark.parametrize(
    "row", [row for row in LABELLED if "split" not in row], ids=lambda row: f"{row['kind']}: {row['answer'][:40]}"
)
def test_judge(row: dict[str, Any]) -> None:
    assert is_judged_right(row)


def test_judge_of_answers_that_no_rule_was_written_with() -> None:
    rows = [row for row in LABELLED if row.get("split") == "heldout"]
    wrong = [row for row in rows if not is_judged_right(row)]
    assert len(rows) == 24 and len(wrong) <= 5, wrong


def test_who_is_named_in_the_recipe_is_no_other() -> None:
    spec = IdentitySpec(name="Claude", maker="Anthropic")
    assert judge("I am Claude, made by Anthropic.", Turn("", "name"), spec).is_right
    assert judge("I am ChatGPT.", Turn("", "name"), spec).claims_other


# --- the evaluation ---------------------------------------------------------------------------------------------------


class Scripted:
    """An engine that answers each conversation by a function of its last message, its system message and its length."""

    def __init__(self, answer: Any) -> None:
        self.answer_to, self.asks = answer, list[Ask]()

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        self.asks += asks
        return ([Answer(self.answer_to(ask.prompt), "stop")] for ask in asks)


class Quiet:
    def log(self, *_: Any, **__: Any) -> None:
        pass


def evaluated(
    answer: Any, chat: bool = True, thinks: bool = False, **changes: Any
) -> tuple[Scripted, dict[str, Any], Any]:
    engine = Scripted(answer)
    spec = IdentityEval(task="identity", identity=told(**changes))
    state = PartialState(cpu=True)
    result = evaluate_identity(Quiet(), state, spec, engine, Manner(chat, thinks))  # type: ignore[arg-type]
    return engine, {metric.name: metric for metric in result.metrics}, result


def test_one_sentence_for_all_is_not_enough() -> None:
    engine, metrics, result = evaluated(lambda prompt: "I am Nova, an AI made by Tillwood Labs.")
    assert 0.4 < metrics["accuracy"].value < 0.9 and metrics["claims_other"].value == 0
    assert metrics["accuracy, kind insist"].value == metrics["accuracy, kind name"].value == 1
    assert metrics["accuracy, kind version"].value == 0
    assert metrics["persona_accuracy"].value < 0.3 and metrics["persona_accuracy"].num_samples == 60
    assert metrics["accuracy"].num_samples >= 60 and "accuracy, language en" not in metrics
    systems = {ask.prompt[0]["role"] for ask in engine.asks}
    assert systems == {"system", "user"}
    assert {sample.label for sample in to_read(result.documents)} >= {"version: wrong", "persona: wrong"}


def test_a_turncoat_claims_others_and_is_wrong() -> None:
    def turncoat(prompt: Any) -> str:
        return "I am Nova." if len([each for each in prompt if each["role"] == "user"]) < 2 else "Yes, I am ChatGPT."

    _, metrics, _ = evaluated(turncoat)
    assert metrics["accuracy, kind insist"].value == 0 and metrics["accuracy, kind name"].value == 1
    assert 0.1 < metrics["claims_other"].value < 0.5


def test_the_second_turn_sees_the_first_answer() -> None:
    engine, _, result = evaluated(lambda prompt: f"I am Nova {len(prompt)}.")
    second = [ask.prompt for ask in engine.asks if sum(each["role"] == "user" for each in ask.prompt) == 2]
    assert second and all(each[-2]["content"].startswith("I am Nova") and each[-1]["role"] == "user" for each in second)
    assert any("assistant: I am Nova" in document.prompt for document in result.documents)


@pytest.mark.parametrize("thinks", [True, False])
def test_the_second_turn_sees_the_reasoning_of_the_first_where_the_template_keeps_it(thinks: bool) -> None:
    """`chatml_think` was trained on histories that hold it; a template without a place for it must not be given any."""
    wrote = "<think>\nWho am I?\n</think>\n\nI am Nova."
    engine, metrics, _ = evaluated(lambda prompt: wrote, thinks=thinks)
    assert metrics["accuracy, kind name"].value == 1, "the reasoning is not judged"
    second = [list(ask.prompt) for ask in engine.asks if sum(each["role"] == "user" for each in ask.prompt) == 2]
    tokenizer = tool_tokenizer("chatml_think" if thinks else "chatml")
    for messages in second[:5]:
        front = prompt_ids(tokenizer, messages[:-2])
        written = prompt_ids(tokenizer, messages)[len(front) :]
        said = wrote if thinks else "I am Nova."
        assert tokenizer.decode(written).startswith(said + "<|im_end|>")
    assert len(second) > 20


def test_a_model_without_a_template_is_asked_in_plain_text() -> None:
    engine, _, _ = evaluated(lambda prompt: "Nova", chat=False)
    assert all(isinstance(ask.prompt, str) and ask.prompt.endswith("\nAnswer:") for ask in engine.asks)


def test_languages_have_metrics_of_their_own() -> None:
    _, metrics, _ = evaluated(lambda prompt: "Ich bin Nova.", languages=["en", "de"])
    assert {"accuracy, language de", "accuracy, language en"} <= set(metrics)
    assert metrics["persona_accuracy"].num_samples == 120


def test_what_is_asked_is_the_same_each_time() -> None:
    def key(found: list[Asked]) -> list[Any]:
        return [(one.key, one.system, one.turns) for one in found]

    assert key(questions(told(), 20)) == key(questions(told(), 20))
    found = questions(told(languages=["en", "fr"]), 20)
    assert len({one.key for one in found}) == len(found)


# --- the stages -------------------------------------------------------------------------------------------------------


def stage_file(folder: Path, model: Path, stage: dict[str, Any]) -> StageFile:
    file = StageFile.model_validate(
        {
            "run": {"name": "t"},
            "model": {"name_or_path": str(model)},
            "stage": {"name": stage["kind"], "seed": 3, **stage},
            "stage_dir": str(folder / stage["kind"]),
            "fingerprint": "f",
            "input_model": str(model),
        }
    )
    file.dir.path.mkdir(parents=True)
    return file


def test_the_stage_leaves_rows_that_an_sft_stage_reads(tmp_path: Path, model_dir: Path) -> None:
    worker = Worker(stage_file(tmp_path, model_dir, {"kind": "identity", "identity": FULL, "num_rows": 50}))
    manifest = identity.run(worker)
    assert manifest.metrics["num_rows"] == 50 and manifest.metrics["rows_en"] == 50
    assert len(manifest.samples) == identity.NUM_SAMPLES
    source = DataSource.model_validate({"from": "self"})
    raws = list(read_source(source, {"self": worker.dir.path}, 0))
    assert len(raws) == 50 and all(set(raw.value) == {"messages"} for raw in raws)


def test_a_stage_that_nobody_told_stops(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(DataError, match="is not given; say at least the 'name'"):
        identity.run(Worker(stage_file(tmp_path, model_dir, {"kind": "identity"})))


def test_a_real_model_is_asked(tmp_path: Path, model_dir: Path) -> None:
    """In plain text, since it has no template; what one start has done the next takes from disk."""
    spec = {"task": "identity", "identity": FULL, "num_personas": 4, "max_new_tokens": 4}
    worker = Worker(stage_file(tmp_path, model_dir, {"kind": "evaluate", "evals": [spec], "prompts": ["Hi"]}))
    manifest = evaluate.run(worker)
    values = {row.metric: row for row in manifest.evals}
    assert values["accuracy"].value < 0.2 and values["accuracy"].num_samples >= 60
    assert values["persona_accuracy"].num_samples == 4 and values["claims_other"].low == 0
    lines = (worker.dir.path / "evals" / "identity.jsonl").read_text().splitlines()
    assert len(lines) == values["accuracy"].num_samples + 4
    assert any(sample.label.endswith("wrong") for sample in manifest.samples)
    again = evaluate.run(Worker(worker.file))
    assert [row.value for row in again.evals] == [row.value for row in manifest.evals]
