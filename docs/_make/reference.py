"""The recipe reference: pages in docs/reference/, made from the schema of a recipe.

python docs/_make/reference.py    # write them anew; a test compares them with the schema

A part of a recipe that stands on no page, or a setting without a description, ends this with its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmkit.cli.schema import schema
from llmkit.recipe.schema import KINDS
from llmkit.recipe.stages import StageBase
from llmkit.recipe.trainer_keys import DEFAULTS, OWNED

FOLDER = Path(__file__).resolve().parents[1] / "reference"
FIRST = "<!-- made by docs/_make/reference.py from the schema: change the docstrings in llmkit/recipe/ -->\n"
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "training": (
        "Stages that train on rows",
        "What they are for: [base](../base.md), [sft](../sft.md), [preferences](../preferences.md). `trainer` takes "
        "the options of TRL's trainer: [trainer options](trainer.md).",
        ("PretrainStage", "SftStage", "DpoStage", "PeftSpec", "TokenizerSpec", "EarlyStoppingSpec"),
    ),
    "knowing": (
        "Stages about what a model knows",
        "What they are for: [knowledge](../knowledge.md), [tools](../tools.md), [identity](../identity.md).",
        (
            *("InterrogateStage", "RefusalsStage", "SearchIndexStage", "IdentityStage", "IdentitySpec", "AskSpec"),
            *("WriterSpec", "JudgeSpec", "ThresholdSpec", "TemplateSpec", "RefusalTexts", "LookupSpec"),
        ),
    ),
    "practising": (
        "Stages that practise",
        "What they are for: [practice](../practice.md). `trainer` takes the options of TRL's trainer: [trainer "
        "options](trainer.md).",
        (
            *("GrpoStage", "RlooStage", "BestOfNStage", "RewardSpec", "SamplingSpec", "FilterSpec", "CurriculumSpec"),
            *("MeasureSpec", "Limits"),
        ),
    ),
    "preferring": (
        "Stages from rankings to RLHF",
        "What they are for: [preferences](../preferences.md), [ranking](../ranking.md).",
        (
            *("RolloutStage", "RankStage", "RewardStage", "RlhfStage", "RankJudgeSpec", "LabellerSpec"),
            *("RankingLossSpec", "DegenerateSpec", "RewardModelSpec", "GuardSpec"),
        ),
    ),
    "evaluations": (
        "Evaluations",
        "An item of `evals` is the name of an lm-eval task, or one of these; `task` says which. See [standard "
        "benchmarks](../evaluating.md).",
        (
            *("EvalSpec", "HonestySpec", "ProblemsSpec", "PreferenceSpec", "ToolsSpec", "IdentityEval"),
            *("ReversalSpec", "JailbreakSpec", "EvaluateStage"),
        ),
    ),
    "data": (
        "Data",
        "An item of `data`, `heldout`, `questions`, `problems`, `prompts` or `documents`. Formats of rows: "
        "[sft](../sft.md#4-rows).",
        ("DataSource", "TrainSource", "RequireKnown", "QuestionSource", "PairSource", "ProblemSource"),
    ),
    "tools": (
        "Tools",
        "An item of `tools`. A name alone is short for `{name: ...}`. See [tools](../tools.md).",
        ("SearchSpec", "PythonSpec", "CalculatorSpec", "FunctionSpec", "McpSpec", "InjectionSpec"),
    ),
    "launch": ("Launch and Slurm", "See [cluster](../cluster.md).", ("LaunchSpec", "SlurmSpec", "JobSpec")),
    "hub": ("Publishing", "See [publishing](../publishing.md).", ("PushStage", "HubSpec")),
}
TOP = ("RunSpec", "ModelSpec")
HOME = {part: f"{page}.md" for page, (_, _, parts) in PAGES.items() for part in parts} | dict.fromkeys(TOP, "index.md")
_COMMON = tuple(field.alias or name for name, field in StageBase.model_fields.items())
_KIND_OF = {stage.__name__: kind for kind, stage in KINDS.items()}


def pages() -> dict[str, str]:
    """File name -> text, of every page."""
    made = schema()
    parts = made["$defs"]
    if strange := sorted(set(parts) ^ set(HOME)):
        raise SystemExit(f"on no page, or no part of a recipe: {', '.join(strange)}; put it into PAGES")
    texts = {"index.md": _index(made), "trainer.md": _trainer()}
    for name, (title, lead, names) in PAGES.items():
        sections = "\n".join(_section(part, parts[part], f"{name}.md", parts) for part in names)
        texts[f"{name}.md"] = f"{FIRST}# {title}\n\n{lead}\n\n{sections}"
    return texts


def _index(made: dict[str, Any]) -> str:
    lead = (
        "A recipe is one YAML file. What is not named here is refused, with the nearest name. `llmkit schema` prints "
        "the same as a JSON schema, for editors that complete and check YAML."
    )
    kinds = "\n".join(
        f"| `{kind}` | {_flat(made['$defs'][stage.__name__]['description'])} | {_link(stage.__name__, 'index.md')} |"
        for kind, stage in KINDS.items()
    )
    top = _table(made, "index.md", made["$defs"])
    rest = "\n".join(_section(part, made["$defs"][part], "index.md", made["$defs"]) for part in TOP)
    stages = f"## Kinds of stages\n\n| kind | what it does | settings |\n| --- | --- | --- |\n{kinds}\n"
    return f"{FIRST}# The recipe\n\n{lead}\n\n{top}\n\n{stages}\n{rest}"


def _trainer() -> str:
    lead = (
        "`trainer` takes TRL's own options by TRL's own names, checked against the TRL that is installed: an unknown "
        "one is refused with the nearest name, and so is one without an effect beside the others."
    )
    differ = [
        f"| `{kind}` | `{key}` | `{_plain(value)}` |"
        for kind, values in DEFAULTS.items()
        for key, value in values.items()
    ]
    ours = "\n".join(f"| `{key}` | {_flat(cure)} |" for key, cure in OWNED.items())
    return (
        f"{FIRST}# Trainer options\n\n{lead}\n\n## Defaults that differ from TRL's\n\n"
        "`save_steps` and `warmup_steps` below 1 are shares of all steps.\n\n"
        f"| kind | option | default |\n| --- | --- | --- |\n{chr(10).join(differ)}\n\n"
        f"## Options that are set elsewhere\n\n| option | instead |\n| --- | --- |\n{ours}\n"
    )


def _section(part: str, made: dict[str, Any], page: str, parts: dict[str, Any]) -> str:
    if not made.get("description"):
        raise SystemExit(f"{part} has no docstring")
    return f"## {_title(part)}\n\n{_flat(made['description'])}\n\n{_table(made, page, parts)}\n"


def _table(made: dict[str, Any], page: str, parts: dict[str, Any]) -> str:
    """Of a stage its own settings first, then those that all stages have."""
    fields = list(made["properties"].items())
    if "kind" in made["properties"]:
        fields.sort(key=lambda item: item[0] in _COMMON)
    rows = [
        f"| `{name}` | {_type(spec, page)} | {_default(name, spec, made)} | {_told(name, spec, parts)} |"
        for name, spec in fields
        if name != "kind"
    ]
    return "\n".join(["| setting | value | default | |", "| --- | --- | --- | --- |", *rows])


def _told(name: str, spec: dict[str, Any], parts: dict[str, Any]) -> str:
    """A setting's description; that of its part where the schema leaves out what is the same."""
    text = spec.get("description") or parts.get(_part(spec), {}).get("description")
    if not text and "const" not in spec:
        raise SystemExit(f"{spec.get('title', name)} ({name}) has no docstring")
    return _flat(text or "")


def _default(name: str, spec: dict[str, Any], made: dict[str, Any]) -> str:
    if name in made.get("required", ()):
        return "*required*"
    default = spec.get("default")
    if default is None or default in ({}, [], "") or _part(spec):
        return ""  # what holds then is in the description, or in the part's own table
    return f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    """As it would be written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_plain(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type(spec: dict[str, Any], page: str) -> str:
    """A type in words, with a link where it is a part of its own."""
    return ", or ".join(dict.fromkeys(_types(spec, page)))


def _types(spec: dict[str, Any], page: str) -> Iterator[str]:
    for branch in ("anyOf", "oneOf"):
        if branch in spec:
            for each in spec[branch]:
                yield from _types(each, page)
            return
    if "$ref" in spec:
        yield _link(_part(spec), page)
    elif "const" in spec:
        yield f"`{_plain(spec['const'])}`"
    elif "enum" in spec:
        yield ", ".join(f"`{_plain(value)}`" for value in spec["enum"])
    elif spec.get("type") == "array":
        yield from _list(spec, page)
    elif spec.get("type") == "object":
        inner = spec.get("additionalProperties")
        yield f"map to {_type(inner, page)}" if isinstance(inner, dict) and inner else "map"
    else:
        yield from _scalar(spec)


def _list(spec: dict[str, Any], page: str) -> Iterator[str]:
    if "prefixItems" in spec:
        yield f"list of {len(spec['prefixItems'])}: {_type(spec['prefixItems'][0], page)}"
    elif "discriminator" in spec["items"] and page == "index.md":
        yield "list of [stages](#kinds-of-stages)"
    elif {"$ref": "#/$defs/HonestySpec"} in spec["items"].get("anyOf", ()):
        yield "list of names, or of [evaluations](evaluations.md)"
    else:
        yield f"list of {_type(spec['items'], page)}"


def _scalar(spec: dict[str, Any]) -> Iterator[str]:
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    types = spec.get("type")
    for name in types if isinstance(types, list) else [types]:
        if name != "null":
            yield words.get(str(name), "anything") + _range(spec)


def _range(spec: dict[str, Any]) -> str:
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{words} {spec[key]:g}" for key, words in bounds.items() if key in spec]
    return f" {', '.join(said)}" if said else ""


def _part(spec: dict[str, Any]) -> str:
    return str(spec.get("$ref", "")).rpartition("/")[2]


def _title(part: str) -> str:
    return f"kind: {_KIND_OF[part]}" if part in _KIND_OF else part


def _link(part: str, page: str) -> str:
    """To its heading, by the name that GitHub and MkDocs both make of one."""
    anchor = _title(part).lower().replace(": ", "-")
    return f"[{_KIND_OF.get(part, part)}]({'' if HOME[part] == page else HOME[part]}#{anchor})"


def _flat(text: str) -> str:
    """One line that cannot end a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def write() -> None:
    """All pages, and nothing else, into the folder."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
