"""Finding and building lm-eval tasks: the shipped ones, the user's, lm-eval's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from urllib.error import URLError

import datasets
import lm_eval.tasks
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict

from llmkit.artifacts.shipped import shipped
from llmkit.errors import DataError
from llmkit.evaluate.code import refuse_runner, refuse_unsafe, sandboxed
from llmkit.evaluate.fewshot import reported
from llmkit.evaluate.local import local_data
from llmkit.evaluate.packages import refuse_missing, seed_detection
from llmkit.online import answers, cache_only, refusal
from llmkit.recipe.schema import EvalSpec

_FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow")


def load_task(spec: EvalSpec, *, raw: bool, seed: int) -> TaskDict:
    """The task, or the tasks of the group or tag, that `spec` names, with their data.

    Args:
        raw: prompts are plain text; tasks that have `metadata.raw` are built with its fields instead of their own.
        seed: of the choice of worked examples.

    Raises:
        DataError: no such task (with the nearest names), a task file that is wrong, data that cannot be read, a package
            or data of nltk that its functions need and that cannot be had.
    """
    manager = _manager_with(spec)
    refuse_unsafe(manager.task_index[spec.task], allowed=spec.allow_code_execution)
    if raw:
        _use_raw_fields(manager)
    where = f"task {spec.task}"
    if _is_lm_evals(manager.task_index[spec.task]):
        refuse_missing(spec.task)
    needs_hub = spec.data is None and any(_is_on_hub(entry) for entry in manager.task_index.values())
    with cache_only(needs_hub and not _hub_answers()), local_data(spec), sandboxed(spec.allow_code_execution):
        try:
            loaded = manager.load([spec.task])
        except DataError:
            raise
        except ModuleNotFoundError as error:
            raise DataError(where, f"it needs the package {error.name}", f"pip install {error.name}") from error
        except Exception as error:
            raise DataError(where, *_why(error)) from error
    seed_detection(seed)
    for task in loaded["tasks"].values():
        _check(task, manager.task_index.get(task.task_name), spec)
        _set_fewshot(task, spec.num_fewshot, seed)
    return loaded


def _why(error: Exception) -> tuple[str, str]:
    refused = refusal(error, "data set", None)
    if refused:
        return f"its data cannot be had: {refused[0]}", refused[1]
    if isinstance(error, (ConnectionError, URLError, datasets.exceptions.DatasetNotFoundError)):
        cure = "check the network and the data set's name, or name a folder that has it as 'data'"
        return f"its data cannot be had ({_first_line(error)})", cure
    what = f"it cannot be built ({type(error).__name__}: {_first_line(error)})"
    return what, "mend its YAML file or the functions that it names"


def _manager_with(spec: EvalSpec) -> TaskManager:
    """An index that holds the task, and no more of lm-eval's 13,000 files than needed: reading all takes 16 s."""
    paths = [shipped("evals")]
    if spec.include_path is not None:
        paths.append(Path(spec.include_path).expanduser())
        if not paths[-1].is_dir():
            raise DataError(f"evals: {spec.include_path}", "no such folder", f"the current folder is {Path.cwd()}")
    manager = TaskManager(include_path=list(paths), include_defaults=False)
    if spec.task in manager.task_index:
        return manager
    _refuse_broken_files(paths)
    return _own_folder(spec.task) or _with_defaults(spec.task, manager.all_tasks)


def _is_lm_evals(entry: Entry) -> bool:
    """A tag, which lies in no file, counts."""
    return entry.yaml_path is None or Path(lm_eval.tasks.__file__).parent in entry.yaml_path.parents


def _own_folder(name: str) -> TaskManager | None:
    """Of lm-eval's tasks most lie in a folder of their own name, or of its beginning."""
    root = Path(lm_eval.tasks.__file__).parent
    parts = name.split("_")
    for length in range(len(parts), 0, -1):
        folder = root / "_".join(parts[:length])
        if folder.is_dir():
            manager = TaskManager(include_path=[folder], include_defaults=False)
            if _is_whole(manager.task_index, name):
                return manager
    return None


def _is_whole(index: Mapping[str, Entry], name: str) -> bool:
    """Whether a task is there, or a group with all that belongs to it. Others may belong to a tag."""
    entry = index.get(name)
    if entry is None or entry.kind is not Kind.GROUP:
        return entry is not None and entry.kind is Kind.TASK
    members = (entry.cfg or {}).get("task")
    names = [each if isinstance(each, str) else each.get("task") for each in members or []]
    tags = [each for each in names if each in index and index[each].kind is Kind.TAG]
    return bool(names) and all(each in tags or (isinstance(each, str) and _is_whole(index, each)) for each in names)


def _with_defaults(name: str, local: list[str]) -> TaskManager:
    manager = _all_of_lm_eval()
    if name in manager.task_index:
        return manager
    near = difflib.get_close_matches(name, [*local, *manager.all_tasks], n=3, cutoff=0.6)
    cure = f"did you mean {' or '.join(near)}?" if near else f"shipped are {', '.join(local)}"
    raise DataError(f"evals: {name}", "no task of this name, here or in lm-eval", cure)


@lru_cache(maxsize=1)
def _all_of_lm_eval() -> TaskManager:
    return TaskManager()


def _refuse_broken_files(paths: list[Path]) -> None:
    """lm-eval passes over a file that it cannot read, and the task in it seems not to exist."""
    for file in (file for path in paths for file in sorted(path.rglob("*.yaml"))):
        try:
            load_yaml(file, resolve_func=False)
        except Exception as error:
            raise DataError(
                str(file), f"cannot be read as a task ({_first_line(error)})", "mend or remove it"
            ) from error


def _use_raw_fields(manager: TaskManager) -> None:
    index = manager.task_index
    for name, entry in list(index.items()):
        raw = _metadata(entry).get("raw")
        if entry.kind is Kind.TASK and raw and entry.yaml_path is not None:
            index[name] = replace(entry, yaml_path=None, cfg={**load_yaml(entry.yaml_path), **raw})


def _metadata(entry: Entry) -> dict[str, dict[str, object]]:
    metadata = (entry.cfg or {}).get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _check(task: Task, entry: Entry | None, spec: EvalSpec) -> None:
    where = f"task {task.task_name}"
    if getattr(task, "UNSAFE_CODE", False):
        refuse_runner(task.task_name, entry, allowed=spec.allow_code_execution)
    if getattr(task, "MULTIMODAL", False):
        raise DataError(where, "it needs images or sound", "only text tasks can be run here")


def _set_fewshot(task: Task, num_fewshot: int | None, seed: int) -> None:
    own = task.get_config("num_fewshot")
    if num_fewshot and own == 0:
        raise DataError(f"task {task.task_name}", "it allows no worked examples", "remove 'num_fewshot'")
    if num_fewshot is None:
        num_fewshot = reported(task.task_name, _source(task)) if own is None else own
    task.set_config(key="num_fewshot", value=num_fewshot)
    task.set_fewshot_seed(seed=seed)


def _source(task: Task) -> str:
    """Path of its task file."""
    metadata = task.get_config("metadata")
    return str(metadata.get("config_source", "")) if isinstance(metadata, dict) else ""


def _is_on_hub(entry: Entry) -> bool:
    cfg = entry.cfg or {}
    return "custom_dataset" not in cfg and cfg.get("dataset_path") not in (None, *_FILE_FORMATS)


def _hub_answers() -> bool:
    """Asked with a repository that everyone may read. Its refusal is an answer, too."""
    try:
        return answers(HfApi().dataset_info, "openai/gsm8k")
    except HfHubHTTPError:
        return True


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
