"""Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) on problems with checkable answers, by TRL's
GRPOTrainer.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.grpo recipe.yaml --stage grpo
"""

from __future__ import annotations

from trl import GRPOConfig, GRPOTrainer

from llmkit.artifacts.manifest import Manifest
from llmkit.stages.common import Worker, main
from llmkit.stages.practice import PracticeMixin
from llmkit.stages.practising import practise


class GrpoTrainer(PracticeMixin, GRPOTrainer):
    pass


def run(worker: Worker) -> Manifest:
    return practise(worker, GRPOConfig, GrpoTrainer)


if __name__ == "__main__":
    main("grpo", run)
