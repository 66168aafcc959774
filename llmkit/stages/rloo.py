"""REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740) on problems with checkable answers,
by TRL's RLOOTrainer.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.rloo recipe.yaml --stage rloo
"""

from __future__ import annotations

from trl import RLOOConfig, RLOOTrainer

from llmkit.artifacts.manifest import Manifest
from llmkit.stages.common import Worker, main
from llmkit.stages.practice import PracticeMixin
from llmkit.stages.practising import practise


class RlooTrainer(PracticeMixin, RLOOTrainer):
    returns_logprobs = False


def run(worker: Worker) -> Manifest:
    return practise(worker, RLOOConfig, RlooTrainer)


if __name__ == "__main__":
    main("rloo", run)
