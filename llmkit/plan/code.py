"""Which of llmkit's own source files compute a stage, for its fingerprint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmkit.plan.files import digest, digest_of_sources

PACKAGE = Path(__file__).resolve().parent.parent
_ROOMS = {
    "pretrain": ("data", "chat", "modeling"),
    "sft": ("data", "chat", "modeling"),
    "dpo": ("data", "chat", "modeling", "intervals.py"),
    "grpo": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "intervals.py"),
    "rloo": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "intervals.py"),
    "rollout": ("data", "chat", "modeling", "generation"),
    "rank": ("preference", "intervals.py", "knowledge", "chat/turn.py", "chat/told.py", "chat/results.py"),
    "reward": ("data", "chat", "modeling", "preference", "intervals.py"),
    "rlhf": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "preference", "intervals.py"),
    "best_of_n": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "intervals.py"),
    "interrogate": ("knowledge", "generation", "data", "chat", "modeling"),
    "refusals": ("knowledge", "tools", "chat/schemas.py", "chat/turn.py"),
    "search_index": ("tools", "data"),
    "identity": ("identity",),
    "evaluate": ("evaluate", "intervals.py", "generation", "chat", "modeling"),
    "push": ("hub", "report"),
}
"""Kind of stage -> the rooms, or files of them, whose code computes it."""
_PRACTICE_FILES = (
    "common", "training", "callbacks", "at_hand", "practising", "practice", "prompts", "rollouts", "measuring",
    "monitors", "problems", "solving", "scoring",
)  # fmt: skip
_SHARED_FILES = {
    "evaluate": ("common",),
    "interrogate": ("common", "asked", "documents", "engines", "probed", "questions"),
    "refusals": ("common", "probed"),
    "search_index": ("common",),
    "identity": ("common",),
    "dpo": ("common", "training", "callbacks", "heldout_pairs"),
    "grpo": _PRACTICE_FILES,
    "rloo": _PRACTICE_FILES,
    "rollout": ("common", "asked", "at_hand", "engines", "problems", "solving"),
    "rank": ("common", "rank_judge"),
    "push": ("common",),
    "reward": ("common", "training", "callbacks", "ranking_trainer", "reward_measures"),
    "rlhf": (*_PRACTICE_FILES, "preferring", "guarding", "guard_callback", "guard_judge"),
    "best_of_n": ("common", "asked", "at_hand", "engines", "problems", "solving", "scoring"),
}
"""Kind of stage -> the files of `stages/` besides its own."""
_TRAINING_FILES = ("common", "training", "callbacks")


def code_of(kind: str) -> dict[str, str]:
    """Source files of the rooms that compute a stage -> what stands for their content."""
    return sources((*_SHARED_FILES.get(kind, _TRAINING_FILES), kind), _ROOMS.get(kind, ()))


def sources(files: Iterable[str], rooms: Iterable[str]) -> dict[str, str]:
    """Of `stages/` the named files; of other rooms all. A room may be a single file."""
    parts = {f"code of llmkit/stages/{name}.py": digest(PACKAGE / "stages" / f"{name}.py") for name in files}
    return parts | {f"code of llmkit/{room}": digest_of_room(room) for room in rooms}


def digest_of_room(room: str) -> str:
    path = PACKAGE / room
    # prompts of judges and writers, refusals and wordings are text files beside the code
    return digest(path) if path.suffix else digest_of_sources(path, (".py", ".jinja", ".txt", ".toml"))
