"""Standard benchmarks from a folder of this machine: lm-eval's own task files, prompts, filters and metrics."""

import json
from pathlib import Path

import nltk
import pytest
from lm_eval.api.model import LM

from llmkit.errors import DataError
from llmkit.evaluate import packages
from llmkit.evaluate.harness import prepare_tasks, run_on
from llmkit.recipe.schema import EvalSpec
from llmkit.recipe.task_files import is_known, needs

SUMS = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in (1, 2)]
SCIENCE = [
    {"question": "Which is hot?", "choices": {"text": ["ice", "fire"], "label": ["A", "B"]}, "answerKey": "B"},
    {"question": "Which is wet?", "choices": {"text": ["rain", "sand"], "label": ["1", "2"]}, "answerKey": "1"},
]
EXAM = [{"question": q, "choices": ["a", "b", "c", "d"], "answer": right} for q, right in (("One?", 1), ("Two?", 2))]
TRUTH = [
    {
        "question": question,
        "mc1_targets": {"choices": ["true", "false"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["true", "also true", "false"], "labels": [1, 1, 0]},
    }
    for question in ("Is it so?", "Is it not?")
]
TOLD = [
    {"question": row["question"], "correct_answers": ["Yes it is"], "incorrect_answers": ["No way"]} for row in TRUTH
]
PROGRAMS = [
    {
        "task_id": name,
        "prompt": f"def {name}(a, b):\n",
        "test": f"def check(candidate):\n    assert candidate(2, 3) == {value}\n",
        "entry_point": name,
    }
    for name, value in (("add", 5), ("multiply", 6))
]
ORDERS = [
    {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {"key": 2, "prompt": "Small letters.", "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]},
]


class Scripted(LM):
    """Writes what `says` has for a phrase at the end of a prompt, and finds the answers in `likes` likeliest."""

    def __init__(self, says: dict[str, str], likes: tuple[str, ...]) -> None:
        super().__init__()
        self.says, self.likes, self.num_truncated, self.on_documents = says, likes, 0, None

    def check(self, task) -> None:
        pass

    def generate_until(self, requests, disable_tqdm=True):
        prompts = [request.args[0] for request in requests]
        return [next(says for key, says in self.says.items() if key in prompt[-60:]) for prompt in prompts]

    def loglikelihood(self, requests, disable_tqdm=True):
        return [(-1.0 if request.args[1].strip() in self.likes else -9.0, False) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=True):
        raise NotImplementedError


def write(folder: Path, **splits: list[dict]) -> str:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def figures(lm: Scripted, **spec) -> dict[str, float]:
    tasks = prepare_tasks([EvalSpec(**spec)], use_chat_template=False, seed=0)
    return {metric.name: metric.value for result in run_on(lm, tasks) for metric in result.metrics}


@pytest.fixture
def punkt(tmp_path, monkeypatch) -> None:
    """A place for nltk's data; the instructions here count no sentences."""
    (tmp_path / "nltk" / "tokenizers" / "punkt_tab").mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])


def test_gsm8k(tmp_path):
    data = write(tmp_path / "data", train=SUMS, test=SUMS)
    lm = Scripted({"What is 1 + 1?": "So it is 2.\n#### 2", "What is 2 + 1?": "That makes 3"}, ())
    assert figures(lm, task="gsm8k", data=data, num_fewshot=1) == {
        "exact_match,strict-match": 0.5,
        "exact_match,flexible-extract": 1.0,
    }


def test_arc_challenge(tmp_path):
    data = write(tmp_path / "data", train=SCIENCE, test=SCIENCE, validation=SCIENCE)
    assert figures(Scripted({}, ("fire", "sand")), task="arc_challenge", data=data, num_fewshot=1)["acc"] == 0.5


def test_mmlu(tmp_path):
    write(tmp_path / "data" / "virology", dev=EXAM, test=EXAM)
    found = figures(Scripted({}, ("B",)), task="mmlu_virology", data=str(tmp_path / "data"), num_fewshot=1)
    assert found == {"acc": 0.5}


def test_truthfulqa(tmp_path):
    data = tmp_path / "data"
    write(data / "multiple_choice", validation=TRUTH)
    write(data / "generation", validation=TOLD)
    lm = Scripted({"Is it so?": "Yes it is", "Is it not?": "No way"}, ("true", "also true"))
    assert figures(lm, task="truthfulqa_mc1", data=str(data)) == {"acc": 1.0}
    assert figures(lm, task="truthfulqa_mc2", data=str(data))["acc"] > 0.99
    assert figures(lm, task="truthfulqa_gen", data=str(data))["rouge1_acc"] == 0.5


def test_humaneval_in_the_sandbox(tmp_path):
    data = write(tmp_path / "data", test=PROGRAMS)
    lm = Scripted({"def add": "    return a + b\n", "def multiply": "    return a - b\n"}, ())
    assert list(figures(lm, task="humaneval", data=data, allow_code_execution=True).values()) == [0.5]


def test_ifeval(tmp_path, punkt):
    data = write(tmp_path / "data", train=ORDERS)
    lm = Scripted({"No commas.": "Well, no.", "Small letters.": "this is written as it should be"}, ())
    found = figures(lm, task="ifeval", data=data)
    assert found["prompt_level_strict_acc"] == found["inst_level_loose_acc"] == 0.5


def test_two_runs_of_ifeval_agree_on_languages(tmp_path, punkt):
    from langdetect import DetectorFactory

    DetectorFactory.seed = None
    spec = EvalSpec(task="ifeval", data=write(tmp_path / "data", train=ORDERS))
    prepare_tasks([spec], use_chat_template=False, seed=7)
    assert DetectorFactory.seed == 7


def test_data_of_nltk_that_is_not_here_is_named_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    spec = EvalSpec(task="ifeval", data=write(tmp_path / "data", train=ORDERS))
    with pytest.raises(DataError, match=r"task ifeval: it needs nltk's data 'punkt_tab', .*nltk.downloader punkt_tab"):
        prepare_tasks([spec], use_chat_template=False, seed=0)


def test_where_there_is_a_network_it_is_fetched(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])

    def download(name: str, **_: object) -> None:
        asked.append(name)
        (tmp_path / "tokenizers" / name).mkdir(parents=True)

    monkeypatch.setattr(nltk, "download", download)
    packages.refuse_missing("ifeval")
    packages.refuse_missing("ifeval")
    assert asked == ["punkt_tab"]


def test_a_missing_package_is_named_before_data_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("llmkit.recipe.task_files.find_spec", lambda name: None if name == "langdetect" else True)
    with pytest.raises(DataError, match=r"task ifeval: it needs packages that are not installed: langdetect; pip inst"):
        prepare_tasks([EvalSpec(task="ifeval", data=str(tmp_path))], use_chat_template=False, seed=0)


def test_what_tasks_need_is_read_from_their_files():
    assert {"langdetect", "immutabledict", "nltk"} <= needs("ifeval").packages
    assert needs("ifeval").nltk_data == {"tokenizers/punkt_tab"}
    assert "rouge_score" in needs("truthfulqa_mc2").packages, "through an included file's functions"
    assert needs("humaneval").runs_code and not needs("gsm8k").runs_code
    assert not needs("gsm8k").packages | needs("mmlu").packages | needs("nothing_of_this_name").packages


def test_names_that_lm_eval_may_have() -> None:
    # A task, a group, a tag in a file of tasks, a tag in a template, a tag in a file without an ending.
    for task in ("gsm8k", "mmlu", "truthfulqa", "bertaqa", "truthfulqa_multi", "ntrex_tasks", "gpqa_main_zeroshot"):
        assert is_known(task), task
    for task in ("gsm9k", "MMLU", "arc-challenge"):
        assert not is_known(task), task
