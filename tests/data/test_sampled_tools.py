"""`best_of_n` and `rollout` with tools: answers are conversations, kept, ranked and trained on as such."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers_preference import Chain, chat_model, rows_of
from helpers_rank import decision
from helpers_talking import Scripted, call, results
from transformers import AutoTokenizer

from llmkit.chat.ask import Answer, Ask
from llmkit.data.build import build
from llmkit.data.encode import IGNORE
from llmkit.data.pairs import pair_of
from llmkit.data.rankings import build_rankings
from llmkit.errors import DataError, TemplateError
from llmkit.preference.pairs import pairs_of
from llmkit.preference.rollouts import item_of, read_rollouts
from llmkit.recipe.parts import DataSource
from llmkit.stages import best_of_n, rollout
from llmkit.stages.engines import AskedModel
from llmkit.stages.preferring import answer_ids
from llmkit.stages.rank_judge import shown_of

TOOLS = {"tools": ["calculator"]}


def tries(ask: Ask) -> str:
    """By the number of the try: with one call, wrong without, with two calls, and after a call that cannot be read."""
    place, number = int(ask.key.split()[-2]) % 4, str(ask.prompt[-1 - 2 * len(results(ask))]["content"]).split()[2]  # type: ignore[index]
    if place == 1:
        return "The answer is 7."
    if place == 2 and len(results(ask)) < 2:
        return call("calculator", expression=f"{number} * {number} + 0 * {len(results(ask))}")
    if not results(ask):
        return (
            call("calculator", expression=f"{number} * {number}") if place == 0 else "<tool_call>\n{never\n</tool_call>"
        )
    return f"The answer is {int(number) ** 2}."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    made = chat_model(model_dir, tmp_path_factory.mktemp("tools-model"), "chatml_tools")
    config = made / "config.json"
    # the schemas of tools are long in the words of this tokenizer
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    return made


def scripted(folder: Path, model: Path, patch: pytest.MonkeyPatch) -> Chain:
    """Its model answers as `tries` says."""
    patch.setattr(AskedModel, "engine", Scripted(AutoTokenizer.from_pretrained(model), tries))
    rows = [{"prompt": f"What is {i} * {i} ?", "answer": i * i} for i in range(11, 17)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Chain(folder, model)


@pytest.fixture
def chain(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    return scripted(tmp_path, model, monkeypatch)


def best(chain: Chain, name: str = "best", **fields: Any) -> tuple[Any, Any]:
    own = {"data": [{"path": str(chain.folder / "problems.jsonl")}], "rewards": ["exact", "calls"], "num_samples": 4}
    return chain.run("best_of_n", name, **{**own, **TOOLS, **fields})


def test_right_conversations_become_rows(chain: Chain) -> None:
    worker, manifest = best(chain, num_kept=4)
    rows, attempts = rows_of(worker.dir.data / "train.jsonl"), rows_of(worker.dir.data / "attempts.jsonl")
    assert manifest.metrics["rows"] == len(rows) == 12
    assert manifest.metrics["unreadable"] == 6, "right after a call that was none: no row can hold it"
    assert manifest.metrics["calls_per_answer"] == (1 + 0 + 2 + 1) / 4
    first, second = (row for row in rows if row["messages"][0]["content"].startswith("What is 11"))
    called = {"name": "calculator", "arguments": {"expression": "11 * 11"}}
    assert first["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": called}]},
        {"role": "tool", "content": "121"},
        {"role": "assistant", "content": "The answer is 121."},
    ]
    assert [schema["function"]["name"] for schema in first["tools"]] == ["calculator"]
    assert len(second["messages"]) == 6, "the longer way comes behind the shorter one"
    found = attempts[0]["attempts"]
    assert [one["scores"]["calls"] for one in found] == [-1, 0, -2, -1], "every call has its price"
    assert [one["is_right"] for one in found] == [True, False, True, True]
    assert found[3]["messages"][0]["content"].startswith("<tool_call>") and found[3]["messages"][1]["role"] == "tool"
    assert "[call] calculator" in manifest.samples[0].completion and "[result] " in manifest.samples[0].completion


def trained_and_not(model: Path, chain: Chain, tmp_path: Path) -> list[tuple[str, str]]:
    """Of the rows as an `sft` stage reads them: what is trained, and the rest."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    built = build(
        [DataSource.model_validate({"from": "best"})],
        tokenizer,
        kind="sft",
        max_length=2000,
        packing=False,
        packing_strategy="bfd",
        assistant_only_loss=True,
        seed=0,
        max_rejected=0.0,
        dedup=True,
        data_stages=dict(chain.dirs),
        cache_dir=tmp_path / "cache",
    )
    found = []
    for row in built.dataset:
        trained = [label != IGNORE for label in row["labels"]]
        found.append(
            tuple(
                tokenizer.decode([i for i, own in zip(row["input_ids"], trained, strict=True) if own is side])
                for side in (True, False)
            )
        )
    return found


def test_calls_of_kept_rows_are_trained_and_results_never(chain: Chain, model: Path, tmp_path: Path) -> None:
    best(chain)
    rows = trained_and_not(model, chain, tmp_path)
    assert len(rows) == 6
    for trained, rest in rows:
        assert '<tool_call>\n{"name": "calculator"' in trained and trained.count("<|im_end|>") == 2
        assert "<tool_response>" not in trained and "<tool_response>" in rest
        number = rest.split("<tool_response>\n")[1].split("\n")[0]
        assert f"The answer is {number}." in trained and f"The answer is {number}." not in rest
        assert "calculator" in rest, "the tools are listed, as they were when it was asked"


def test_two_processes_keep_the_rows_of_one(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_of_n, "CHUNK", 2)
    alone, _ = best(chain, name="alone")
    file = chain.file(
        "best_of_n", "both", **alone.file.stage.model_dump(by_alias=True, exclude={"kind", "name", "seed"})
    )
    file.dir.path.mkdir()
    waits = 0

    def other() -> None:
        """Works while the first waits for it behind its chunks."""
        nonlocal waits
        waits += 1
        if waits != 2:
            return
        monkeypatch.setenv("RANK", "1")
        second = SimpleNamespace(process_index=1, num_processes=2, wait_for_everyone=lambda: None)
        monkeypatch.setattr(best_of_n, "processes", lambda worker: second)
        best_of_n.run(type(alone)(file))
        monkeypatch.setenv("RANK", "0")

    first = SimpleNamespace(process_index=0, num_processes=2, wait_for_everyone=other)
    monkeypatch.setattr(best_of_n, "processes", lambda worker: first)
    worker = type(alone)(file)
    best_of_n.run(worker)
    for name in ("train", "attempts"):
        assert rows_of(worker.dir.data / f"{name}.jsonl") == rows_of(alone.dir.data / f"{name}.jsonl")


def test_finished_conversations_are_not_held_again(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_of_n, "CHUNK", 2)
    worker, _ = best(chain, num_kept=4)
    before = rows_of(worker.dir.data / "train.jsonl")
    (worker.dir.data / "steps" / "attempts-00001.jsonl").unlink()
    engine = AskedModel.engine
    engine.asks.clear()
    best_of_n.run(worker)
    second = rows_of(worker.dir.data / "attempts.jsonl")[2:4]
    assert {ask.prompt[0]["content"] for ask in engine.asks} == {row["prompt"][0]["content"] for row in second}
    assert rows_of(worker.dir.data / "train.jsonl") == before


@pytest.mark.parametrize("kind", ["best_of_n", "rollout"])
def test_a_model_that_cannot_call_is_refused_before_it_loads(
    kind: str, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AskedModel, "engine", property(lambda self: pytest.fail("it was loaded")))
    (tmp_path / "problems.jsonl").write_text('{"prompt": "What is 2 * 2 ?", "answer": 4}\n')
    chain = Chain(tmp_path, chat_model(model_dir, tmp_path / "model", "chatml"))
    fields = {"rewards": ["exact"]} if kind == "best_of_n" else {}
    with pytest.raises(TemplateError, match="tools"):
        chain.run(kind, "asked", data=[{"path": str(tmp_path / "problems.jsonl")}], **TOOLS, **fields)


# --- rollouts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Chain, Any, Any]:
    """A run with a finished `rollout` stage, its worker and its manifest."""
    with pytest.MonkeyPatch.context() as patch:
        chain = scripted(tmp_path_factory.mktemp("rolled"), model, patch)
        data = [{"path": str(chain.folder / "problems.jsonl")}]
        return chain, *chain.run("rollout", "answers", data=data, num_completions=4, max_tries=1, **TOOLS)


def test_rollouts_keep_their_turns(rolled: tuple[Chain, Any, Any]) -> None:
    _, worker, manifest = rolled
    rows = rows_of(worker.dir.data / "rollouts.jsonl")
    assert len(rows) == 6 and manifest.metrics["unreadable"] == 6 and manifest.metrics["calls_per_answer"] == 1
    made = rows[0]["completions"]
    assert [len(one["messages"]) for one in made] == [3, 1, 5] and made[0]["text"] == made[2]["text"] != made[1]["text"]
    assert len({one["id"] for one in made}) == 3 and rows[0]["tools"][0]["function"]["name"] == "calculator"
    assert any("[result] " in sample.completion for sample in manifest.samples)


def by_calls(completions: list[Any], **_: Any) -> list[float]:
    """A labeller that likes answers with a result in them, the shorter the better."""
    return [sum(message["role"] == "tool" for message in one) * 10 - len(one) * 4 for one in completions]


def test_rankings_are_of_whole_conversations(rolled: tuple[Chain, Any, Any], model: Path, tmp_path: Path) -> None:
    chain = rolled[0]
    worker, _ = chain.run("rank", "ranks", rollouts="answers", by="labeller", labeller=f"{__name__}:by_calls")
    row = rows_of(worker.dir.data / "train.jsonl")[0]
    assert row["rankings"] == [[2, 3, 1]] and [len(answer) for answer in row["answers"]] == [3, 1, 5] and row["tools"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    built = build_rankings(
        [DataSource.model_validate({"from": "ranks"})],
        tokenizer,
        max_length=2000,
        seed=0,
        max_rejected=0.0,
        dedup=True,
        data_stages=dict(chain.dirs),
        cache_dir=tmp_path / "cache",
    )
    ranked = {tuple(each["prompt_ids"]): each for each in built.dataset}
    assert len(ranked) == 6
    # practice scores them as they were trained on
    prompt, answers, schemas = row["prompt"], row["answers"], row["tools"]
    ids = [answer_ids(tokenizer, prompt, answer, 2000, schemas) for answer in answers]
    (found,) = (each for prompt_ids, each in ranked.items() if tuple(ids[0][: len(prompt_ids)]) == prompt_ids)
    assert ids == [found["prompt_ids"] + answer for answer in found["answers_ids"]]
    text, result = tokenizer.decode(found["answers_ids"][0]), answers[0][1]["content"]
    assert text.startswith("<tool_call>") and f"<tool_response>\n{result}\n" in text
    assert text.endswith(f"The answer is {result}.<|im_end|>")


def test_pairs_of_conversations_are_rows_but_none_for_dpo(rolled: tuple[Chain, Any, Any], model: Path) -> None:
    """TRL's loss is over the whole answer: the results would be trained."""
    item = read_rollouts(rolled[1].dir.data / "rollouts.jsonl")[0]
    ids = [each.id for each in item.completions]
    found = pairs_of([decision(item, [ids[0], ids[2], ids[1]])], {item.id: item}).rows
    assert found[0]["chosen"] == list(item.completions[0].messages) and found[0]["tools"] == list(item.tools)
    assert len(found) == 3, "two that say the same, and do not do the same"
    with pytest.raises(DataError, match="holds results of tools, which a 'dpo' stage would train"):
        pair_of(AutoTokenizer.from_pretrained(model), found[0])


def test_a_judge_sees_what_was_called_and_what_came_of_it() -> None:
    long = "x" * 5000
    turns = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "search", "arguments": {"query": long}}}],
        },
        {"role": "tool", "content": long},
        {"role": "assistant", "content": "Kelby.", "reasoning_content": "hm"},
    ]
    row = {"id": "p", "prompt": [{"role": "user", "content": "Where?"}]}
    row["completions"] = [{"id": "a", "text": "Kelby.", "messages": turns}, {"id": "b", "text": "Kelby."}]
    item = item_of(row, "here")
    told = shown_of(item.completion("a"))
    assert told.startswith('[call] search {"query": "xxx') and "\n[result] xxx" in told and told.endswith("\nKelby.")
    assert len(told) < 1000 and "hm" not in told and shown_of(item.completion("b")) == "Kelby."


def broken(**of: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, "completions": [{**row["completions"][0], **of}, *row["completions"][1:]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(messages="x"), r"completions\[0\]: messages: are no messages"),
        (broken(messages=[{"role": "user", "content": "x"}]), "are no messages of assistant and tool"),
        (broken(messages=[{"role": "assistant", "content": "", "tool_calls": [{"name": "x"}]}]), "are no messages"),
        (broken(messages=[]), "do not end with an answer"),
        (broken(messages=[{"role": "tool", "content": "x"}]), r"messages\[0\]: is a tool's result"),
        (lambda row: {**row, "tools": {}}, "here: tools: is no list of schemas"),
        (lambda row: {**row, "prompt": "Where?"}, "to a prompt that is a text"),
    ],
)
def test_conversations_that_cannot_be_ranked_are_named(rolled: tuple[Any, ...], change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        item_of(change(rows_of(rolled[1].dir.data / "rollouts.jsonl")[0]), "here")


def test_a_real_model_answers_with_tools_at_hand(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights, which hardly ever call."""
    (tmp_path / "problems.jsonl").write_text('{"prompt": "What is 2 * 2 ?", "answer": 4}\n')
    asked: list[Ask] = []
    answers = rollout.reads_back
    monkeypatch.setattr(rollout, "reads_back", lambda prompt, one: asked.append(one) or answers(prompt, one))
    data = [{"path": str(tmp_path / "problems.jsonl")}]
    fields = {"num_completions": 2, "max_new_tokens": 12, "max_calls": 1}
    worker, _ = Chain(tmp_path, model).run("rollout", "answers", data=data, **fields, **TOOLS)
    (row,) = rows_of(worker.dir.data / "rollouts.jsonl")
    assert all(one["messages"][-1]["content"] == one["text"] for one in row["completions"])
    assert asked and all(isinstance(one, Answer) and len(one.ids) == len(one.own) for one in asked)
