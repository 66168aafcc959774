"""How many worked examples a benchmark is mostly reported with, for lm-eval tasks that do not say it themselves.

What a task's own file says comes first (gsm8k 5, ifeval 0, humaneval 0, truthfulqa 0, bbh 3, mmlu_pro 5, ...), and
`num_fewshot` before both.
"""

from __future__ import annotations

from pathlib import PurePath

LEADERBOARD = "Open LLM Leaderboard v1 (huggingface.co/docs/leaderboards/open_llm_leaderboard/archive)"
REPORTED: dict[str, tuple[int, str]] = {
    "arc_challenge": (25, LEADERBOARD),
    "hellaswag": (10, LEADERBOARD),
    "winogrande": (5, LEADERBOARD),
    "mmlu": (5, "Hendrycks et al. 2020 (arXiv 2009.03300), section 4.1; Open LLM Leaderboard v1"),
    "triviaqa": (5, "Touvron et al. 2023 (arXiv 2307.09288), section 2.3"),
    "nq_open": (5, "Touvron et al. 2023 (arXiv 2307.09288), section 2.3"),
}
_FOLDERS = {"mmlu/default": "mmlu"}


def reported(task: str, source: str) -> int:
    """Worked examples of a task that states none; 0 where nothing is known.

    Args:
        source: path of its task file: the 57 tasks of mmlu have one folder.
    """
    name = _FOLDERS.get("/".join(PurePath(source).parts[-3:-1]), task)
    return REPORTED[name][0] if name in REPORTED else 0
