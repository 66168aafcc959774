"""A stage's resolved settings: what differs from the defaults, and the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined

from llmkit.recipe import parts, schema
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, DEFAULTS, declared

_NAMES = ("name", "kind", "from")
_SOURCES = ("data", "questions", "documents", "heldout")
_MISSING = object()


@dataclass(frozen=True)
class Setting:
    key: str
    """With dots: `trainer.learning_rate`."""
    value: str
    default: str = ""
    is_changed: bool = False


def settings(kind: str, resolved: dict[str, Any]) -> list[Setting]:
    """All settings in the order of the schema. A kind that is not in this version's schema has no defaults."""
    defaults = _defaults(kind, f"{kind}_{resolved['algorithm']}" if "algorithm" in resolved else kind)
    shown = {key: value for key, value in resolved.items() if key not in _NAMES and not _is_source(key, value)}
    return [_setting(key, value, defaults.get(key, _MISSING)) for key, value in _flat(shown)]


def data_sources(resolved: dict[str, Any]) -> dict[str, Any]:
    """What the stage reads, without the keys that nobody set."""
    found = {key: resolved[key] for key in _SOURCES if _is_source(key, resolved.get(key))}
    return {key: _set_only(value) for key, value in found.items() if value}


def _is_source(key: str, value: Any) -> bool:
    """An interrogation's `heldout` is a share."""
    return key in _SOURCES and isinstance(value, (list, dict))


def _set_only(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _set_only(each) for key, each in value.items() if each not in (None, {}, [])}
    return [_set_only(each) for each in value] if isinstance(value, list) else value


def _setting(key: str, value: Any, default: Any) -> Setting:
    known = default is not _MISSING
    return Setting(key, _text(value), _text(default) if known else "", value != default if known else True)


def _defaults(kind: str, trainer_kind: str) -> dict[str, Any]:
    stage = schema.KINDS.get(kind)
    if stage is None:
        return {}
    fields = {spec.alias or key: spec.default for key, spec in stage.model_fields.items()}
    plain = {key: _plain(value) for key, value in fields.items() if value is not PydanticUndefined}
    found = dict(_flat(plain)) | {"peft": None, "seed": parts.RunSpec.model_fields["seed"].default}
    for key, spec in parts.PeftSpec.model_fields.items():
        found[f"peft.{key}"] = spec.default
    if trainer_kind in CONFIG_CLASSES:
        trainer = {**declared(trainer_kind), **DEFAULTS[trainer_kind]}
        found |= {f"trainer.{key}": value for key, value in trainer.items()}
    return found


def _plain(value: Any) -> Any:
    return value.model_dump(by_alias=True) if isinstance(value, parts.Part) else value


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value == {} or value == []:
        return "none"
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return "none" if value is None else json.dumps(_set_only(value), ensure_ascii=False, default=str)
