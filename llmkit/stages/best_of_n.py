"""Rejection sampling: a model answers every problem many times, and right answers become training rows.

With an `sft` stage on its rows it is one round of expert iteration (STaR, Zelikman et al. 2022, arXiv 2203.14465;
rejection sampling fine-tuning, Yuan et al. 2023, arXiv 2308.01825); a recipe may have several. Where nobody can check
the answers, a `reward_model` says which of a prompt's is best.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.best_of_n recipe.yaml --stage best

data/train.jsonl       the kept answers as conversations, for `{from: <this stage>}`; with tools all turns and results
data/attempts.jsonl    every problem with all its answers and scores, with tools also the calls and their results

Processes share the problems out, chunk by chunk (with several hosts on a disk that they share); a stage that was
stopped goes on with the chunks that it has.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.manifest import DataSummary, Manifest, Sample
from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.told import num_calls, transcript, whole_of
from llmkit.chat.turn import answer_to
from llmkit.data.problems import Problem, Problems
from llmkit.errors import UserError
from llmkit.generation.choose import hash_of
from llmkit.intervals import means_of
from llmkit.knowledge.store import Steps, writing
from llmkit.recipe.preference import best_of_n_kl
from llmkit.recipe.stages import BestOfNStage
from llmkit.stages.asked import chunks_of, processes
from llmkit.stages.at_hand import schemas_of, tools_of, with_tools
from llmkit.stages.common import Worker, main, where_of
from llmkit.stages.engines import AskedModel, check_installed
from llmkit.stages.preferring import MODEL, PreferenceScorer, open_rewards
from llmkit.stages.problems import read_problems
from llmkit.stages.scoring import Scorer
from llmkit.stages.solving import Attempt, attempt_chunks, numbers_of, share_right
from llmkit.stages.talking import check_tools
from llmkit.tools.toolbox import Toolbox

ATTEMPTS, TRAIN = "attempts", "train"
CHUNK = 128
"""Problems per chunk: the same for any number of processes, so that the answers are."""
_KEEPING = ("num_kept", "prefer", "skip_easy")
_WORDS = re.compile(r"\d+(?:\.\d+)?|\w+|[-+*/=<>^%]")


def run(worker: Worker) -> Manifest:
    stage, file = best_stage(worker), worker.file
    state, steps = processes(worker), Steps(worker.dir.data / "steps")
    assert file.input_model is not None
    check_installed(stage.engine, file.input_model, file.revision)
    asked = AskedModel(worker, stage.engine, stage.batch_size)
    with tools_of(worker) as tools:
        return sample(worker, state, steps, asked, tools)


def sample(worker: Worker, state: PartialState, steps: Steps, asked: AskedModel, tools: Toolbox | None) -> Manifest:
    """Has the problems attempted, and keeps what is right."""
    stage, file = best_stage(worker), worker.file
    problems, scorer = prepare(worker, asked, tools)
    if worker.is_main:
        steps.begin({ATTEMPTS: attempts_key(file)})
    state.wait_for_everyone()
    chunks = chunks_of(len(problems), CHUNK)
    rate = attempt_chunks(
        worker,
        state,
        steps,
        ATTEMPTS,
        chunks,
        problems,
        lambda number, made: {"problem": number, "attempts": [one.as_row() for one in made]},
        with_tools(asked.engine, asked.tokenizer, tools, stage.max_calls),
        scorer,
        (stage.temperature,) * stage.num_samples,
        max_new_tokens=stage.max_new_tokens,
        top_p=stage.top_p,
        seed=file.seed,
    )
    if not worker.is_main:
        return worker.manifest()
    return keep(worker, problems, steps, len(chunks), rate, schemas_of(tools))


def attempts_key(file: StageFile) -> str:
    """What the answers and their scores depend on: not on which of them are kept."""
    # without named parts (a stage file written by hand) all depends on all
    parts = file.inputs or {"fingerprint": file.fingerprint}
    return sha256_of({name: part for name, part in parts.items() if name not in _KEEPING})


def best_stage(worker: Worker) -> BestOfNStage:
    stage = worker.file.stage
    assert isinstance(stage, BestOfNStage), stage.kind
    return stage


def prepare(worker: Worker, asked: AskedModel, tools: Toolbox | None = None) -> tuple[Problems, Any]:
    """Problems, and rewards or reward models that are used as `Scorer` is: checked before anything is asked."""
    stage = best_stage(worker)
    if tools is not None:
        check_tools(asked.tokenizer, tools.schemas, exact=True)
    rejected_file = worker.dir.rejected if worker.is_main else None
    problems = read_problems(worker, stage.data, rejected_file=rejected_file, chat=asked.chat)
    problems = asked.fitting(problems, stage.max_truncated, schemas_of(tools))
    if stage.reward_model is None:
        scorer = Scorer(stage.rewards, where_of(worker, "rewards"))
        scorer.check(problems, checked="all")
        scorer.check_gold(problems, worker.warn)
        return problems, scorer
    folders = [Path(worker.file.data_stages[name]) for name in stage.reward_model.from_]
    by_model = PreferenceScorer(
        [open_rewards(folder, device=PartialState().device) for folder in folders],
        stage.reward_model,
        Scorer(stage.rewards, where_of(worker, "rewards")) if stage.rewards else None,
        weight=1.0,
        missing_eos_penalty=0.0,
        when={},
        where=where_of(worker, "reward_model"),
        tools=schemas_of(tools),
    )
    by_model.check(problems, checked="none")
    by_model.check_gold(problems, worker.warn)
    return problems, by_model


def keep(
    worker: Worker,
    problems: Problems,
    steps: Steps,
    num_chunks: int,
    rate: float | None,
    schemas: Sequence[dict[str, Any]] = (),
) -> Manifest:
    """Writes the rows, and says what became of the problems. Raises UserError where no answer is right.

    Args:
        schemas: of the tools at hand.
    """
    stage, folder = best_stage(worker), worker.dir.data
    counts: Counter[str] = Counter()
    values: dict[str, array[float]] = {}
    samples: list[Sample] = []
    with writing(folder / f"{TRAIN}.jsonl") as write, writing(folder / f"{ATTEMPTS}.jsonl") as write_all:
        for row in steps.rows(ATTEMPTS, num_chunks):
            problem, made = problems[row["problem"]], [Attempt(**each) for each in row["attempts"]]
            write_all({"prompt": problem.prompt, "place": problem.place, "attempts": row["attempts"]})
            numbers = numbers_of([made]) if stage.rewards else {}
            if stage.reward_model is not None:
                scores = [one.scores[MODEL] for one in made]
                numbers |= {"reward_model": [float(np.mean(scores))], "reward_model_of_best": [max(scores)]}
            if schemas:
                numbers["calls_per_answer"] = [float(np.mean([num_calls(one.messages) for one in made]))]
            for name, (value,) in numbers.items():
                values.setdefault(name, array("d")).append(value)
            share = share_right(made)
            counts["problems"] += 1
            if stage.rewards:
                counts["never solved"] += share == 0
                counts["too easy"] += share > stage.skip_easy
            if schemas:
                counts["unreadable"] += sum(_may_be_kept(one, stage) and not one.is_row for one in made)
            kept = [] if share > stage.skip_easy else chosen(made, stage, worker.file.seed, problem.key)
            counts["rows"] += len(kept)
            for one in kept:
                write(_training_row(problem, one, schemas))
            if kept and len(samples) < 3:
                said = transcript(kept[0].messages) or kept[0].text
                samples.append(Sample(prompt=problem.asked, completion=said, label="kept answer"))
    if not counts["rows"]:
        why = f"{counts['never solved']} were never solved" if stage.rewards else "all answers are cut off"
        what = f"none of {counts['problems']} problems gives a row ({why})"
        cure = "take easier problems, more 'num_samples', or look at data/attempts.jsonl"
        raise UserError(where_of(worker, "rewards"), what, cure)
    metrics = means_of(values)
    metrics |= {name.replace(" ", "_"): float(number) for name, number in counts.items()}
    if stage.reward_model is not None:
        metrics["kl"] = best_of_n_kl(stage.num_samples)
    if rate is not None:
        metrics["problems_per_second"] = rate
    return worker.manifest(
        data_dir=folder.name,
        metrics=metrics,
        samples=samples,
        data=DataSummary(sources=problems.counts, num_rows=counts["rows"], rejected_file=problems.rejected_file),
    )


def chosen(attempts: Sequence[Attempt], stage: BestOfNStage, seed: int, key: str) -> list[Attempt]:
    """Right answers of one problem, at most `num_kept`; of answers with the same words and numbers, calls included, the
    first alone. Where only a reward model says what is good, all that were not cut off may be kept."""
    distinct: dict[tuple[str, ...], Attempt] = {}
    for one in attempts:
        if one.is_row and _may_be_kept(one, stage):
            distinct.setdefault(tuple(_WORDS.findall(whole_of(one.text, one.messages).lower())), one)
    right = list(distinct.values())
    if stage.reward_model is not None:
        right.sort(key=lambda one: -one.scores[MODEL])
    elif stage.prefer == "shortest":
        right.sort(key=lambda one: one.num_tokens)
    elif stage.prefer == "reward":
        right.sort(key=lambda one: -one.total)
    else:
        order = np.random.default_rng(hash_of(seed, key, 0, 64)).permutation(len(right))
        right = [right[place] for place in order]
    return right[: stage.num_kept]


def _may_be_kept(one: Attempt, stage: BestOfNStage) -> bool:
    return one.is_right if stage.rewards else not one.is_truncated


def _training_row(problem: Problem, kept: Attempt, schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    said = answer_to(problem.prompt, kept.messages or kept.text)
    if isinstance(said, str):
        return {"prompt": problem.prompt, "completion": said}
    return {"messages": [*problem.prompt, *said]} | ({"tools": list(schemas)} if schemas else {})


if __name__ == "__main__":
    main("best_of_n", run)
