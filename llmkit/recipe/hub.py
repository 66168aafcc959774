"""What is published, where, and how good it must be."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator

from llmkit.recipe.parts import Part
from llmkit.recipe.stages import StageBase

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,90}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_CODE = re.compile(r"[a-z]{2,3}")
_BAR = re.compile(r"\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def _bar(text: Any) -> str:
    if not (found := _BAR.fullmatch(str(text))):
        raise ValueError(f"{text!r} is no bar: write a comparison and a number, such as '>= 0.95'")
    return f"{found[1]} {found[2]}"


def holds(bar: str, value: float) -> bool:
    """Whether a value is on the right side of a checked bar. NaN never is."""
    sign, _, number = bar.partition(" ")
    return _OPERATORS[sign](value, float(number))


def _nested(value: Any) -> Any:
    """`facts_known.accuracy: ">= 0.95"` is short for `facts_known: {accuracy: ">= 0.95"}`."""
    if not isinstance(value, dict):
        return value
    found: dict[Any, Any] = {}
    for key, bars in value.items():
        evaluation, dot, metric = str(key).rpartition(".")
        added = {metric: bars} if dot and not isinstance(bars, dict) else bars
        name = evaluation if added is not bars else key
        found[name] = (
            {**found[name], **added} if isinstance(found.get(name), dict) and isinstance(added, dict) else added
        )
    return found


Bar = Annotated[str, BeforeValidator(_bar)]
Bars = Annotated[dict[str, dict[str, Bar]], BeforeValidator(_nested)]


def repo_id(value: str) -> str:
    """Raises ValueError for what cannot name a repository."""
    if not _REPO.fullmatch(value) or ".." in value or "--" in value or value.endswith((".git", "-", ".")):
        raise ValueError(f"{value!r} is no repository: write 'owner/name' of letters, digits, '-', '_' and '.'")
    return value


def ref(value: str | None) -> str | None:
    """Raises ValueError for what cannot name a branch or tag."""
    if value is not None and (not _NAME.fullmatch(value) or ".." in value or value.endswith((".", ".lock"))):
        raise ValueError(f"{value!r} cannot name a branch or tag: use letters, digits, '-', '_' and '.'")
    return value


def _licence(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank: name a licence, such as apache-2.0, or leave it out")
    return value


def _language(value: str) -> str:
    if not _CODE.fullmatch(value):
        raise ValueError(f"{value!r} is no code of a language: write two or three letters, such as 'en'")
    return value


def _listed(value: Any) -> Any:
    """`en` is short for `[en]`."""
    return [value] if isinstance(value, str) else value


Licence = Annotated[str, AfterValidator(_licence)]
Language = Annotated[str, AfterValidator(_language)]


class HubSpec(Part):
    """A repository on the Hugging Face Hub, and what is put there."""

    repo_id: Annotated[str, AfterValidator(repo_id)]
    """Model repository, `owner/name`. Data sets go to `<repo_id>-data`."""
    private: bool = True
    """Seen by you alone. A repository that exists already must be what this says."""
    revision: Annotated[str, AfterValidator(ref)] = "main"
    """Branch."""
    tag: Annotated[str | None, AfterValidator(ref)] = None
    """Tag of the commit. Default: the run's name and a hash of what is published, so that a run has its own."""
    merged: bool | None = None
    """Of a stage that trained an adapter: `true` publishes the whole model, merged if need be; `false` the adapter.
    Default: the whole model where the stage left one."""
    datasets: bool | Literal["all"] = True
    """Publish the data sets made on the way (refusals, rollouts, rankings, best-of-n rows): those that the model comes
    from or was evaluated with; `all`: of the whole run."""
    report: bool = True
    """Publish the report."""
    language: Annotated[list[Language], BeforeValidator(_listed)] = []
    """What the model speaks, by codes of ISO 639 (`en`, `[en, hu]`), for the cards."""
    license: Licence | None = None
    """Licence of the model, by the Hub's id (`apache-2.0`, `cc-by-4.0`, ...) or a name of your own."""
    licenses: dict[str, Licence] = {}
    """Licences of the base model and the data sources, by the names that this recipe gives them. Default: what their
    cards on the Hub say."""


class PushStage(StageBase):
    """Publishes a model on the Hub, with its data sets, report and recipe."""

    loads_model: ClassVar[bool] = False
    kind: Literal["push"]
    hub: HubSpec | None = None
    """Where to. Default: the recipe's."""
    ship: Bars = {}
    """Bars below which nothing is published. Default: the recipe's."""
    despite_bars: bool = False
    """Publish all the same."""
    overwrite: bool = False
    """Replace what others than llmkit have put there."""
