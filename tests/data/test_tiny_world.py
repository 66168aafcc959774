"""The embedded world: determinism, disjoint groups, true solutions, and nothing of what a finished model is asked."""

import json
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from llmkit.tiny.documents import GENERAL_KINDS
from llmkit.tiny.make_evals import eval_files
from llmkit.tiny.problems import equation, long_calculation, word_problem
from llmkit.tiny.questions import honesty, pages
from llmkit.tiny.sources import chronicle, conversations, documents, problems
from llmkit.tiny.world import FIRST_NAMES, PROFESSIONS, TOWNS, all_names, people

EVAL_DATA = Path(__file__).parents[2] / "evals" / "tiny" / "data"
STEP = re.compile(r"(?<![\d$])(-?\d+) ([+\-*/]) (-?\d+) = (-?\d+)")
FORBIDDEN = re.compile(
    r"\borson\b|kovacs|pelican|who are you|(?<!\d)2 ?\+ ?2(?!\d)|\btwo plus two\b"
    r"|3 \w+ and 2 \w+\. Each \w+ costs \$2\. The total cost of all the \w+ is \$13",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [row["text"] for row in documents(num_rows=30_000, rare=True, tail=(0, 2000))]


@pytest.fixture(scope="module")
def dialogues() -> list[list[dict[str, str]]]:
    rows = [*conversations(num_rows=18_000), *conversations(num_rows=3000, kinds=["calculations"])]
    return [row["messages"] for row in rows]


@pytest.mark.parametrize("source", [documents, chronicle, conversations])
def test_rows_depend_on_the_arguments_alone(source):
    rows = list(source(num_rows=50, seed=3))
    assert rows == list(source(num_rows=50, seed=3))
    assert rows != list(source(num_rows=50, seed=4))
    assert rows != list(source(num_rows=50, seed=3, split="heldout"))
    assert len(rows) == 50


def test_unknown_kinds_are_refused():
    for source in (documents, conversations):
        with pytest.raises(ValueError, match="unknown kinds"):
            next(source(kinds=["sonnets"]))


def test_groups_share_nobody():
    names = [person.name for group in ("known", "rare", "tail", "new", "unseen") for person in people(group)]
    assert len(names) == len(set(names))
    assert len(set(all_names())) == len(all_names())
    for group in ("known", "rare", "tail", "new", "unseen"):
        train, heldout = people(group, split="train"), people(group, split="heldout")
        assert len(train) + len(heldout) == len(people(group)) == len(set(train) | set(heldout))


def test_more_known_people_leave_the_others_unchanged():
    assert people("known", 3000)[:1000] == people("known", 1000)
    assert people("known", 3000, "heldout")[:200] == people("known", 1000, "heldout")


def test_sizes_that_the_world_does_not_have_are_refused():
    with pytest.raises(ValueError, match="holds 1 to"):
        people("new", 101)


def test_facts_are_spread_over_the_closed_sets():
    assert {person.town for person in people("known")} == set(TOWNS)
    assert {person.profession for person in people("known")} == set(PROFESSIONS)


def test_documents_mention_rare_people_exactly_as_often_as_said(texts):
    mentions = Counter(name for text in texts for name in set(_names_in(text)))
    assert all(mentions[person.name] == person.num_documents for person in people("rare"))
    tail = people("tail")
    assert all(mentions[person.name] == 1 for person in tail[:2000])
    assert not any(mentions[person.name] for person in tail[2000:])


def test_documents_never_mention_new_or_unseen_people(texts):
    absent = {person.name for group in ("new", "unseen") for person in people(group)}
    assert not absent & {name for text in texts for name in _names_in(text)}


def test_only_the_base_corpus_itself_mentions_rare_people():
    rare = {person.name for person in people("rare")}
    assert not rare & {name for row in documents(num_rows=5000) for name in _names_in(row["text"])}


def test_chronicle_is_about_new_people_alone():
    seen = {name for row in chronicle(num_rows=2000) for name in _names_in(row["text"])}
    assert seen == {person.name for person in people("new")}


def test_conversations_ask_only_about_known_people_of_the_training_split(dialogues):
    train = {person.name for person in people("known", split="train")}
    seen = {name for messages in dialogues for message in messages for name in _names_in(message["content"])}
    assert seen <= train
    assert len(seen) > 0.95 * len(train)


def test_roles_alternate_and_end_with_the_assistant(dialogues):
    for messages in dialogues:
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert roles[0] == "user" and roles[-1] == "assistant"
        assert all(first != second for first, second in pairwise(roles))
        assert all(message["content"].strip() for message in messages)
        assert "system" not in [message["role"] for message in messages[1:]]
    systems = sum(messages[0]["role"] == "system" for messages in dialogues) / len(dialogues)
    assert 0.17 < systems < 0.23


@pytest.mark.parametrize("source", [documents, chronicle, conversations])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_reserved_questions_are_in_no_source(source, split):
    assert [row for row in source(num_rows=20_000, split=split) if FORBIDDEN.search(json.dumps(row))] == []


def test_reserved_questions_are_in_no_evaluation():
    assert not any(FORBIDDEN.search(content) for content in eval_files().values())
    assert "Orson" not in FIRST_NAMES


def test_every_step_of_every_worked_solution_is_right(texts, dialogues):
    contents = texts + [message["content"] for messages in dialogues for message in messages]
    steps = [match.groups() for content in contents for match in STEP.finditer(content)]
    assert len(steps) > 10_000
    assert all(_holds(*step) for step in steps)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_problems_take_as_many_steps_as_their_level_and_end_with_the_answer(level, split):
    rng = random.Random(level)
    for _ in range(300):
        problem = word_problem(rng, [level], split)
        steps = STEP.findall(problem.solution)
        assert problem.level == level == len(steps)
        assert problem.solution.endswith(f"{steps[-1][3]}. The answer is {problem.answer}.")
        given = set(re.findall(r"\d+", problem.question)) | {step[3] for step in steps}
        assert all({step[0], step[2]} <= given for step in steps)


def test_heldout_sums_and_problems_are_not_trained(texts, dialogues):
    trained = {message["content"] for messages in dialogues for message in messages}
    assert not trained & {row["prompt"] for row in problems(split="heldout", num_rows=150)}
    sums = {row["answer"].rstrip(".") for row in _eval_rows("arithmetic.jsonl")}
    shown = {" ".join(step[:3]) for text in [*texts, *trained] for step in STEP.findall(text)}
    assert not {text.split(" =")[0] for text in sums} & shown


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_calculations_are_worked_out_a_pair_at_a_time(split):
    rng, unknown = random.Random(split), 0
    for _ in range(2000):
        problem = rng.choice((long_calculation, equation))(rng, split)
        steps = STEP.findall(problem.solution)
        assert len(steps) == problem.level == 2 and all(_holds(*step) for step in steps)
        assert problem.solution.endswith(f"{steps[1][3]}. The answer is {problem.answer}.")
        assert steps[0][3] in (steps[1][0], steps[1][2]) and not FORBIDDEN.search(problem.question)
        if found := re.search(r"(\d+)\*[a-z] ([+-]) (\d+) = (\d+)", problem.question):
            times, sign, rest, total = found.groups()
            assert int(times) * problem.answer + int(f"{sign}{rest}") == int(total)
            unknown += 1
        else:
            first, one, second, two, third = re.findall(r"\d+|[-+*]", problem.question)
            late = two == "*" != one
            assert steps[0][:3] == ((second, two, third) if late else (first, one, second))
            assert {first, second, third} <= {part for step in steps for part in step}
    assert 800 < unknown < 1200


def test_calculations_that_are_held_out_are_never_trained():
    rng, made = random.Random(0), {"train": set(), "heldout": set()}
    for split, questions in made.items():
        for make in (long_calculation, equation):
            worked = [make(rng, split) for _ in range(3000)]
            questions |= {re.search(r"\d[^?.]*\d", problem.question)[0] for problem in worked}
    assert not made["train"] & made["heldout"]


def test_every_kind_of_document_is_made():
    for kind in ("facts", *GENERAL_KINDS):
        assert all(row["text"].strip() for row in documents(num_rows=20, kinds=[kind]))


def test_shipped_evaluation_data_equals_what_the_code_makes():
    made = eval_files()
    assert {path.name for path in EVAL_DATA.iterdir()} == set(made)
    for name, content in made.items():
        assert (EVAL_DATA / name).read_text(encoding="utf-8") == content
    assert {row["fact"] for row in _eval_rows("facts_known.jsonl")} == {"birthplace", "profession"}


def _eval_rows(name: str) -> list[dict]:
    return [json.loads(line) for line in eval_files()[name].splitlines()]


def _names_in(text: str) -> list[str]:
    pairs = re.findall(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+))", text)
    return [pair for pair in pairs if pair in _ALL]


def _holds(left: str, operation: str, right: str, result: str) -> bool:
    a, b, c = int(left), int(right), int(result)
    return {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": a == b * c}[operation]


_ALL = set(all_names())


def test_pages_do_not_tell_how_often_their_person_is_mentioned():
    rows = [row["text"] for row in pages(num_known=50, num_tail=50)]
    shapes = {re.sub(r"Name: .*\. Born in: \w+\. Profession: \w+\.", "page", text) for text in rows}
    assert len(rows) == 80
    assert shapes == {"page"}
    known = {person.name for person in people("known", 50)}
    groups = [text.split(": ")[1].split(".")[0] in known for text in rows]
    assert 10 < sum(groups[:40]) < 30, "in mixed order"


def test_honesty_asks_nothing_that_training_asks():
    rows = list(honesty())
    assert len({row["question"] for row in rows}) == len(rows)
    trained = {person.name for group in ("known", "tail") for person in people(group, split="train")}
    assert not trained & {row["entity"] for row in rows}
    names = {text.split(": ")[1].split(".")[0] for text in (row["text"] for row in pages())}
    assert not names & {row["entity"] for row in rows}
    assert Counter(row["group"] for row in rows)["unseen"] == 300
