"""lm-eval's own task files: with data of this machine, with programs that models wrote, with worked examples."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from lm_eval.tasks._index import Kind

from llmkit.errors import DataError
from llmkit.evaluate import tasks
from llmkit.evaluate.code import CodeEval, passes
from llmkit.evaluate.fewshot import REPORTED, reported
from llmkit.evaluate.tasks import load_task
from llmkit.plan.measured import of_task
from llmkit.recipe.schema import EvalSpec


def write(folder: Path, **splits: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


SUMS = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(6)]


def only(spec: EvalSpec, name: str | None = None):
    return load_task(spec, raw=True, seed=0)["tasks"][name or spec.task]


def test_gsm8k_of_lm_eval_reads_a_folder(tmp_path):
    data = write(tmp_path / "gsm8k", train=SUMS, test=SUMS[:2])
    task = only(EvalSpec(task="gsm8k", data=str(data)))
    assert len(task.eval_docs) == 2 and task.get_config("num_fewshot") == 5
    assert only(EvalSpec(task="gsm8k", data=str(data), num_fewshot=1)).get_config("num_fewshot") == 1


def test_gsm8k_of_lm_eval_reads_real_data(real_data):
    task = only(EvalSpec(task="gsm8k", data=str(real_data / "gsm8k")))
    assert len(task.eval_docs) == 1319 and len(task.fewshot_docs()) == 7473
    assert "Janet" in task.doc_to_text(task.eval_docs[0])


def test_every_subject_of_mmlu_has_a_folder_and_five_worked_examples(tmp_path, monkeypatch):
    rows = [{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}] * 6
    name = "mmlu_abstract_algebra"
    spec = EvalSpec(task=name, data=str(tmp_path))
    write(tmp_path / "abstract_algebra", dev=rows, test=rows[:3])
    task = only(spec)
    assert len(task.eval_docs) == 3 and task.get_config("num_fewshot") == 5
    assert only(EvalSpec(task=name, data=str(tmp_path), num_fewshot=0)).get_config("num_fewshot") == 0


def test_one_folder_is_not_the_data_of_two_configurations(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: me/x\ndataset_name: {name}\noutput_type: multiple_choice\ntest_split: test\n"
            "doc_to_text: '{{q}}'\ndoc_to_choice: [a, b]\ndoc_to_target: 0\nmetric_list: [{metric: acc}]\n"
        )
    (tmp_path / "both.yaml").write_text("group: both\ntask: [one, two]\n")
    data = write(tmp_path / "data", test=[{"q": "x"}])
    with pytest.raises(DataError, match=r"cannot be the data of 'one' and of 'two'"):
        load_task(EvalSpec(task="both", include_path=str(tmp_path), data=str(data)), raw=True, seed=0)
    for name in ("one", "two"):
        write(data / name, test=[{"q": name}])
    found = load_task(EvalSpec(task="both", include_path=str(tmp_path), data=str(data)), raw=True, seed=0)["tasks"]
    assert [found[name].eval_docs[0]["q"] for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no data"),
        ({"train.jsonl": "{}\n", "test.csv": "a\n1\n"}, "holds files of several formats"),
        ({"train.jsonl": '{"question": "a", "answer": "b"}\n'}, r"no split 'test'; there are files of: train"),
    ],
)
def test_folders_that_are_no_data_are_named(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"task gsm8k: .*{says}"):
        only(EvalSpec(task="gsm8k", data=str(tmp_path)))
    with pytest.raises(DataError, match="'nowhere' is no folder"):
        only(EvalSpec(task="gsm8k", data="nowhere"))
    with pytest.raises(DataError, match="reads no data set, so 'data' changes nothing"):
        only(EvalSpec(task="facts_known", data=str(tmp_path)))


def test_other_data_is_another_evaluation(tmp_path):
    spec = EvalSpec(task="gsm8k", data=str(write(tmp_path, test=SUMS)))
    before = of_task(spec)
    write(tmp_path, test=SUMS[:3])
    assert of_task(spec) != before


def test_programs_of_models_run_only_with_consent(tmp_path):
    with pytest.raises(
        DataError, match=r"task humaneval: it runs programs that the model wrote; .*allow_code_execution"
    ):
        only(EvalSpec(task="humaneval", data=str(tmp_path)))
    row = {
        "task_id": "0",
        "prompt": "def add(a, b):\n",
        "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
        "entry_point": "add",
    }
    data = write(tmp_path, test=[row])
    task = only(EvalSpec(task="humaneval", data=str(data), allow_code_execution=True))
    doc = task.eval_docs[0]
    scores = [
        task.process_results(doc, [[doc["prompt"] + body]])["pass@1"]
        for body in ("    return a + b\n", "    return a * b\n")
    ]
    assert scores == [1.0, 0.0]


def test_code_with_a_runner_of_its_own_is_refused_even_with_consent(tmp_path):
    (tmp_path / "own.yaml").write_text("task: own\nunsafe_code: true\ndataset_path: me/x\n")
    spec = EvalSpec(task="own", include_path=str(tmp_path), allow_code_execution=True)
    with pytest.raises(DataError, match="in a way of its own, outside of llmkit's sandbox"):
        only(spec)


@pytest.mark.parametrize("name", ["many", "included"])
def test_a_runner_of_its_own_is_refused_in_a_group_and_through_an_include(tmp_path, name):
    fields = "output_type: generate_until\ntest_split: test\ndoc_to_text: '{{q}}'\ndoc_to_target: x\n"
    (tmp_path / "base").write_text(f"dataset_path: json\nunsafe_code: true\n{fields}")
    (tmp_path / "own.yaml").write_text("include: base\ntask: included\n")
    (tmp_path / "group.yaml").write_text("group: many\ntask: [included]\n")
    data = write(tmp_path / "data", test=[{"q": "x"}])
    for allowed, says in ((False, "it runs programs that the model wrote;"), (True, "in a way of its own")):
        spec = EvalSpec(task=name, include_path=str(tmp_path), data=str(data), allow_code_execution=allowed)
        with pytest.raises(DataError, match=f"task included: .*{says}"):
            load_task(spec, raw=True, seed=0)


def test_what_a_program_must_do_to_pass(tmp_path):
    assert passes("def f():\n    return 1", "assert f() == 1")
    assert not passes("def f():\n    return 2", "assert f() == 1")
    assert not passes("import os\nos._exit(0)", "assert False")  # an end is no success
    assert not passes("def f(:", "")
    target = tmp_path / "written"
    passes(f"open({str(target)!r}, 'w').write('x')", "pass")
    assert not target.exists()
    scores, passed = CodeEval().compute(["assert f()"] * 2, [["f = int", "f = str"], ["f = lambda: 1"] * 2], [1, 2])
    assert passed == {0: [False, False], 1: [True, True]} and scores == {"pass@1": 0.5, "pass@2": 0.5}


def test_worked_examples_are_those_that_are_reported():
    assert reported("arc_challenge", "x/arc/arc_challenge.yaml") == 25
    assert reported("mmlu_virology", "/site/lm_eval/tasks/mmlu/default/mmlu_virology.yaml") == 5
    assert reported("mmlu_flan_virology", "/site/lm_eval/tasks/mmlu/flan_n_shot/x.yaml") == 0
    assert reported("mine", "mine.yaml") == 0
    assert all(num > 0 and source for num, source in REPORTED.values())


def test_a_group_is_found_without_reading_all_of_lm_eval(monkeypatch):
    monkeypatch.setattr(tasks, "_all_of_lm_eval", lambda: pytest.fail("13,000 files"))
    manager = tasks._manager_with(EvalSpec(task="mmlu"))
    assert manager.task_index["mmlu"].kind is Kind.GROUP


def test_a_missing_package_is_named(monkeypatch):
    def load(_):
        raise ModuleNotFoundError("No module named 'langdetect'", name="langdetect")

    manager = SimpleNamespace(
        task_index={"mine": SimpleNamespace(kind=None, cfg={}, name="mine", yaml_path=Path("mine.yaml"))}, load=load
    )
    monkeypatch.setattr(tasks, "_manager_with", lambda spec: manager)
    with pytest.raises(DataError, match="task mine: it needs the package langdetect; pip install langdetect"):
        load_task(EvalSpec(task="mine"), raw=False, seed=0)
