"""Which steps of a plan wait for which, and which of them are one job array of Slurm.

An array has one script and one dependency for all of its tasks. So its steps are of one kind, ask the cluster for the
same, and read the results of the same steps; or each reads those of another task of an array before it, by its index.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from llmkit.plan.step import Step


@dataclass(frozen=True)
class Group:
    """Steps of one job."""

    steps: dict[int, Step]
    """Index of a task -> step. Of one step alone it is no array."""
    after: tuple[str, ...]
    """Steps of other jobs that must have succeeded."""
    arrays: tuple[str, ...] = ()
    """First steps of arrays whose tasks must have succeeded, each for the task of its index here."""

    @property
    def first(self) -> Step:
        return next(iter(self.steps.values()))

    def index(self, name: str) -> int:
        return next(index for index, step in self.steps.items() if step.name == name)


def grouped(steps: Sequence[Step], asks: Callable[[Step], Hashable]) -> list[Group]:
    """Steps as jobs, each behind those that it waits for.

    Args:
        asks: what a step's job asks the cluster for.
    """
    waiting = {step.name: step for step in steps}
    groups: list[Group] = []
    arrays: dict[str, Group] = {}
    for level in _levels(waiting):
        found = _of_level(level, waiting, arrays, asks)
        arrays |= {step.name: group for group in found if len(group.steps) > 1 for step in group.steps.values()}
        groups += sorted(found, key=lambda group: group.first.index)
    return groups


def _levels(waiting: dict[str, Step]) -> list[list[Step]]:
    """Steps by the length of the longest chain of steps that they wait for."""
    depth: dict[str, int] = {}
    for step in waiting.values():
        depth[step.name] = 1 + max((depth[name] for name in _needs(step, waiting)), default=-1)
    return [[step for step in waiting.values() if depth[step.name] == d] for d in range(max(depth.values()) + 1)]


def _needs(step: Step, waiting: dict[str, Step]) -> tuple[str, ...]:
    return tuple(name for name in step.needs if name in waiting)


def _of_level(
    level: list[Step], waiting: dict[str, Step], arrays: dict[str, Group], asks: Callable[[Step], Hashable]
) -> list[Group]:
    """Args: arrays: step -> its array, of the levels before."""
    alike: dict[Hashable, list[Step]] = {}
    for step in level:
        alike.setdefault((step.kind, asks(step), frozenset(_needs(step, waiting))), []).append(step)
    groups = [Group(dict(enumerate(many)), _needs(many[0], waiting)) for many in alike.values() if len(many) > 1]
    rows: dict[Hashable, Group] = {}
    for (step,) in (many for many in alike.values() if len(many) == 1):
        needs = _needs(step, waiting)
        before = {arrays[name].first.name: arrays[name].index(name) for name in needs if name in arrays}
        plain = tuple(name for name in needs if name not in arrays)
        if len(set(before.values())) == 1 and len(before) + len(plain) == len(needs):
            key = (step.kind, asks(step), frozenset(plain), frozenset(before))
            row = rows.setdefault(key, Group({}, plain, tuple(before)))
            row.steps[next(iter(before.values()))] = step
        else:
            groups.append(Group({0: step}, needs))
    # one task alone waits for what it needs as any job does
    return groups + [
        row if len(row.steps) > 1 else Group({0: row.first}, _needs(row.first, waiting)) for row in rows.values()
    ]
