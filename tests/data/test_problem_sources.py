"""Problems with checkable answers: where prompt and answer stand, mixing, bad rows, and problems that are made up."""

from __future__ import annotations

import importlib
import json
import random
import sys
import tracemalloc
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers_data import write_rows

from llmkit.data import reasoning_gym
from llmkit.data.problem_rows import TAKEN
from llmkit.data.problems import Problem, Problems, build_problems
from llmkit.errors import DataError
from llmkit.plan.files import digest_of_package, digest_of_source
from llmkit.recipe.practice import ProblemSource

SUMS = [{"prompt": f"{i}+{i}?", "answer": str(2 * i), "level": i % 3} for i in range(60)]


def built(folder: Path, *sources: dict[str, Any], chat: bool = False, **options: Any) -> Problems:
    wanted = [ProblemSource(**{**source, "path": str(source["path"])}) for source in sources]
    settings: dict[str, Any] = {
        "seed": 0,
        "data_stages": {},
        "cache_dir": folder / "cache",
        "max_rejected": 0.0,
        "dedup": True,
        "rejected_file": None,
    }
    return build_problems(wanted, chat=chat, **settings | options)


def one(folder: Path, row: Any, chat: bool = False, **source: Any) -> Problem:
    """The only problem of a file with one row."""
    path = write_rows(folder / "one.jsonl", [row])
    (problem,) = built(folder, {"path": path, **source}, chat=chat)
    return problem


def reason(folder: Path, row: Any, chat: bool = False, **source: Any) -> str:
    """Why a row is bad."""
    good = {"prompt": "good", "solution": "#### 1", "question": None}
    path = write_rows(folder / "bad.jsonl", [good, row])
    rejected = folder / "rejected.jsonl"
    problems = built(folder, {"path": path, **source}, chat=chat, max_rejected=0.5, rejected_file=rejected)
    assert len(problems) == 1 and problems.rejected_file == str(rejected)
    (line,) = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert line["line"] == 2
    return str(line["reason"])


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


# where the prompt stands


def test_a_row_is_a_prompt_and_its_other_columns(tmp_path: Path) -> None:
    row = {"prompt": "1+1?", "answer": "2", "level": 3, "metadata": {"a": [1, {"b": None}]}}
    problem = one(tmp_path, row)
    assert problem.prompt == "1+1?"
    assert problem.columns == {"answer": "2", "level": 3, "metadata": {"a": [1, {"b": None}]}}
    assert problem.place == f"{tmp_path}/one.jsonl:1"


@pytest.mark.parametrize("name", ["question", "problem", "query", "instruction"])
def test_the_prompt_is_found_under_the_usual_names(tmp_path: Path, name: str) -> None:
    problem = one(tmp_path, {name: "1+1?", "answer": "2"})
    assert (problem.prompt, problem.columns) == ("1+1?", {"answer": "2"})


def test_a_prompt_and_a_map_go_before_the_usual_names(tmp_path: Path) -> None:
    assert one(tmp_path, {"prompt": "a", "question": "b"}).columns == {"question": "b"}
    mapped = one(tmp_path, {"text": "a", "question": "b", "problem": "c"}, columns={"prompt": "text"})
    assert (mapped.prompt, mapped.columns) == ("a", {"question": "b", "problem": "c"})
    with pytest.raises(DataError, match=r"one.jsonl:1: its prompt could be question or problem; say which: columns:"):
        one(tmp_path, {"question": "b", "problem": "c"})


def test_alpacas_input_is_part_of_the_question(tmp_path: Path) -> None:
    assert one(tmp_path, {"instruction": "Add.", "input": "1 2"}).prompt == "Add.\n\n1 2"
    assert one(tmp_path, {"instruction": "Add.", "input": " "}).prompt == "Add."


def test_of_messages_the_last_answer_is_the_solution(tmp_path: Path) -> None:
    talk = [user("a?"), {"role": "assistant", "content": "a!"}, user("b?"), {"role": "assistant", "content": "b!"}]
    problem = one(tmp_path, {"messages": talk}, chat=True)
    assert problem.prompt == talk[:3] and problem.columns == {"solution": "b!"}
    assert one(tmp_path, {"messages": talk, "solution": "c"}, chat=True).columns == {"solution": "c"}
    assert one(tmp_path, {"messages": talk[:1]}, chat=True) == one(tmp_path, {"prompt": talk[:1]}, chat=True)
    # as in NuminaMath, a text goes before messages
    assert one(tmp_path, {"problem": "p?", "messages": talk}, chat=True).prompt == [user("p?")]


def test_names_of_roles_are_as_in_training_rows(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "a!"}, {"from": "human", "value": "b?"}]
    prompt = one(tmp_path, {"prompt": talk}, chat=True).prompt
    assert [message["role"] for message in prompt] == ["user", "assistant", "user"]  # type: ignore[index]


# texts, messages, wording


def test_texts_become_messages_where_the_model_chats(tmp_path: Path) -> None:
    row = {"prompt": "1+1?"}
    assert one(tmp_path, row, chat=True).prompt == [user("1+1?")]
    system = {"role": "system", "content": "Think."}
    assert one(tmp_path, row, chat=True, system="Think.").prompt == [system, user("1+1?")]
    assert one(tmp_path, {"prompt": [user("a?")]}, chat=True, system="Think.").prompt == [system, user("a?")]


def test_what_only_fits_chats_is_refused_for_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one.jsonl:1: its prompt is a list of messages.*'chat_template'"):
        one(tmp_path, {"prompt": [user("a?")]})
    with pytest.raises(DataError, match=r"one.jsonl:1: its prompt is a list of messages"):
        one(tmp_path, {"messages": [user("a?")]})
    with pytest.raises(DataError, match=r"has a 'system' message, but prompts are plain texts here"):
        one(tmp_path, {"prompt": "a"}, system="Think.")
    own = [{"role": "system", "content": "Mine."}, user("a?")]
    with pytest.raises(DataError, match="has a system message of its own"):
        one(tmp_path, {"prompt": own}, chat=True, system="Think.")
    assert one(tmp_path, {"prompt": own}, chat=True).prompt == own


def test_phrasing_stands_around_the_last_question_and_leaves_braces_alone(tmp_path: Path) -> None:
    wording = "{prompt} Answer in \\boxed{}. {prompt}"
    nasty = "Let {prompt} be {x} and {0} %s"
    asked = f"{nasty} Answer in \\boxed{{}}. {nasty}"
    assert one(tmp_path, {"prompt": nasty}, phrasing=wording).prompt == asked
    talk = [user("a"), {"role": "assistant", "content": "b"}, user(nasty)]
    assert one(tmp_path, {"prompt": talk}, chat=True, phrasing=wording).prompt == [*talk[:2], user(asked)]


# answers


def test_the_answer_stands_behind_the_last_mark(tmp_path: Path) -> None:
    text = "#### is the mark.\n#### 1,234 \n"
    problem = one(tmp_path, {"question": "q", "answer": text}, answer_after="####")
    assert problem.columns == {"solution": text, "answer": "1,234"}
    row = {"question": "q", "answer": "old", "solution": text}
    assert one(tmp_path, row, answer_after="####").columns == {"solution": text, "answer": "1,234"}
    talk = [user("q"), {"role": "assistant", "content": "so\n#### 5"}]
    columns = one(tmp_path, {"messages": talk}, chat=True, answer_after="####").columns
    assert columns == {"solution": "so\n#### 5", "answer": "5"}


def test_a_row_without_the_mark_is_bad(tmp_path: Path) -> None:
    marked = {"answer_after": "####"}
    assert reason(tmp_path, {"prompt": "q", "solution": "2"}, **marked) == "solution does not hold the mark '####'"
    assert reason(tmp_path, {"prompt": "q", "answer": "2"}, **marked) == "answer does not hold the mark '####'"
    nothing = reason(tmp_path, {"prompt": "q", "solution": "2 ####  "}, **marked)
    assert nothing == "nothing stands behind the mark '####' in solution"
    assert reason(tmp_path, {"prompt": "q", "answer": 2}, **marked) == "answer is int, not text"
    assert reason(tmp_path, {"prompt": "q"}, **marked) == "missing column solution (has )"


def test_set_gives_every_row_its_columns(tmp_path: Path) -> None:
    columns = one(tmp_path, {"prompt": "q", "verifier": "theirs"}, set={"verifier": "math", "level": 2}).columns
    assert columns == {"verifier": "math", "level": 2}
    with pytest.raises(DataError, match="'set' cannot give the prompt; name its column: columns:"):
        one(tmp_path, {"prompt": "q"}, set={"prompt": "other"})


def test_gsm8k_as_it_is_published(tmp_path: Path, real_data: Path) -> None:
    path = real_data / "gsm8k" / "train.jsonl"
    source = {"path": path, "answer_after": "####", "set": {"verifier": "math"}}
    problems = built(tmp_path, source, max_rejected=0.001)
    assert len(problems) == 7473 and problems.columns_of_all() == {"answer", "solution", "verifier"}
    rows = {row["question"]: row["answer"] for row in map(json.loads, path.read_text().splitlines())}
    for problem in problems:
        solution = rows[str(problem.prompt)]
        assert problem.columns["solution"] == solution
        assert solution.endswith(f"#### {problem.columns['answer']}")
        assert float(problem.columns["answer"].replace(",", "")) == int(problem.columns["answer"].replace(",", ""))


# bad and hostile rows


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": 5}, "prompt is int, neither text nor messages"),
        ({"prompt": []}, "prompt is empty"),
        ({"answer": "2"}, "it has no prompt: no column prompt, question, problem, query, instruction, messages"),
        ({"prompt": [user("a"), {"role": "assistant", "content": "b"}]}, "the prompt ends with a message of the assis"),
        ({"prompt": [{"role": "system", "content": "b"}]}, "no message of the prompt is the user's"),
        ({"prompt": [{"role": "assistant", "content": "b"}]}, "no message of the prompt is the user's"),
        ({"prompt": [user(" ")]}, "the user's message is empty"),
        ({"prompt": [{"role": "wizard", "content": "b"}]}, "prompt[0] has the role 'wizard'"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, "prompt is empty"),
        (["prompt"], "a row must be an object with columns, this is list"),
        ('{"prompt": "a", ', "broken JSON"),
        ('{"prompt": "\\ud800 how many?"}', "it holds a lone surrogate"),
        ('{"prompt": "a", "answer": "\\udc00"}', "it holds a lone surrogate"),
        ('{"prompt": "a", "\\udc00": 1}', "it holds a lone surrogate"),
        ('{"prompt": "a", "level": Infinity}', "the column level holds a value that JSON cannot"),
        ('{"prompt": "a", "meta": {"b": [NaN]}}', "the column meta holds a value that JSON cannot"),
    ],
)
def test_bad_rows_are_written_down_with_their_reason(tmp_path: Path, row: Any, why: str) -> None:
    assert reason(tmp_path, row, chat=True).startswith(why)


def test_a_value_that_json_cannot_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "import datetime as d, decimal\n", "def rows():\n    yield {'prompt': 'a', 'on': d.date(2025, 1, 2), "
    (tmp_path / "llmkit_test_values.py").write_text(
        "".join(lines) + "'cost': decimal.Decimal('1.50')}\n    yield {'prompt': 'b', 'x': b''}\n    yield {1: 2}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rejected = tmp_path / "rejected.jsonl"
    problems = built(tmp_path, {"path": "llmkit_test_values:rows"}, max_rejected=0.7, rejected_file=rejected)
    assert [problem.columns for problem in problems] == [{"on": "2025-01-02", "cost": "1.50"}]
    reasons = [json.loads(line)["reason"] for line in rejected.read_text().splitlines()]
    assert reasons[0] == "the column x holds a value that JSON cannot (Object of type bytes is not JSON serializable)"
    assert reasons[1] == "the column 1 has no text as its name"


def test_a_huge_prompt_and_deep_metadata_come_back_whole(tmp_path: Path) -> None:
    deep: Any = "bottom"
    for _ in range(300):
        deep = {"in": [deep]}
    row = {"prompt": "{x}" * 2_000_000, "metadata": deep, "emoji": "🙂\u2028\x00"}
    problem = one(tmp_path, row)
    assert {"prompt": problem.prompt, **problem.columns} == row


def test_metadata_without_a_bottom_is_a_bad_row(tmp_path: Path) -> None:
    row = '{"prompt": "a", "meta": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert "recursion" in reason(tmp_path, row)


def test_rows_that_cannot_even_be_written_down_are_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llmkit_test_hostile.py").write_text(
        "def rows():\n    deep, loop = [], {}\n    for _ in range(100_000): deep = [deep]\n    loop['loop'] = loop\n"
        "    for meta in (deep, loop, {(1, 2): 3}, 1): yield {'prompt': str(id(meta)), 'meta': meta}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rejected = tmp_path / "rejected.jsonl"
    problems = built(tmp_path, {"path": "llmkit_test_hostile:rows"}, max_rejected=0.8, rejected_file=rejected)
    assert len(problems) == 1
    assert [json.loads(line)["row"] for line in rejected.read_text().splitlines()] == ["", "", ""]


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_the_trainer_uses_are_refused_with_a_cure(tmp_path: Path, name: str) -> None:
    row = {"prompt": "a", name: "b"}
    with pytest.raises(DataError, match=rf"one.jsonl:1: has a column '{name}'.*columns: {{my_{name}: {name}}}"):
        one(tmp_path, row)
    assert one(tmp_path, row, columns={f"my_{name}": name}).columns == {f"my_{name}": "b"}
    for settings in ({"set": {name: 1}}, {"columns": {name: "prompt"}}):
        with pytest.raises(DataError, match=f"makes a column '{name}'"):
            one(tmp_path, {"prompt": "a"}, **settings)


def test_the_names_are_those_of_the_installed_trainer() -> None:
    trainer = importlib.util.find_spec("trl")
    assert trainer is not None and trainer.origin is not None
    text = (Path(trainer.origin).parent / "trainer" / "grpo_trainer.py").read_text()
    start = text.index("def _calculate_rewards")
    body = text[start : text.index("async_funcs_info = []", start)]
    given = {name for name in TAKEN if f'reward_kwargs["{name}"]' in body or f"{name}=" in text[start:]}
    assert given == set(TAKEN)
    assert body.count('reward_kwargs["') == 4


def test_columns_that_a_table_filled_with_none_count_as_absent(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": "1", "level": 1.0}, {"question": "b", "answer": "2", "tests": ["x"]}]
    names = ("prompt", "question", "answer", "level", "tests")
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    problems = built(tmp_path, {"path": tmp_path / "rows.parquet"})
    found = {str(problem.prompt): problem.columns for problem in problems}
    assert found == {"a": {"answer": "1", "level": 1.0}, "b": {"answer": "2", "tests": ["x"]}}
    assert problems.columns_of_all() == {"answer"}
    assert one(tmp_path, '{"prompt": "a", "level": NaN}').columns == {}


# mixing


def test_order_follows_from_the_seed(tmp_path: Path) -> None:
    source = {"path": write_rows(tmp_path / "a.jsonl", SUMS)}
    first, again, other = (built(tmp_path, source, seed=seed) for seed in (3, 3, 4))
    assert list(first) == list(again)
    assert [p.key for p in first] != [p.key for p in other]
    assert {p.key for p in first} == {p.key for p in other} and len({p.key for p in first}) == 60
    assert first[59] == list(first)[-1]
    with pytest.raises(IndexError):
        first[60]


def test_the_key_is_of_prompt_and_answer_alone(tmp_path: Path) -> None:
    row = {"prompt": "a", "answer": "1", "level": 1}
    key = one(tmp_path, row).key
    assert key == "65e33b14e3a06b723af3a6657e07fbee"
    assert key == one(tmp_path, {"level": 2, "answer": "1", "query": "a"}).key
    assert len({key, one(tmp_path, row | {"answer": "2"}).key, one(tmp_path, row | {"prompt": "b"}).key}) == 3


def test_fractions_numbers_and_slices_hold(tmp_path: Path) -> None:
    other = [{"question": f"{i}*{i}?", "answer": str(i * i)} for i in range(400)]
    a, b = write_rows(tmp_path / "a.jsonl", SUMS), write_rows(tmp_path / "b.jsonl", other)
    mixed = built(tmp_path, {"path": a, "fraction": 0.25}, {"path": b, "set": {"level": 7}})
    assert [count.num_used for count in mixed.counts] == [60, 180]
    assert sorted(set(mixed.levels("level").tolist())) == [0, 1, 2, 7]
    assert len(built(tmp_path, {"path": a, "num_rows": 10}, {"path": b, "num_rows": 5})) == 15
    front, back = (built(tmp_path, {"path": b, "split": split}) for split in ("train[:90%]", "train[90%:]"))
    assert (len(front), len(back)) == (360, 40)
    assert not len(front.shared_with(back))
    with pytest.raises(DataError, match="'num_rows' is 61, but there are 60 good rows"):
        built(tmp_path, {"path": a, "num_rows": 61})


def test_repeats_are_rows_with_the_same_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"question": "a", "answer": "2"}, {"prompt": "b", "answer": "1"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    problems = built(tmp_path, {"path": path})
    (count,) = problems.counts
    assert (count.num_read, count.num_duplicates, count.num_used) == (3, 1, 2)
    assert {str(p.prompt): p.columns["answer"] for p in problems} == {"a": "1", "b": "1"}
    assert len(built(tmp_path, {"path": path}, dedup=False)) == 3


def test_prompts_that_two_sets_share_are_found(tmp_path: Path) -> None:
    train = built(tmp_path, {"path": write_rows(tmp_path / "a.jsonl", SUMS)})
    held = built(tmp_path, {"path": write_rows(tmp_path / "b.jsonl", [{"prompt": "new"}, *SUMS[7:9]])})
    assert {train[i].prompt for i in train.shared_with(held).tolist()} == {"7+7?", "8+8?"}
    assert {held[i].prompt for i in held.shared_with(train).tolist()} == {"7+7?", "8+8?"}


def test_levels_are_numbers_of_every_problem(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "a", "level": 2}, {"prompt": "b", "level": "3.5"}])
    problems = built(tmp_path, {"path": path})
    assert problems.levels("level").dtype == np.float64
    assert problems.levels("level").tolist() == [float(p.columns["level"]) for p in problems]
    for value, what in [("Level 2", "which is no number"), (True, "no number"), ([1], "no number"), ("nan", "no num")]:
        write_rows(path, [{"prompt": "a", "level": 2}, {"prompt": "b", "level": value}])
        with pytest.raises(DataError, match=rf"a.jsonl:2: has .* in 'level', {what[-9:]}|{what}"):
            built(tmp_path, {"path": path}).levels("level")
    write_rows(path, [{"prompt": "a", "level": 2}, {"prompt": "b", "answer": "1"}])
    with pytest.raises(DataError, match=r"a.jsonl:2: has no column 'level' \(has answer\)"):
        built(tmp_path, {"path": path}).levels("level")


def test_progress_is_told(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": str(i)} for i in range(2500)])
    told: list[tuple[int, int]] = []
    built(tmp_path, {"path": path}, progress=lambda done, total: told.append((done, total)))
    assert told == [(1000, 2500), (2000, 2500), (2500, 2500)]


def test_rows_are_not_in_memory(tmp_path: Path) -> None:
    size, count = 8000, 2000
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": f"{i}" + "x" * size} for i in range(count)])
    tracemalloc.start()
    try:
        problems = built(tmp_path, {"path": path})
        read = sum(len(problem.prompt) for problem in problems)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read > size * count
    assert peak < size * count / 8


# reasoning-gym

FAKE = """
import random
from dataclasses import dataclass


@dataclass
class Config:
    terms: int = 2
    top: int = 999
    seed: int | None = None
    size: int = 500

    def validate(self):
        assert self.terms > 0, "terms must be positive"


class Made:
    def __init__(self, config):
        self.config, self.seed = config, config.seed

    def __getitem__(self, index):
        if not 0 <= index < self.config.size:
            raise IndexError(index)
        rng = random.Random(self.seed + index)
        numbers = [rng.randint(0, self.config.top) for _ in range(self.config.terms)]
        return {"question": " + ".join(map(str, numbers)) + " =", "answer": str(sum(numbers)), "metadata": {}}


class Drifting(Made):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"answer": str(random.random())} if index % 4 == 1 else item


class Failing(Made):
    def __getitem__(self, index):
        if index % 10 == 3:
            raise RuntimeError("no such puzzle")
        random.seed(1)
        return super().__getitem__(index) | {"answer": None}


class Attribute:
    levels, lower_field_name, upper_field_name = [2, 3, 5], "terms", "terms"


class Curriculum:
    attributes = {"terms": Attribute()}

    def set_global_level(self, level):
        self.level = level

    def generate_configuration(self):
        return Config(terms=Attribute.levels[self.level])


DATASETS = {"chain_sum": (Made, Config), "drifting": (Drifting, Config), "failing": (Failing, Config)}
CURRICULA = {"chain_sum": Curriculum}


def create_curriculum(name):
    return CURRICULA[name]()


def create_dataset(name, **settings):
    made, config = DATASETS[name]
    config = config(**settings)
    config.validate()
    return made(config)
"""


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        del sys.modules[name]
    digest_of_package.cache_clear()


@pytest.fixture
def gym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that looks like reasoning-gym."""
    site = tmp_path / "site"
    for name, text in [
        ("reasoning_gym/__init__.py", "from .factory import create_dataset\n"),
        ("reasoning_gym/factory.py", FAKE),
        ("reasoning_gym-0.1.25.dist-info/METADATA", "Metadata-Version: 2.1\nName: reasoning-gym\nVersion: 0.1.25\n"),
    ]:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.syspath_prepend(site)
    forget()
    yield site
    forget()


def made_up(folder: Path, task: str = "chain_sum", max_rejected: float = 0.0, **source: Any) -> Problems:
    return built(folder, {"path": f"reasoning_gym:{task}", **source}, max_rejected=max_rejected)


def prompts(problems: Problems) -> set[str]:
    return {str(problem.prompt) for problem in problems}


def test_problems_are_made_up_and_can_be_made_again(tmp_path: Path, gym: Path) -> None:
    problems = made_up(tmp_path, num_rows=1500, args={"terms": 3})
    assert len(problems) == 1500 and prompts(problems) == prompts(made_up(tmp_path, num_rows=1500, args={"terms": 3}))
    module = importlib.import_module("reasoning_gym")
    for problem in problems:
        row = problem.columns
        again = module.create_dataset(row["rg_task"], **json.loads(row["rg_config"]))[row["rg_index"]]
        assert (again["question"], again["answer"]) == (problem.prompt, row["answer"])
        assert str(problem.prompt).count("+") == 2
    assert problems.columns_of_all() == {"answer", "verifier", "rg_task", "rg_config", "rg_index"}
    assert len(made_up(tmp_path)) == 1000


def test_heldout_problems_are_never_training_problems(tmp_path: Path, gym: Path) -> None:
    # few questions, near seeds, other sizes: all that makes reasoning-gym's own problems meet
    small = {"top": 30}
    train = prompts(made_up(tmp_path, num_rows=600, args=small))
    for seed in (0, 1):
        heldout = made_up(tmp_path, num_rows=100, args={**small, "split": "heldout", "seed": seed})
        assert len(heldout) == 100 and not prompts(heldout) & train


def test_near_seeds_share_no_problems(tmp_path: Path, gym: Path) -> None:
    wide = {"top": 10**12}
    zero, one_, last = (prompts(made_up(tmp_path, num_rows=300, args={**wide, "seed": s})) for s in (0, 1, 4293))
    assert not zero & one_ and not zero & last
    for seed in (-1, 4294, True, "0"):
        with pytest.raises(DataError, match=r"'seed' in 'args' is .*; give a whole number from 0 to 4293"):
            made_up(tmp_path, args={"seed": seed})


def test_a_longer_set_begins_as_a_shorter_one(tmp_path: Path, gym: Path) -> None:
    assert prompts(made_up(tmp_path, num_rows=50)) < prompts(made_up(tmp_path, num_rows=2000))


def test_as_many_as_there_are_different_ones(tmp_path: Path, gym: Path) -> None:
    few = {"top": 25}
    everything = [f"{a} + {b} =" for a in range(26) for b in range(26)]
    sides = [reasoning_gym._side(blake2b(text.encode(), digest_size=16).digest()) for text in everything]
    train = {text for text, side in zip(everything, sides, strict=True) if side == "train"}
    problems = made_up(tmp_path, args=few)
    assert prompts(problems) == train and problems.counts[0].num_duplicates == 0
    assert prompts(made_up(tmp_path, args=few, num_rows=len(train))) == train
    heldout = prompts(made_up(tmp_path, args={**few, "split": "heldout"}))
    assert heldout == set(everything) - train and len(heldout) > 60
    for too_many in ({"args": few, "num_rows": 700}, {"args": {**few, "size": 700}}):
        with pytest.raises(DataError, match=f"has only {len(train)} different problems for 'train' .* 700 are wanted"):
            made_up(tmp_path, **too_many)


def test_size_and_slices(tmp_path: Path, gym: Path) -> None:
    assert len(made_up(tmp_path, args={"size": 40}, num_rows=15)) == 15
    front, back = (made_up(tmp_path, args={"size": 40}, split=f"train[{s}]") for s in (":75%", "75%:"))
    assert (len(front), len(back)) == (30, 10) and not len(front.shared_with(back))
    with pytest.raises(DataError, match="'num_rows: 40' says how many problems are made"):
        made_up(tmp_path, num_rows=40, split="train[:75%]")
    with pytest.raises(DataError, match=r"hold problems out with args: {split: heldout}"):
        made_up(tmp_path, split="heldout")


def test_levels_are_those_of_the_curriculum(tmp_path: Path, gym: Path) -> None:
    problems = made_up(tmp_path, args={"level": 2}, num_rows=20)
    assert all(str(p.prompt).count("+") == 4 and p.columns["level"] == 2 for p in problems)
    assert problems.levels("level").tolist() == [2.0] * 20
    for level in (3, -1, True, "1"):
        with pytest.raises(DataError, match=r"'level' in 'args' is .*; it has the levels 0 to 2"):
            made_up(tmp_path, args={"level": level})
    with pytest.raises(DataError, match="the task has no levels"):
        made_up(tmp_path, "failing", args={"level": 1})


def test_wrong_tasks_and_settings_are_named(tmp_path: Path, gym: Path) -> None:
    with pytest.raises(DataError, match="reasoning-gym has no task 'chainsum' here; did you mean chain_sum"):
        made_up(tmp_path, "chainsum")
    with pytest.raises(DataError, match="no task 'zzz' here; it has chain_sum, drifting, failing"):
        made_up(tmp_path, "zzz")
    with pytest.raises(DataError, match=r"no setting 'term'; did you mean 'terms'.* it has terms, top, level, seed"):
        made_up(tmp_path, args={"term": 3})
    with pytest.raises(DataError, match=r"it refuses its settings \(terms must be positive\); change 'args'"):
        made_up(tmp_path, args={"terms": 0})
    with pytest.raises(DataError, match="'split' in 'args' is 'test'; give train or heldout"):
        made_up(tmp_path, args={"split": "test"})
    with pytest.raises(DataError, match="'size' in 'args' is 0; give a number"):
        made_up(tmp_path, args={"size": 0})


def test_problems_that_cannot_be_made_again_are_bad_rows(tmp_path: Path, gym: Path) -> None:
    (count,) = made_up(tmp_path, "drifting", num_rows=100, max_rejected=0.5).counts
    assert count.num_used == 100 and 20 <= count.num_rejected <= 50
    with pytest.raises(DataError, match="it is another one each time it is made"):
        made_up(tmp_path, "drifting", num_rows=100)
    problems = made_up(tmp_path, "failing", num_rows=100, max_rejected=0.5)
    assert len(problems) == 100 and "answer" not in problems.columns_of_all()
    with pytest.raises(DataError, match=r"reasoning_gym:failing:4: reasoning-gym fails at it \(RuntimeError: no such"):
        made_up(tmp_path, "failing", num_rows=100)


def test_making_problems_leaves_the_random_numbers_alone(tmp_path: Path, gym: Path) -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    made_up(tmp_path, "failing", num_rows=20, max_rejected=0.5)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


def test_without_reasoning_gym_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_gym, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"chain_sum: reasoning-gym is not installed; .*\[reasoning-gym\]"):
        made_up(tmp_path)


def test_a_broken_installation_names_the_extra(tmp_path: Path, gym: Path) -> None:
    (gym / "reasoning_gym" / "factory.py").write_text("import llmkit_no_such_module\n")
    with pytest.raises(DataError, match=r"cannot be imported \(No module named 'llmkit_no_such_module'\); pip install"):
        made_up(tmp_path)


def test_the_fingerprint_holds_version_and_code_without_an_import(gym: Path) -> None:
    source = ProblemSource(path="reasoning_gym:chain_sum")
    first = digest_of_source(source)
    assert "reasoning-gym==0.1.25" in first and "reasoning_gym" not in sys.modules
    (gym / "reasoning_gym" / "factory.py").write_text(FAKE + "# changed\n")
    digest_of_package.cache_clear()
    assert digest_of_source(source) != first
    (gym / "reasoning_gym-0.1.25.dist-info").rename(gym / "reasoning_gym-0.1.26.dist-info")
    (gym / "reasoning_gym-0.1.26.dist-info" / "METADATA").write_text("Name: reasoning-gym\nVersion: 0.1.26\n")
    importlib.invalidate_caches()
    assert "reasoning-gym==0.1.26" in digest_of_source(source)


def test_a_plan_can_be_made_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.plan.files.find_spec", lambda name: None)
    monkeypatch.setattr("llmkit.plan.files._GENERATORS", {"reasoning_gym": "llmkit-no-such-distribution"})
    digest_of_package.cache_clear()
    assert digest_of_source(ProblemSource(path="reasoning_gym:chain_sum")) == "missing"
    digest_of_package.cache_clear()


def test_the_real_reasoning_gym(tmp_path: Path) -> None:
    module = pytest.importorskip("reasoning_gym")
    train = made_up(tmp_path, num_rows=200, args={"max_terms": 3, "level": 1})
    heldout = made_up(tmp_path, num_rows=50, args={"max_terms": 3, "level": 1, "split": "heldout"})
    assert not len(train.shared_with(heldout))
    for problem in train:
        row = problem.columns
        task = module.create_dataset(row["rg_task"], **json.loads(row["rg_config"]))
        assert task[row["rg_index"]]["question"] == problem.prompt
        assert task.score_answer(row["answer"], task[row["rg_index"]]) == 1
    with pytest.raises(DataError, match="did you mean 'min_terms'"):
        made_up(tmp_path, args={"min_term": 2})
