"""`llmkit schema`: the JSON schema of a recipe, for editors."""

from __future__ import annotations

import json
from typing import Any

from llmkit.recipe.schema import KINDS, OWN_TASKS, Recipe
from llmkit.recipe.stages import TrainStage
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, check_trainer, declared, resolved_trainer

_TYPES = {bool: "boolean", int: "number", float: "number"}


def schema() -> dict[str, Any]:
    """Draft 2020-12. `trainer` lists the options of the installed TRL."""
    made = Recipe.model_json_schema(by_alias=True)
    definitions = made["$defs"]
    for kind, stage in KINDS.items():
        if issubclass(stage, TrainStage):
            options: dict[str, Any] = {}
            for name in CONFIG_CLASSES:  # of two trainers the first is the default
                if name == kind or name.startswith(f"{kind}_"):
                    options = _trainer(name) | options
            definitions[stage.__name__]["properties"]["trainer"] |= {
                "properties": options,
                "additionalProperties": False,
            }
    for part in (made, definitions["EvaluateStage"]):
        part["properties"]["evals"]["items"] = _evaluation()
    for part in (definitions[name] for name in ("GrpoStage", "RlooStage", "RlhfStage", "BestOfNStage", "ProblemsSpec")):
        # a name alone is short for `{name: ...}`, or with a colon for `{path: ...}`
        part["properties"]["rewards"]["items"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/RewardSpec"}]}
    for name in ("GrpoStage", "BestOfNStage", "RolloutStage", "LookupSpec", "ToolsSpec"):
        tools = definitions[name]["properties"]["tools"]
        tools["items"] = {"anyOf": [{"type": "string"}, tools["items"]]}  # likewise
    for (part, field), short in _SHORT.items():
        _allow(definitions[part]["properties"][field], short)
    for part, field in (("RewardModelSpec", "from"), ("HubSpec", "language")):
        _allow(definitions[part]["properties"][field], {"type": "string"})
    gate = definitions["TrainSource"]["properties"]["require_known"]
    gate["anyOf"].append({"type": "string"})  # `require_known: probe` is short for `{probe: probe}`
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "llmkit recipe"}
    return {**head, **{key: value for key, value in made.items() if key not in head}}


# What stands for a whole part: `reward_model: rm`, `degenerate: 0.1`, `guard: off` (which YAML 1.1 reads as false).
_NAME: dict[str, Any] = {"type": "string"}
_SHORT: dict[tuple[str, str], dict[str, Any]] = {
    ("RankStage", "labeller"): _NAME,
    ("RewardStage", "degenerate"): {"type": "number"},
    ("RlhfStage", "reward_model"): _NAME,
    ("RlhfStage", "guard"): {"type": ["string", "boolean"]},
    ("RlhfStage", "measured_by"): _NAME,
    ("GuardSpec", "labeller"): _NAME,
    ("PreferenceSpec", "labeller"): _NAME,
    ("PreferenceSpec", "reward_model"): _NAME,
}


def _allow(field: dict[str, Any], short: dict[str, Any]) -> None:
    """One more form of a field."""
    if "anyOf" in field:
        field["anyOf"].append(short)
        return
    forms = {key: field.pop(key) for key in ("$ref", "type", "items", "minItems") if key in field}
    field["anyOf"] = [forms, short]


def _evaluation() -> dict[str, Any]:
    """What has fields that a name alone does not give is refused as a bare name: llmkit's own tasks but `identity`."""
    other = {"$ref": "#/$defs/EvalSpec", "not": {"properties": {"task": {"enum": list(OWN_TASKS)}}}}
    own = [{"$ref": f"#/$defs/{spec.__name__}"} for spec in OWN_TASKS.values()]
    named = {"enum": [name for name in OWN_TASKS if name != "identity"]}
    return {"anyOf": [{"type": "string", "not": named}, other, *own]}


def _trainer(kind: str) -> dict[str, Any]:
    """Option -> its type and default, where upstream's source says them in plain values."""
    ours = resolved_trainer(kind, {})
    return {key: _option(ours.get(key, default)) for key, default in declared(kind).items() if _allowed(kind, key)}


def _allowed(kind: str, key: str) -> bool:
    return kind in CONFIG_CLASSES and not list(check_trainer(kind, {key: None}))


def _option(default: Any) -> dict[str, Any]:
    """None may stand for anything, so it sets no type; a default in a string may be an enum's or a number's."""
    if default is None:
        return {}
    known = _TYPES.get(type(default))
    return {"type": known, "default": default} if known else {"default": default}


def print_schema() -> None:
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
