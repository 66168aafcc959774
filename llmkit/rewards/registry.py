"""Rewards by name or by dotted path, made ready for a stage."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial, update_wrapper
from typing import Any, Protocol

from llmkit.artifacts.imported import function_at
from llmkit.errors import UserError
from llmkit.recipe import reward_keys
from llmkit.recipe.practice import RewardSpec, Scalar
from llmkit.rewards.answer import MARKS, fold, said_of, samples_of
from llmkit.rewards.rows import LogMetric, Reward, RowError, Said, Samples

OWN_TIMEOUT = 300.0
"""Seconds that a function of the user's may take for one batch, unless the recipe says otherwise."""


class Judge(Protocol):
    """How the stage judges answers in words; rewards that need it take its functions by their names."""

    def is_correct(self, text: str, accepted: tuple[str, ...], /) -> bool:
        """Whether a text gives one of the accepted answers."""

    def is_refusal(self, text: str, own: tuple[str, ...], /) -> bool:
        """Whether a text says that its author does not know. `own`: refusals in the recipe's wording."""


def whole(text: str, row: Mapping[str, Any]) -> Said:
    """Of a reward that reads no answer out of a completion: the whole text is it."""
    folded = fold(text)
    return Said(folded or None, bool(folded))


def last_said(text: str, row: Mapping[str, Any]) -> Said:
    """As a function of the user's may read it: the last answer or number."""
    return said_of(text, "lenient", MARKS)


@dataclass(frozen=True)
class Named:
    """A reward as a stage uses it. `llmkit.rewards.guard.score` is the way to call it.

    Attributes:
        label: its name in curves and reports, unlike that of every other reward of the stage.
        weight: factor in the sum of rewards.
        when: columns and their values: rows that it scores. Empty: all.
        columns: that those rows must have.
        correctness: whether a score of 1 means that the problem is solved.
        call: called as TRL calls reward functions, with such rows alone.
        samples: a row's columns -> a right and a wrong completion.
        said: (completion, the row's columns) -> the answer that it gives.
        partial: whether a wrong answer may score above 0.
        timeout: seconds that one call may take, of a function that the user wrote.
    """

    label: str
    weight: float
    when: Mapping[str, Scalar]
    columns: tuple[str, ...]
    correctness: bool
    call: Reward
    samples: Callable[[Mapping[str, Any]], Samples] | None = None
    said: Callable[[str, Mapping[str, Any]], Said] = whole
    partial: bool = False
    timeout: float | None = None

    def applies(self, row: Mapping[str, Any]) -> bool:
        """Whether it scores a row with these columns."""
        return matches(self.when, row)


def matches(when: Mapping[str, Scalar], row: Mapping[str, Any]) -> bool:
    """Whether a row's columns have these values."""
    return all(_equal(row.get(name), value) for name, value in when.items())


def load(specs: Sequence[RewardSpec], *, judge: Judge | None = None) -> list[Named]:
    """The rewards of a stage in their order. A second one of the same name is called `<name>_2`.

    Raises:
        UserError: a name, an option or a function that does not exist or does not fit.
    """
    seen: Counter[str] = Counter()
    rewards = []
    for spec in specs:
        seen[spec.label] += 1
        label = spec.label if seen[spec.label] == 1 else f"{spec.label}_{seen[spec.label]}"
        rewards.append(_shipped(spec, label, judge) if spec.name is not None else _own(spec, label))
    return rewards


def _shipped(spec: RewardSpec, label: str, judge: Judge | None) -> Named:
    _check(spec, label)
    module = importlib.import_module(f"llmkit.rewards.{spec.name}")
    maker = getattr(module, f"make_{spec.name}")
    judged = [name for name in inspect.signature(maker).parameters if name in reward_keys.GIVEN]
    if judged and judge is None:
        raise UserError(
            f"rewards: {label}", "judges answers in words, which nothing here does", "choose another reward"
        )
    call = maker(**spec.args, **{name: getattr(judge, name) for name in judged})
    samples, said = getattr(module, "samples", None), getattr(module, "said", None)
    return Named(
        label=label,
        weight=spec.weight,
        when=spec.when,
        columns=module.COLUMNS,
        correctness=module.CORRECTNESS if spec.correctness is None else spec.correctness,
        call=call if label == spec.name else _relabelled(call, str(spec.name), label),
        samples=None if samples is None else partial(samples, **spec.args),
        said=whole if said is None else partial(said, **spec.args),
        partial=spec.args.get("partial") is True,
    )


def _check(spec: RewardSpec, label: str) -> None:
    for key, what, cure in reward_keys.check(spec):
        raise UserError(".".join((f"rewards: {label}", *key)), what, cure)


def _relabelled(call: Reward, name: str, label: str) -> Reward:
    """The same reward, whose curves begin with its own label."""

    def relabelled(log_metric: LogMetric | None = None, **given: Any) -> Sequence[float | None]:
        def log(key: str, value: float) -> None:
            if log_metric is not None:
                log_metric(f"{label}{key.removeprefix(name)}", value)

        return call(log_metric=log, **given)

    return update_wrapper(relabelled, call)


def _own(spec: RewardSpec, label: str) -> Named:
    """A function of the user's. The columns that it must have are its arguments without a default."""
    path = str(spec.path)
    function = function_at(path)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise UserError(path, f"cannot be called ({error})", "name a function") from None
    _check(spec, label)
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        what = f"takes no **kwargs: it is {path}{inspect.signature(function)}"
        raise UserError(path, what, "add **kwargs: TRL passes every column, trainer_state, log_metric, ...")
    named = [name for name, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    for unknown in set(spec.args) - set(named):
        if near := get_close_matches(unknown, named, n=1):
            what = f"{path} has no argument of this name"
            raise UserError(f"rewards: {label}.args.{unknown}", what, f"did you mean '{near[0]}'?")
    needs = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    return Named(
        label=label,
        weight=spec.weight,
        when=spec.when,
        columns=tuple(name for name in needs if name not in (*spec.args, *reward_keys.PASSED)),
        correctness=bool(spec.correctness),
        call=_bound(function, path, spec.args),
        samples=_own_samples,
        said=last_said,
        timeout=OWN_TIMEOUT if spec.timeout is None else spec.timeout,
    )


def _own_samples(row: Mapping[str, Any]) -> Samples:
    """What a function of the user's must take for right and wrong. In which form it wants an answer cannot be known, so
    that only the row's own solution is shown to it as right."""
    try:
        found = samples_of(row, "", "lenient", MARKS)
    except RowError:
        return Samples()
    return found if found.gold == row.get("solution") else Samples(wrong=found.wrong)


def _bound(function: Callable[..., Any], path: str, args: Mapping[str, Any]) -> Reward:
    """The function with the recipe's arguments. `functools.partial` would let a column replace one without a word."""

    def bound(**given: Any) -> Any:
        if clash := sorted(set(args) & set(given)):
            what = f"'{clash[0]}' is both in 'args' and a column of the rows"
            raise UserError(path, what, "leave it out of 'args', or rename the column")
        return function(**given, **args)

    return bound


def _equal(value: Any, wanted: Scalar) -> bool:
    """YAML's `true` is not the number 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)
