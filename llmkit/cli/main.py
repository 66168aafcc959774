"""The `llmkit` command. Every command imports its module when it is called, so that `--help` stays instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llmkit.cli.worker import worker
from llmkit.errors import LlmkitError

Words = Annotated[list[str], typer.Argument(metavar="RECIPE [OVERLAY.yaml ...] [KEY=VALUE ...]", show_default=False)]
app = typer.Typer(
    name="llmkit",
    help="Post-training for language models: one recipe drives pretraining, chat, evaluation and report.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"llmkit {version('llmkit')}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Post-training for language models: one recipe drives pretraining, chat, evaluation and report."""


@app.command()
def new(
    name: Annotated[
        str | None, typer.Argument(help="Shipped recipe, such as `tiny/assistant`; none: list them.")
    ] = None,
    dest: Annotated[str | None, typer.Argument(help="File to write. Default: the recipe's own file name.")] = None,
) -> None:
    """Copy a shipped recipe to start from.

    Examples:

        llmkit new

        llmkit new tiny/assistant my.yaml
    """
    from llmkit.cli.new import copy_recipe, list_recipes

    copy_recipe(name, dest) if name else list_recipes()


@app.command("import")
def import_recipe(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file of another project.", show_default=False)],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Recipe to write. Default: FILE's name .llmkit.yaml")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option("--from", help="alignment-handbook, open-r1, trl, axolotl or llamafactory. Default: by its keys."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="sft, dpo, cpt, grpo, ...; where the file does not say.")
    ] = None,
    num_processes: Annotated[
        int | None, typer.Option("--num-processes", min=1, help="Processes it was written for. Default: 1.")
    ] = None,
    accelerate: Annotated[
        str | None, typer.Option("--accelerate", help="The Accelerate config that it was launched with.")
    ] = None,
    allow_unknown: Annotated[bool, typer.Option("--allow-unknown", help="List unknown keys; do not stop.")] = False,
) -> None:
    """Turn a YAML of alignment-handbook, open-r1, TRL, axolotl or LLaMA-Factory into a recipe.

    Every key is carried over, renamed, or listed with what llmkit does instead.

    Examples:

        llmkit import config_full.yaml --stage dpo --num-processes 8 --out dpo.yaml

        llmkit import lora-1b.yml --from axolotl --out lora.yaml
    """
    from llmkit.cli.import_recipe import import_recipe as command
    from llmkit.importing.draft import Options

    command(file, system, out, Options(stage, num_processes, allow_unknown, accelerate))


@app.command()
def validate(words: Words) -> None:
    """Check a recipe: names, types, trainer options, batch arithmetic, files. All problems at once.

    Examples:

        llmkit validate recipe.yaml

        llmkit validate recipe.yaml gpu.yaml stages.sft.trainer.learning_rate=1e-4
    """
    from llmkit.cli.show_plan import validate as command

    command(words)


@app.command()
def plan(
    words: Words,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show each step's command.")] = False,
) -> None:
    """Show what `run` would do, and why. Loads and writes nothing.

    Examples:

        llmkit plan recipe.yaml

        llmkit plan recipe.yaml run.seed=1 --json
    """
    from llmkit.cli.show_plan import plan as command

    command(words, as_json, verbose)


@app.command()
def run(
    words: Words,
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage, and its evaluation.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="This stage and all after it.")] = None,
    step: Annotated[str | None, typer.Option("--step", help="Only this step, without its evaluation.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop; write nothing.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write batch scripts for Slurm instead.")] = False,
    submit: Annotated[bool, typer.Option("--submit", help="With --slurm: submit them.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what workers print; with --dry-run: their commands.")
    ] = False,
) -> None:
    """Run a recipe. Finished stages are skipped, an interrupted one goes on from its last checkpoint.

    Examples:

        llmkit run recipe.yaml

        llmkit run recipe.yaml gpu.yaml run.name=second --from sft

        llmkit run recipe.yaml --slurm --submit
    """
    from llmkit.cli.run import run as command

    command(words, stage=stage, start=start, step=step, dry_run=dry_run, slurm=slurm, submit=submit, verbose=verbose)


@app.command(cls=worker("show"))
def show() -> None:
    """Print rows as the trainer will see them, trained tokens in one colour and the others in another.

    Examples:

        llmkit show recipe.yaml --stage sft --rows 3

        llmkit show recipe.yaml --stage sft --ids

        llmkit show --tokens "Who are you?" --model llmkit.tiny:base
    """


@app.command(cls=worker("chat"))
def chat() -> None:
    """Talk to a model: a run's last one, a stage's, a folder or a Hub id.

    Examples:

        llmkit chat runs/tiny-assistant

        llmkit chat runs/tiny-assistant --stage sft

        llmkit chat Qwen/Qwen3-0.6B --temperature 0.7
    """


@app.command("eval", cls=worker("eval_command"))
def evaluate() -> None:
    """Run standard benchmarks on a model, by lm-eval's names; against another model, say which differences are noise.

    Examples:

        llmkit eval runs/assistant --tasks gsm8k,ifeval --limit 200

        llmkit eval runs/assistant --tasks gsm8k --data gsm8k=data/gsm8k --against Qwen/Qwen3-0.6B-Base --json

        llmkit eval --base-url http://localhost:8000/v1 --model my-model --tasks gsm8k
    """


@app.command(cls=worker("serve"))
def serve() -> None:
    """Serve a model over OpenAI's API, with a page to chat; tools of your own run on the server.

    Examples:

        llmkit serve runs/tiny-assistant

        llmkit serve runs/tiny-assistant --tool python --tool search:indexes/wiki --port 8001

        llmkit serve runs/assistant --engine vllm
    """


@app.command("judge-check", cls=worker("judge_check"))
def judge_check() -> None:
    """Measure a judge of answers against a labelled file: error rate with interval, confusions, misjudged rows.

    Examples:

        llmkit judge-check

        llmkit judge-check labelled.jsonl --judge model --model Qwen/Qwen3-0.6B --engine vllm

        llmkit judge-check --judge openai --model my-judge --base-url http://localhost:8000/v1 --timeout 20 --json

    Without a file: the slice that llmkit ships.
    """


@app.command(cls=worker("rank_page", export="rank_export"))
def rank() -> None:
    """Rank answers on a page in your browser; `export` writes the rankings as preference rows.

    Examples:

        llmkit rank rollouts.jsonl --rater anna

        llmkit rank export rollouts.jsonl --to preferences.jsonl
    """


@app.command(cls=worker("arena"))
def arena() -> None:
    """Rate the models of a run against one another, by evaluations of preferences and by rankings.

    Examples:

        llmkit arena runs/rlhf

        llmkit arena runs/rlhf --by preference --json
    """


@app.command(cls=worker("index"))
def index() -> None:
    """Index documents for the tool `search`: `{name: search, index: FOLDER}`.

    Examples:

        llmkit index wiki.jsonl notes/*.md --out indexes/mine

        llmkit index pages.parquet --text-column body --passage-chars 400 --overlap 50 --out indexes/pages
    """


@app.command(cls=worker("push_command"))
def push() -> None:
    """Publish a run's model, data sets, report and recipe on the Hugging Face Hub, privately unless told.

    Examples:

        llmkit push runs/tiny-assistant --repo-id me/assistant --dry-run

        llmkit push runs/tiny-assistant --stage sft --repo-id me/assistant
    """


@app.command(cls=worker("export"))
def export() -> None:
    """Write a model as a folder that Ollama, llama.cpp or vLLM load; adapters are folded in, the template is proved.

    Examples:

        llmkit export runs/assistant --to ollama --out exported/assistant

        llmkit export runs/assistant --stage sft --to vllm --out exported/sft --dtype bfloat16
    """


_rewards = typer.Typer(no_args_is_help=False, help="List the rewards that a recipe may name, or check a recipe's.")
app.add_typer(_rewards, name="rewards")


@_rewards.callback(invoke_without_command=True)
def rewards(context: typer.Context) -> None:
    """List the rewards that a recipe may name, with their options; `check` has them score gold solutions.

    Examples:

        llmkit rewards

        llmkit rewards check recipe.yaml
    """
    if context.invoked_subcommand is None:
        from llmkit.cli.rewards import list_rewards

        list_rewards()


@_rewards.command("check", cls=worker("rewards_check"))
def check_rewards() -> None:
    """Score the gold solutions of a recipe's problems, which must be right, and corrupted ones, which must be wrong.

    Examples:

        llmkit rewards check recipe.yaml

        llmkit rewards check recipe.yaml --stage grpo --json
    """


@app.command()
def report(
    run_folders: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="The same figures, for machines.")] = False,
) -> None:
    """Write report.html and report.md of a run, finished or not; of several, such as one recipe with several seeds,
    also print the mean and the range of each figure.

    Examples:

        llmkit report runs/tiny-assistant

        llmkit report runs/tiny-assistant --json

        llmkit report runs/seed-1 runs/seed-2 runs/seed-3
    """
    from llmkit.cli.report import report as command

    command(run_folders, as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors that complete and check YAML.

    Examples:

        llmkit schema > recipe.schema.json
    """
    from llmkit.cli.schema import print_schema

    print_schema()


def main() -> None:
    """Entry point: errors for people on stderr, exit code 2 for what the user can mend, 130 after Ctrl-C."""
    try:
        app()
    except LlmkitError as error:
        for line in str(error).splitlines():
            indented = line.startswith((" ", "log: ", "go on with: "))
            print(line if indented else f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
