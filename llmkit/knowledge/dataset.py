"""Which questions of a probe become training rows, and on which side.

The probes are read three times and never held: once for the labels (`sides.survey`), once for the wordings of
questions that may contradict each other, once to write (`training_rows.write`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmkit.errors import DataError
from llmkit.knowledge.balance import kinds
from llmkit.knowledge.conflicts import Conflicts
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.sides import ANSWERED, CODE, OVER_REFUSED, REFUSED, TWO_WORDINGS, Probe, Survey
from llmkit.recipe.stages_knowledge import RefusalsStage

Ints = np.ndarray


@dataclass(frozen=True)
class Entries:
    """E training rows to be.

    Attributes:
        number_E: of the question.
        copy_E: 0, or 1 for the second wording of an over-refused question's answer.
        refused_E: its side.
    """

    number_E: Ints
    copy_E: Ints
    refused_E: Ints

    def __len__(self) -> int:
        return len(self.number_E)

    def __getitem__(self, rows_R: Ints) -> Entries:
        return Entries(self.number_E[rows_R], self.copy_E[rows_R], self.refused_E[rows_R])


def settle_conflicts(found: Survey, probes: Sequence[Probe], similarity: float) -> None:
    """Gives near-duplicates with opposite labels the fate "conflict"."""
    fate_N = np.frombuffer(found.fate, np.uint8).copy()
    topic_N = np.frombuffer(found.topic, np.uint64)
    contested = np.intersect1d(topic_N[fate_N == ANSWERED], topic_N[fate_N == REFUSED])
    is_contested_N = np.isin(topic_N, contested) & np.isin(fate_N, (ANSWERED, REFUSED))
    if not is_contested_N.any():
        return
    conflicts = Conflicts(similarity)
    for number, row in first_rows(found, probes):
        if is_contested_N[number]:
            conflicts.add(number, bool(fate_N[number] == REFUSED), row)
    for number in conflicts.find():
        found.fate[number] = CODE["conflict"]


def first_rows(found: Survey, probes: Sequence[Probe]) -> Iterator[tuple[int, ProbeRow]]:
    """Each question once, with the row that its answer is taken from."""
    is_read = bytearray(len(found))
    for probe, read in enumerate(probes):
        for row in read():
            number = found.find(row)
            if number is None:
                raise DataError("probes", "changed while they were read", "run the stage again")
            if found.source[number] == probe and not is_read[number]:
                is_read[number] = 1
                yield number, row


def choose(found: Survey, stage: RefusalsStage, seed: int) -> Entries:
    """The rows to write, in the order of the questions; sets the fate of those that are not taken.

    Within a kind of wording over-refused questions come first, then their second wording, then questions of entities
    that have the fewest rows before them, so that both sides are about as many entities as there are.

    Raises:
        DataError: a side is empty, or `num_rows` asks for more than there is.
    """
    rng = np.random.default_rng([seed, 1])
    entry = _candidates(found, stage)
    kind_E = _kinds(found, entry, stage)
    share_K2 = _shares(kind_E, entry.refused_E, stage.known_ratio)
    num_refused, num_answered = _sizes(share_K2, found, stage)
    quota_K2 = np.stack(
        [_apportion(share_K2[:, side], size) for side, size in ((0, num_answered), (1, num_refused))], axis=1
    )
    order_E = _order(found, entry, rng)
    place_E = _place_in_group(2 * kind_E + entry.refused_E, order_E)
    side_E = entry.refused_E.astype(int)
    taken_E = place_E < quota_K2[kind_E, side_E]
    _mark(found, entry, taken_E, share_K2[kind_E, side_E] > 0)
    chosen = entry[np.flatnonzero(taken_E)]
    chosen = chosen[np.lexsort((chosen.copy_E, chosen.number_E))]
    if stage.relabel == "random":
        chosen = Entries(chosen.number_E, chosen.copy_E, rng.permutation(chosen.refused_E))
        for number, refused in zip(chosen.number_E.tolist(), chosen.refused_E.tolist(), strict=True):
            found.fate[number] = REFUSED if refused else ANSWERED
    return chosen


def _candidates(found: Survey, stage: RefusalsStage) -> Entries:
    fate_N, flags_N = np.frombuffer(found.fate, np.uint8), np.frombuffer(found.flags, np.uint8)
    refused, answered = np.flatnonzero(fate_N == REFUSED), np.flatnonzero(fate_N == ANSWERED)
    if not stage.known_ratio:
        answered = answered[:0]
    again = answered[(flags_N[answered] & OVER_REFUSED > 0) & (flags_N[answered] & TWO_WORDINGS > 0)]
    parts = (refused, answered, again)
    return Entries(
        np.concatenate(parts),
        np.repeat([0, 0, 1], [len(part) for part in parts]),
        np.repeat([True, False, False], [len(part) for part in parts]),
    )


def _kinds(found: Survey, entry: Entries, stage: RefusalsStage) -> Ints:
    if not stage.balance or not stage.known_ratio:
        return np.zeros(len(entry), dtype=int)
    return kinds(found.levels_NL()[entry.number_E])


def _shares(kind_E: Ints, refused_E: Ints, ratio: float) -> Ints:
    """How many rows of each of K kinds may be taken at most (not whole numbers): answered in column 0, refused in 1."""
    num_kinds = int(kind_E.max()) + 1 if len(kind_E) else 0
    refused_K = np.bincount(kind_E[refused_E], minlength=num_kinds).astype(float)
    answered_K = np.bincount(kind_E[~refused_E], minlength=num_kinds).astype(float)
    if ratio:
        refused_K = np.minimum(refused_K, answered_K / ratio)
    return np.stack([refused_K * ratio, refused_K], axis=1)


def _sizes(share_K2: Ints, found: Survey, stage: RefusalsStage) -> tuple[int, int]:
    """Rows with refusals and with answers."""
    possible = (share_K2.sum(axis=0) + 1e-6).astype(int) if len(share_K2) else np.zeros(2, dtype=int)
    answered, refused = map(int, possible)
    where = f"stage '{stage.name}'"
    if not refused or (stage.known_ratio and not answered):
        counts = ", ".join(f"{name} {count}" for name, count in fates(found).items() if count)
        cure = "probe more questions, or change 'refuse', 'maybe_known' or 'balance: false'"
        raise DataError(where, f"the probes do not give both sides of any wording (questions: {counts})", cure)
    # the smaller side sets the size, so that the ratio holds
    answered = min(answered, round(refused * stage.known_ratio))
    if stage.num_rows is None:
        return refused, answered
    if stage.num_rows > refused + answered:
        what = f"'num_rows' is {stage.num_rows}, but the probes give {refused + answered} rows"
        raise DataError(where, what, f"set it to {refused + answered} or less, or leave it out")
    wanted = round(stage.num_rows / (1 + stage.known_ratio))
    return wanted, stage.num_rows - wanted


def _apportion(share_K: Ints, total: int) -> Ints:
    """Whole numbers in proportion to the shares that add up to `total`: largest remainders (Hamilton)."""
    if not share_K.sum():
        return np.zeros(len(share_K), dtype=int)
    exact_K: Ints = share_K * (total / share_K.sum())
    whole_K: Ints = np.floor(exact_K + 1e-9).astype(int)
    by_remainder = np.lexsort((np.arange(len(share_K)), whole_K - exact_K))
    whole_K[by_remainder[: total - whole_K.sum()]] += 1
    return whole_K


def _order(found: Survey, entry: Entries, rng: np.random.Generator) -> Ints:
    """Positions of the entries, those first that should be taken first."""
    shuffled = rng.permutation(len(entry))
    about_E = np.frombuffer(found.about, np.uint64)[entry.number_E]
    groups_E = np.unique(np.stack([about_E, entry.refused_E.astype(np.uint64)]), axis=1, return_inverse=True)[1]
    rank_E = _place_in_group(np.ravel(groups_E), shuffled)
    place_E = np.argsort(shuffled)
    flags_E = np.frombuffer(found.flags, np.uint8)[entry.number_E]
    first_E = np.where(flags_E & OVER_REFUSED > 0, entry.copy_E, 2)
    return np.lexsort((place_E, rank_E, first_E))


def _place_in_group(group_E: Ints, order_E: Ints) -> Ints:
    """How many of its group stand before each entry in the order."""
    sorted_E = order_E[np.argsort(group_E[order_E], kind="stable")]
    groups = group_E[sorted_E]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else np.empty(0, int)
    place_E = np.empty(len(group_E), dtype=int)
    place_E[sorted_E] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return place_E


def _mark(found: Survey, entry: Entries, taken_E: Ints, two_sided_E: Ints) -> None:
    # with `known_ratio: 0` no answered question is a candidate
    for number in np.flatnonzero(np.frombuffer(found.fate, np.uint8) == ANSWERED).tolist():
        found.fate[number] = CODE["surplus"]
    for number, copy, refused, taken, two_sided in zip(
        entry.number_E.tolist(), entry.copy_E.tolist(), entry.refused_E.tolist(), taken_E, two_sided_E, strict=True
    ):
        if copy == 0:
            left = CODE["surplus" if two_sided else "one_sided"]
            found.fate[number] = (REFUSED if refused else ANSWERED) if taken else left


def fates(found: Survey) -> dict[str, int]:
    """Number of questions of each fate; together all of them."""
    counts = Counter(found.fate)
    return {fate: counts[code] for fate, code in CODE.items()}
