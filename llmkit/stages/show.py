"""What `llmkit show` runs.

python -m llmkit.stages.show --recipe recipe.yaml [overlay.yaml ...] [key=value ...] --stage sft [--rows 3] [--ids]
python -m llmkit.stages.show --tokens "text" --model MODEL
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llmkit.artifacts.manifest import read_manifest
from llmkit.chat.template import load_template, template_of
from llmkit.data.build import ACCEPTS
from llmkit.data.mixture import mix
from llmkit.data.show import cut_table, show_rows
from llmkit.data.tokens import settings_of
from llmkit.errors import ModelError, RunError
from llmkit.modeling.load import load_tokenizer
from llmkit.modeling.tokens import prepare_tokenizer
from llmkit.options.show import parser
from llmkit.plan.make import make
from llmkit.plan.step import Step
from llmkit.recipe.load import load_words
from llmkit.recipe.stages import BestOfNStage, PracticeStage, TrainStage
from llmkit.stages.command import as_command
from llmkit.stages.monitors import watched
from llmkit.stages.named import named
from llmkit.stages.problems import problems_of
from llmkit.stages.prompting import problem_ids

# Rows that lengths and shares are counted on; the mixture is shuffled, so the first are a fair sample.
SAMPLE = 1000


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    options = parser()
    args = options.parse_intermixed_args(argv)
    words = [*args.recipe, *args.words]
    if (args.tokens is None) == (not words) or (args.tokens is None) != (args.model is None):
        options.error("give a recipe, or --tokens TEXT with --model MODEL")
    console = Console(soft_wrap=True)
    if args.tokens is not None:
        show_tokens(console, args.tokens, args.model)
    else:
        show_recipe(console, words, args.stage, args.rows, args.ids)


def show_tokens(console: Console, text: str, model: str) -> None:
    """Print how a text is cut, with id and UTF-8 bytes of each token. Raises ModelError without a tokenizer."""
    table, num_tokens, num_bytes = cut_table(load_tokenizer(*named(model)), text)
    console.print(table)
    rate = f"{num_bytes / num_tokens:.2f}" if num_tokens else "-"
    console.print(f"{num_tokens} tokens, {num_bytes} bytes, {rate} bytes per token", highlight=False)


def show_recipe(console: Console, words: Sequence[str], name: str | None, num_rows: int, ids: bool) -> None:
    """Print rows of a training stage as its trainer will see them.

    Raises:
        RecipeError, DataError, TemplateError, ModelError: as the stage itself would.
    """
    steps = {step.name: step for step in make(load_words(words)).steps}
    step = _chosen(steps, name)
    stage = step.stage
    tokenizer = stage_tokenizer(step, steps)
    if isinstance(stage, (PracticeStage, BestOfNStage)):
        show_problems(console, step, tokenizer, num_rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        mixture = mix(
            stage.data,
            seed=stage.seed,
            folder=Path(folder),
            data_stages={stage: Path(path) for stage, path in step.data_stages.items()},
            stage_kind=stage.kind,
            max_rejected=stage.max_rejected,
            dedup=stage.dedup,
        )
        for count in mixture.counts:
            numbers = f"{count.num_read} read, {count.num_rejected} rejected, {count.num_duplicates} repeats"
            console.print(f"{count.source}: {numbers}, {count.num_used} used", highlight=False, markup=False)
        sample = islice(mixture, max(num_rows, SAMPLE))
        shapes = show_rows(console, tokenizer, sample, settings_of(stage), num_rows=num_rows, ids=ids).shapes
    if unfit := sorted(shapes - set(ACCEPTS[stage.kind])):
        console.print(f"WARNING: a '{stage.kind}' stage does not take {', '.join(unfit)} rows", highlight=False)


def show_problems(console: Console, step: Step, tokenizer: PreTrainedTokenizerBase, num_rows: int) -> None:
    """Print prompts as the model will get them, with the columns that rewards read."""
    with tempfile.TemporaryDirectory() as folder:
        problems = problems_of(step, Path(folder), chat=template_of(tokenizer) is not None)
        for count in problems.counts:
            numbers = f"{count.num_read} read, {count.num_rejected} rejected, {count.num_duplicates} repeats"
            console.print(f"{count.source}: {numbers}, {count.num_used} used", highlight=False, markup=False)
        for problem in islice(problems, num_rows):
            ids = problem_ids(tokenizer, problem)
            console.rule(f"{problem.place}: {len(ids)} tokens", align="left")
            console.print(tokenizer.decode(ids), highlight=False, markup=False)
            for name, value in problem.columns.items():
                console.print(f"  {name}: {value}", highlight=False, markup=False)
    if isinstance(step.stage, PracticeStage):
        show_monitors(console, step.stage)


def show_monitors(console: Console, stage: PracticeStage) -> None:
    """Print the curves that are watched, each with its range."""
    console.rule("watched", align="left")
    for name, limits in watched(stage).items():
        bounds = (("at least", limits.min), ("at most", limits.max))
        said = ", ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
        console.print(f"  {name}: {said} ({limits.action})", highlight=False, markup=False)


def _chosen(steps: dict[str, Step], name: str | None) -> Step:
    trained = [step.name for step in steps.values() if isinstance(step.stage, (TrainStage, BestOfNStage))]
    if name is None and len(trained) == 1:
        name = trained[0]
    if name not in trained:
        what = "names no training stage of this recipe" if name else "is needed: the recipe trains in several stages"
        raise RunError(f"--stage {name or ''}".strip(), what, f"have: {', '.join(trained) or 'none'}")
    return steps[name]


def stage_tokenizer(step: Step, steps: dict[str, Step]) -> PreTrainedTokenizerBase:
    """The tokenizer that a stage starts with: of the nearest finished stage before it, else of the recipe's model.

    Raises:
        ModelError: there is none, or none yet.
    """
    node = step
    while node.parent is not None and node.parent_dir is not None and read_manifest(Path(node.parent_dir)) is None:
        node = steps[node.parent]
    if node.input_model is not None:
        revision = node.model.revision if node.model and node.parent is None else None
        tokenizer = load_tokenizer(node.input_model, revision)
    elif (own := node.stage_dir.path / "tokenizer").is_dir():
        tokenizer = AutoTokenizer.from_pretrained(own)
    else:
        raise ModelError(f"stage '{node.name}'", "trains its own tokenizer and has not run yet", "run this stage first")
    named = step.model.chat_template if step.model else None
    template = (load_template(named) if named else template_of(tokenizer)) if step.kind != "pretrain" else None
    prepare_tokenizer(tokenizer, template)
    return tokenizer


if __name__ == "__main__":
    sys.exit(main())
