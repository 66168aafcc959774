"""Problems that reasoning-gym makes up (arXiv 2505.24760): `path: reasoning_gym:chain_sum`, its settings as `args`.

A row: {"prompt", "answer" (where the task has one), "level" (where `args` names one), "verifier": "reasoning_gym",
"rg_task", "rg_config" (JSON text), "rg_index"}. The problem again, with all that its own scoring needs, is
`reasoning_gym.create_dataset(rg_task, **json.loads(rg_config))[rg_index]`.

In `args`, beside the task's own settings:

- `size`: number of problems; without it `num_rows`, or 1,000. No question comes twice.
- `split`: `train` (default) or `heldout`. A question's own hash says on which side it is, one in five being held out:
  so no question is on both, whatever the seeds, sizes and settings of the two sources.
- `seed`: 0 (default) to 4,293. Problem i of reasoning-gym's seed s is problem 0 of its seed s + i, so that near seeds
  give the same problems. Here every seed has a million of reasoning-gym's to itself, beginning at seed * 1,000,000.
- `level`: all difficulties of the task's curriculum at that level, counted from 0.

reasoning-gym is imported when such a source is read, since that takes seconds.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from hashlib import blake2b
from importlib.util import find_spec
from itertools import islice
from types import ModuleType
from typing import Any

from llmkit.chance import chance_kept
from llmkit.data.files import Raw
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource

PACKAGE = "reasoning_gym"
SPLITS = ("train", "heldout")
OWN_ARGS = ("level", "seed", "size", "split")
DEFAULT_SIZE = 1000
BLOCK = 1_000_000
"""Seeds of reasoning-gym that belong to one seed of a source; no source looks at more problems."""
NUM_SEEDS = 2**32 // BLOCK
"""Some tasks hand their seed to numpy, which takes 32 bits."""
HELDOUT_ONE_IN = 5
CHUNK = 1000
"""Problems of one data set of reasoning-gym: some tasks make all of them when it is opened."""
PATIENCE = 20
"""Problems in a row without a new question, per question that was found, after which no more are looked at."""
BATCH = 64
"""Problems that are made at a time."""


def is_reasoning_gym(path: str) -> bool:
    """Whether a path means a task of reasoning-gym."""
    return path.partition(":")[0] == PACKAGE and ":" in path


def made_up(source: DataSource) -> Iterator[Raw]:
    """The problems of a source, the same ones each time. One that fails, or that comes out differently when it is made
    again, is a `Raw` with `error`. The random numbers of the process stay as they are: some tasks seed them.

    Raises:
        DataError: reasoning-gym is not installed, it has no such task or settings, or the task does not give as many
            different problems.
    """
    rows = _made_up(source)
    while True:
        with chance_kept():
            batch = list(islice(rows, BATCH))
        if not batch:
            return
        yield from batch


def _made_up(source: DataSource) -> Iterator[Raw]:
    path, args = str(source.path), dict(source.args)
    task, size = path.partition(":")[2], _size(source)
    base, split = _seed(path, args), _split(path, args)
    gym = _imported(path)
    config = _settings(gym, path, task, args)
    level = {"level": args["level"]} if "level" in args else {}
    patience = PATIENCE * (HELDOUT_ONE_IN if split == "heldout" else 1)
    seen, newest = set[bytes](), 0
    for place, (made, number) in enumerate(_numbered(gym, path, task, config, base), start=1):
        if place - newest > CHUNK + patience * len(seen):
            break
        try:
            question, answer = _item(made, number["rg_index"])
            digest = blake2b(question.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest in seen or _side(digest) != split:
                continue
            again = _item(made, number["rg_index"])
        except Exception as error:
            yield Raw(number, path, place, f"reasoning-gym fails at it ({type(error).__name__}: {error})")
            continue
        row = {"prompt": question, "answer": answer, **level, "verifier": PACKAGE, **number}
        if again != (question, answer):
            yield Raw(row, path, place, "it is another one each time it is made, so that answers cannot be checked")
            continue
        yield Raw(row, path, place)
        seen.add(digest)
        newest = place
        if len(seen) == size:
            return
    if seen and (source.num_rows is not None or "size" in args):
        what = f"has only {len(seen)} different problems for '{split}' with these settings, and {size} are wanted"
        raise DataError(path, what, "ask for fewer, or widen its settings in 'args'")


def _numbered(
    gym: ModuleType, path: str, task: str, config: dict[str, Any], base: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Data sets of reasoning-gym, each with the columns that number one of its problems."""
    for first in range(0, BLOCK, CHUNK):
        settings = {**config, "seed": base + first, "size": CHUNK}
        made, written = _opened(gym, path, task, settings), json.dumps(settings)
        yield from ((made, {"rg_task": task, "rg_config": written, "rg_index": index}) for index in range(CHUNK))


def _side(digest: bytes) -> str:
    return SPLITS[int.from_bytes(digest[:8], "little") % HELDOUT_ONE_IN == 0]


def _size(source: DataSource) -> int:
    size = source.args.get("size", source.num_rows or DEFAULT_SIZE)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise DataError(str(source.path), f"'size' in 'args' is {size!r}", "give a number of problems")
    if not source.split.startswith("train"):
        what = f"'split: {source.split}' is no part of the problems that are made"
        raise DataError(str(source.path), what, "hold problems out with args: {split: heldout}")
    if source.split != "train" and source.num_rows is not None and "size" not in source.args:
        what = f"'num_rows: {size}' says how many problems are made, and 'split: {source.split}' has fewer"
        cure = "say with args: {size: ...} how many are made, or hold problems out with args: {split: heldout}"
        raise DataError(str(source.path), what, cure)
    return size


def _seed(path: str, args: dict[str, Any]) -> int:
    """reasoning-gym's seed of the first problem."""
    seed = args.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < NUM_SEEDS:
        raise DataError(path, f"'seed' in 'args' is {seed!r}", f"give a whole number from 0 to {NUM_SEEDS - 1}")
    return seed * BLOCK


def _split(path: str, args: dict[str, Any]) -> str:
    split = args.get("split", SPLITS[0])
    if split not in SPLITS:
        raise DataError(path, f"'split' in 'args' is {split!r}", f"give {' or '.join(SPLITS)}")
    return str(split)


def _imported(path: str) -> ModuleType:
    cure = "pip install 'llmkit[reasoning-gym]'"
    if find_spec(PACKAGE) is None:
        raise DataError(path, "reasoning-gym is not installed", cure)
    try:
        importlib.import_module(f"{PACKAGE}.factory")
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise DataError(path, f"reasoning-gym cannot be imported ({error})", cure) from error


def _settings(gym: ModuleType, path: str, task: str, args: dict[str, Any]) -> dict[str, Any]:
    """What is given to the task, but for seed and size; as it is read back from a row."""
    tasks = {name: entry for name, entry in gym.factory.DATASETS.items() if name != "composite"}
    if task not in tasks:
        near = get_close_matches(task, tasks, n=3)
        cure = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(tasks))}"
        if task == "composite":
            cure = "give every task a source of its own, with 'fraction' or 'num_rows'"
        raise DataError(path, f"reasoning-gym has no task '{task}' here", cure)
    own = {field.name: field.default for field in fields(tasks[task][1]) if field.name not in OWN_ARGS}
    for name in args:
        if name not in own and name not in OWN_ARGS:
            near = get_close_matches(name, [*own, *OWN_ARGS], n=1)
            listed = ", ".join([*own, *OWN_ARGS])
            cure = f"{f'did you mean {near[0]!r}? ' if near else ''}it has {listed}"
            raise DataError(path, f"the task has no setting '{name}'", cure)
    levels = _curriculum(gym, path, task, args["level"]) if "level" in args else {}
    given = {name: value for name, value in args.items() if name not in OWN_ARGS}
    try:
        settings: dict[str, Any] = json.loads(json.dumps(levels | given))
    except TypeError as error:
        what = "has a setting that a row cannot hold" if not levels else "has a level that a row cannot hold"
        raise DataError(path, f"{what} ({error})", "give plain numbers, texts and lists in 'args'") from None
    return settings


def _curriculum(gym: ModuleType, path: str, task: str, level: Any) -> dict[str, Any]:
    """Settings of the task's curriculum at a level."""
    if task not in gym.factory.CURRICULA:
        raise DataError(path, "the task has no levels", "leave 'level' out of 'args', and give its settings")
    curriculum = gym.factory.create_curriculum(task)
    attributes = list(curriculum.attributes.values())
    highest = max((len(attribute.levels) - 1 for attribute in attributes), default=0)
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= highest:
        raise DataError(path, f"'level' in 'args' is {level!r}", f"it has the levels 0 to {highest}")
    curriculum.set_global_level(level)
    config = curriculum.generate_configuration()
    keys = ("field_name", "lower_field_name", "upper_field_name")
    names = [getattr(attribute, key) for attribute in attributes for key in keys if hasattr(attribute, key)]
    return {name: getattr(config, name) for name in names}


def _opened(gym: ModuleType, path: str, task: str, settings: dict[str, Any]) -> Any:
    try:
        return gym.create_dataset(task, **settings)
    except Exception as error:
        # checks of the tasks are asserts, mostly
        raise DataError(
            path, f"it refuses its settings ({str(error) or type(error).__name__})", "change 'args'"
        ) from error


def _item(made: Any, index: int) -> tuple[str, Any]:
    """Question and answer of a problem. By number: iterating adds random ids."""
    item = made[index]
    return item["question"], item["answer"]
