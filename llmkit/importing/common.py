"""What recipes of several programs say in the same words: TRL's and transformers' options, adapters, batches."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from llmkit.errors import Problem
from llmkit.importing.accelerate import Launch, read_accelerate
from llmkit.importing.common_keys import NUMBERS, REASONS, RENAMED
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.foreign import Loc, as_number
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, OWNED, PRACTICE, check_trainer, declared

_ATTENTION = {"fa2": "flash_attention_2", "flash_attention_2": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}
_DTYPES = ("float32", "bfloat16", "float16")
_NEAR = 0.8
"""How like a known key an unknown one must be to be called a slip of it, 0 to 1."""


def model(draft: Draft, key: str = "model_name_or_path") -> None:
    """The model's name. Refused: what llmkit would read as a folder in a Python package."""
    name = draft.get(key)
    if not isinstance(name, str) or not name.strip():
        raise draft.refuse((key,), "names no model", "give its Hub id or folder")
    draft.model["name_or_path"] = safe_path(draft, (key,), name)
    draft.moved((key,), "model.name_or_path")
    revision = draft.get("model_revision")
    if revision is not None:
        draft.model["revision"] = str(revision)
        draft.moved(("model_revision",), "model.revision")


def safe_path(draft: Draft, loc: tuple[str | int, ...], path: Any) -> str:
    """A Hub id or file. In llmkit's recipes a colon names Python code, which these files cannot mean."""
    if not isinstance(path, str) or not path.strip() or ":" in path or "\n" in path:
        cure = "download it, and give the file or folder" if "://" in str(path) else "give a Hub id, a file or a folder"
        raise draft.refuse(loc, f"{str(path)!r:.80} is no Hub id and no path", cure)
    return path


def dtype(draft: Draft, *keys: str) -> None:
    for key in keys:
        value = str(draft.get(key, "")).removeprefix("torch.")
        if value in _DTYPES:
            draft.model["dtype"] = value
            draft.moved((key,), "model.dtype")
        elif value:
            draft.listed((key,), f"'{value}': llmkit loads float32 unless `model.dtype` names a type")


def attention(draft: Draft, key: str = "attn_implementation") -> None:
    value = draft.get(key)
    if isinstance(value, str):
        draft.model["attn_implementation"] = _ATTENTION.get(value, value)
        draft.moved((key,), "model.attn_implementation")
    if draft.get("use_flash_attention_2") is True:
        draft.model["attn_implementation"] = "flash_attention_2"
        draft.moved(("use_flash_attention_2",), "model.attn_implementation")
    draft.list_all({"use_flash_attention_2": "false: transformers chooses"})


def batch(draft: Draft, per_device: str, accumulation: str, default: int = 8, total: str = "") -> None:
    """per device x accumulation x processes -> `global_batch_size`.

    Args:
        total: the key of rows x steps of one process, from which the steps follow where they are not given.
    """
    rows = draft.count(per_device, default)
    steps = draft.count(accumulation, max(1, draft.count(total, rows) // rows))
    processes = draft.stage.get("launch", {}).get("num_processes", 1)
    draft.stage["global_batch_size"] = rows * steps * processes
    why = f"{rows} rows x {steps} steps x {processes} {'process' if processes == 1 else 'processes'}"
    if per_device in draft.given:
        draft.set_trainer("per_device_train_batch_size", rows, (per_device,))
    else:
        draft.set_trainer("per_device_train_batch_size", rows, None, "the default there")
    draft.moved((accumulation,), "global_batch_size", why)
    draft.moved((total,), "global_batch_size", why)


def launch(draft: Draft, accelerate: str | None = None, loc: Loc | None = None) -> None:
    """How many processes, as far as anybody says, and which Accelerate config of llmkit's is like theirs."""
    said = read_accelerate(Path(draft.options.accelerate)) if draft.options.accelerate else Launch()
    own = draft.count("num_processes", 1) if draft.get("num_processes") else None
    draft.moved(("num_processes",), "launch.num_processes")
    given = draft.options.num_processes or said.num_processes or own
    shape = accelerate or said.shape or ("ddp" if (given or 1) > 1 else "single")
    if given is None and shape != "single":
        what = f"says how weights are shared ({shape}), and not by how many processes"
        raise draft.refuse(loc or (), what, "add --num-processes N")
    num = given or 1
    if num > 1 or shape != "single":
        draft.stage["launch"] = {"accelerate": shape, "num_processes": num}
        if said.num_machines > 1:
            draft.stage["launch"]["num_machines"] = said.num_machines
    draft.entries += said.entries
    if loc is not None:
        draft.moved(loc, "launch.accelerate", shape)


def adapter(draft: Draft, names: dict[str, str], default: dict[str, Any]) -> None:
    """`peft:` from keys of the file: their name -> `PeftSpec`'s."""
    spec = dict(default)
    for key, name in names.items():
        value = as_number(draft.get(key))
        if value is not None:
            spec[name] = value
            draft.moved((key,), f"peft.{name}")
    draft.stage["peft"] = spec


def default_targets(draft: Draft) -> None:
    """Of an adapter without named modules: peft's own for Llama, Qwen and their like; llmkit's would be all-linear."""
    draft.stage["peft"]["target_modules"] = ["q_proj", "v_proj"]
    why = "peft's default for Llama, Qwen and their like"
    draft.added.append(Entry("q_proj, v_proj", "mapped", "peft.target_modules", why))


def quantize(draft: Draft, bits: Any, loc: tuple[str, ...]) -> None:
    """Weights in 4 bits belong to an adapter. 8 bits are not supported: refused, not rounded."""
    if not bits:
        draft.listed(loc, "false: weights are not quantised")
    elif bits == 4 and "peft" in draft.stage:
        draft.stage["peft"]["quantization"] = "nf4"
        draft.moved(loc, "peft.quantization", "NF4")
    elif bits == 4:
        raise draft.refuse(loc, "4-bit weights without an adapter cannot be trained", "add the adapter (LoRA)")
    else:
        draft.listed(
            loc, "llmkit has 4 bits (`peft.quantization: nf4`) or none; this recipe trains an adapter on whole weights"
        )


def run_folder(draft: Draft, key: str = "output_dir") -> None:
    """`data/zephyr-7b` -> `output_dir: data`, `name: zephyr-7b`."""
    path = str(draft.get(key, "")).rstrip("/")
    parent, _, last = path.rpartition("/")
    draft.run["name"] = slug(last or draft.foreign.path.stem)
    if path:
        draft.run["output_dir"] = parent or "."
        draft.moved((key,), "run.output_dir", f"and `run.name`: {draft.run['name']}")


def slug(text: str) -> str:
    """A name that a recipe takes."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "imported"


def seed(draft: Draft, key: str = "seed") -> None:
    if draft.get(key) is not None:
        draft.run["seed"] = int(draft.number(key, 42))
        draft.moved((key,), "run.seed")


def trainer(draft: Draft, renamed: dict[str, str] | None = None) -> None:
    """Every key that is still left and that TRL knows by this name, by today's name, or that llmkit sets itself."""
    options, names = declared(draft.kind), {**RENAMED, **(renamed or {})}
    _warmup(draft)
    _grouped(draft)
    for key in dict.fromkeys(str(loc[0]) for loc in draft.left):
        name, value = names.get(key, key), draft.given[key]
        if value is None:
            continue
        if key in REASONS:
            draft.listed((key,), REASONS[key])
        elif name in OWNED:
            draft.listed((key,), f"llmkit: {OWNED[name]}")
        elif name in options and name in draft.stage.get("trainer", {}):
            _again(draft, key, name, _value(name, value))
        elif name in options:
            draft.set_trainer(name, _value(name, value), (key,))
        elif name in _all_options():
            draft.listed((key,), f"today's {CONFIG_CLASSES[draft.kind][0][2]} has no such option")


def _warmup(draft: Draft) -> None:
    """transformers' own rule: steps above 0 count, and the share does not."""
    if draft.get("warmup_steps") is not None and draft.get("warmup_ratio") is not None:
        steps = draft.number("warmup_steps", 0) > 0
        loser, why = (
            ("warmup_ratio", "`warmup_steps` counts") if steps else ("warmup_steps", "0: `warmup_ratio` counts")
        )
        draft.listed((loser,), why)


def _grouped(draft: Draft) -> None:
    """Rows of like length together: a sampling strategy by today's name."""
    if draft.get("group_by_length") is True and "train_sampling_strategy" in declared(draft.kind):
        draft.set_trainer("train_sampling_strategy", "group_by_length", ("group_by_length",))
    draft.list_all({"group_by_length": "rows are shuffled"})


def with_answers(draft: Draft, key: str, loss: Any, share: float) -> None:
    """A loss over pairs, with so much of the loss on the chosen answers alone (RPO's alpha)."""
    draft.set_trainer("loss_type", [loss, "sft"], (key,))
    draft.stage["trainer"]["loss_weights"] = [1.0, share]


def from_scratch(draft: Draft, key: str) -> None:
    """Random weights are no detail of a stage."""
    if draft.get(key) is True:
        cure = "train one in a `pretrain` stage with `init: scratch`"
        raise draft.refuse((key,), "starts from random weights in the shape of a model", cure)
    draft.list_all({key: "false: training starts from the model's weights"})


def _again(draft: Draft, key: str, name: str, value: Any) -> None:
    """A second key for an option that is set already. Raises RecipeError where it says something else."""
    if draft.stage["trainer"][name] != value:
        raise draft.refuse((key,), f"sets `{name}`, which another key sets too", "keep the one that counts")
    draft.listed((key,), f"`{name}` is given as well, and says the same")


@cache
def _all_options() -> set[str]:
    """Options of any trainer."""
    return {name for kind in CONFIG_CLASSES for name in declared(kind)}


def _value(name: str, value: Any) -> Any:
    """As today's TRL takes it. YAML 1.1 reads `save_strategy: no` as false."""
    if name.endswith("_strategy") and value is False:
        return "no"
    if name == "packing_strategy" and value == "ffd":
        return "bfd"  # first fit became best fit
    if name == "scale_rewards" and isinstance(value, bool):
        return "group" if value else "none"
    return as_number(value) if name in NUMBERS else value


def without_effect(draft: Draft) -> None:
    """Options that llmkit's trainer of this kind does not read: taken out again, with its reason."""
    options = draft.stage.get("trainer", {})
    while found := list(check_trainer(draft.kind, options)):
        for key, what, cure in found:
            options.pop(key, None)
            why = f"{what}; {cure}" if cure else what
            draft.added = [entry for entry in draft.added if entry.to != f"trainer.{key}"]
            for index, entry in enumerate(draft.entries):
                if entry.to == f"trainer.{key}" or entry.to.startswith(f"trainer.{key}."):
                    draft.entries[index] = type(entry)(entry.key, "listed", "", why)


def finish(draft: Draft, known: set[str]) -> None:
    """What is left are keys that nobody knows: they are refused, all at once, unless they are to be left out."""
    names = sorted(known | set(declared(draft.kind)) | set(OWNED) | set(REASONS) | set(RENAMED))
    for loc in list(draft.left):
        if loc[0] in names and len(loc) == 1:
            what, cure = f"{draft.value(loc)!r:.60} is no value that llmkit can read", ""
        else:
            near = get_close_matches(str(loc[0]), names, n=1, cutoff=_NEAR)
            what, cure = "unknown key", f"did you mean '{near[0]}'?" if near and near[0] != loc[0] else ""
        if draft.options.allow_unknown:
            draft.listed(loc, f"{what.removesuffix(' key')}, left out as asked{f' ({cure})' if cure else ''}")
        else:
            cure = cure or "take it out, or pass --allow-unknown to leave it out"
            draft.problems.append(Problem(draft.place(loc), what, cure))


def cut_silently(draft: Draft) -> None:
    """Programs cut rows at `max_length` and say nothing; llmkit stops unless it is told."""
    if draft.kind not in PRACTICE:
        draft.stage["max_truncated"] = 1.0
        draft.added.append(
            Entry("1.0, since rows are cut at `max_length` there without a word", "mapped", "max_truncated")
        )


def nested(draft: Draft, key: str, reasons: dict[str, str]) -> None:
    """Options of the trainer that stand together under one key. Args: reasons: why the others are listed."""
    options, reasons = declared(draft.kind), {**REASONS, **reasons}
    for name, value in draft.given[key].items():
        today = RENAMED.get(name, name)
        if value is None or ((key, name) not in draft.left and not isinstance(value, (dict, list))):
            continue
        if today in options and today not in OWNED:
            draft.set_trainer(today, _value(today, value), (key, name))
        elif today in OWNED:
            draft.listed((key, name), f"llmkit: {OWNED[today]}")
        elif name in reasons:
            draft.listed((key, name), reasons[name])
