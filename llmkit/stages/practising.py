"""The steps that `grpo` and `rloo` share, in the order in which a stage takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, Trainer
from trl import GRPOConfig, RLOOConfig

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.manifest import DataSummary, Manifest
from llmkit.chat.template import template_of
from llmkit.data.problems import Problem, Problems
from llmkit.errors import TemplateError, UserError
from llmkit.knowledge.store import Steps
from llmkit.modeling.adapter import let_fused_head_read, lora_config
from llmkit.modeling.load import load_spec
from llmkit.modeling.tokens import fit_model, prepare_tokenizer
from llmkit.recipe.practice import FilterSpec
from llmkit.recipe.stages import GrpoStage, PracticeStage
from llmkit.stages.at_hand import schemas_of, tools_of
from llmkit.stages.callbacks import last_checkpoint, step_of
from llmkit.stages.common import Worker
from llmkit.stages.heldout import is_sharded
from llmkit.stages.measuring import MeasureCallback, Measured, curves
from llmkit.stages.monitors import BorderCallback, MonitorCallback
from llmkit.stages.practice import Practice, PracticeMixin
from llmkit.stages.pretrain import input_tokenizer
from llmkit.stages.problems import read_problems
from llmkit.stages.prompting import fitting
from llmkit.stages.prompts import PromptStream
from llmkit.stages.rollouts import NAME, Rollouts, shown
from llmkit.stages.scoring import Scorer
from llmkit.stages.sft import chat_template
from llmkit.stages.solving import attempt_chunks, share_right
from llmkit.stages.talking import check_tools
from llmkit.stages.training import save, train_between, trainer_config
from llmkit.tools.toolbox import Toolbox

FILTERED = "filter"
"""Step with the pass rates of `sampling.filter`: its files are in data/steps."""
CHUNK = 256
"""Problems per chunk of it."""


@dataclass(frozen=True)
class Prepared:
    """All that is proved before the model loads."""

    tokenizer: PreTrainedTokenizerBase
    new_tokens: list[str]
    scorer: Scorer
    problems: Problems
    heldout: dict[str, Problems]
    allowed: list[int]
    """Numbers of the problems whose prompts leave room for an answer."""


def practise(worker: Worker, config: type[GRPOConfig] | type[RLOOConfig], kind: type[PracticeMixin]) -> Manifest:
    args = practice_args(worker, config)
    with tools_of(worker) as tools:
        return _practise(worker, args, prepare(worker, args, tools=tools), kind, tools)


def _practise(
    worker: Worker, args: Any, prepared: Prepared, kind: type[PracticeMixin], tools: Toolbox | None
) -> Manifest:
    stage = practice_stage(worker)
    trainer = build_trainer(worker, args, prepared, kind, tools)
    practice: Practice = trainer.practice
    drop_rollouts(worker, trainer)
    if stage.sampling.filter is not None:
        allowed = filtered(worker, trainer, prepared, stage.sampling.filter)
        practice.stream = stream_of(stage, prepared.problems, allowed, prepared.scorer.is_checked)
        trainer.train_dataset = _counting(len(allowed), args)

    measured = Measured(worker, trainer, practice, prepared.heldout, stage.measure, is_sharded=practice.batch_size == 0)
    own = (
        MeasureCallback(measured, stage.measure.every),
        practice.monitor,
        BorderCallback(trainer, practice.monitor),
    )
    for callback in own:
        trainer.add_callback(callback)
    before, after, metrics, seconds = train_between(worker, trainer, measured)
    for when, numbers in (("before", before), ("after", after)):
        metrics |= {f"heldout/{name}/{when}/{key}": x for name, found in numbers.items() for key, x in found.items()}
    return finish(worker, trainer, prepared, metrics, seconds)


def drop_rollouts(worker: Worker, trainer: Any) -> None:
    """Those of steps that will be done again: all, where an earlier start was killed before its first checkpoint."""
    checkpoint = last_checkpoint(worker.dir.checkpoints)
    if worker.is_main:
        trainer.practice.rollouts.drop_after(-1 if checkpoint is None else step_of(checkpoint))
    trainer.accelerator.wait_for_everyone()


def practice_stage(worker: Worker) -> PracticeStage:
    stage = worker.file.stage
    assert isinstance(stage, PracticeStage), stage.kind
    return stage


def practice_args(worker: Worker, config: type[Any]) -> Any:
    """The trainer's config. TRL loads the reference model by itself, from the revision that is named here."""
    stage, model = practice_stage(worker), worker.file.model
    fixed: dict[str, Any] = {"shuffle_dataset": False}
    if worker.file.parent is None and model.revision is not None:
        fixed["model_init_kwargs"] = {"revision": model.revision}
    if stage.trainer.get("sync_ref_model"):
        # TRL does not save the reference, so a stage that went on from a checkpoint would train against another one
        fixed["save_strategy"] = "no"
        worker.warn("with 'sync_ref_model' no checkpoints are saved: a stage that is killed begins anew")
    return trainer_config(worker, config, (), **fixed)


def prepare(worker: Worker, args: Any, scorer: Any = None, tools: Toolbox | None = None) -> Prepared:
    """Tokens, rewards and problems.

    Args:
        scorer: in place of the stage's rewards, used as `Scorer` is.
        tools: at hand while answers are written.
    """
    stage = practice_stage(worker)
    tokenizer, max_positions = input_tokenizer(worker)
    template = chat_template(worker, tokenizer)
    new_tokens = prepare_tokenizer(tokenizer, template)
    if new_tokens:
        what = f"the model has never seen the tokens of its chat template ({', '.join(new_tokens)})"
        raise TemplateError("model.chat_template", what, "fine-tune it with an 'sft' stage first, or leave it out")
    if tools is not None:
        check_tools(tokenizer, tools.schemas, exact=True)
    where = f"stage '{stage.name}': rewards"
    checkable = scorer is None
    scorer = scorer or Scorer(stage.rewards, where)
    chat = template is not None
    with args.main_process_first(local=False, desc="read problems"):
        problems = read_problems(worker, stage.data, rejected_file=worker.dir.rejected, chat=chat)
        heldout = {
            name: read_problems(worker, sources, rejected_file=None, chat=chat)
            for name, sources in stage.heldout.items()
        }
    sampling = stage.sampling
    needs = sampling.filter is not None or sampling.curriculum is not None
    needs |= checkable and (sampling.resample > 0 or bool(heldout))
    scorer.check(problems, checked="some" if needs else "none")
    for each in heldout.values():
        scorer.check(each, checked="all" if checkable else "none")
    for name, each in heldout.items():
        if num := len(each.shared_with(problems)):
            worker.warn(f"{num} of the {len(each)} held-out problems of '{name}' are also practised on")
    scorer.check_gold(problems, worker.warn)
    allowed = fitting(
        problems,
        tokenizer,
        max_positions,
        max_truncated=stage.max_truncated,
        where=f"stage '{stage.name}': data",
        warn=worker.warn,
        schemas=schemas_of(tools),
    )
    return Prepared(tokenizer, new_tokens, scorer, problems, heldout, allowed)


def stream_of(
    stage: PracticeStage, problems: Problems, allowed: Sequence[int], is_checked: Callable[[Problem], bool]
) -> PromptStream:
    """Args: is_checked: whether something says if answers to a problem are right. What nothing checks has no level."""
    curriculum = stage.sampling.curriculum
    levels = problems.levels(curriculum.column, is_checked) if curriculum is not None else None
    assert stage.seed is not None
    return PromptStream(allowed, stage.seed, levels, curriculum)


def build_trainer(worker: Worker, args: Any, prepared: Prepared, kind: type[Any], tools: Toolbox | None = None) -> Any:
    """Loads the model. Raises UserError as TRL refuses."""
    stage, file = practice_stage(worker), worker.file
    assert file.input_model is not None
    assert stage.seed is not None
    peft, tokenizer = stage.peft, prepared.tokenizer
    model = load_spec(
        file.model, file.input_model, file.parent is None, quantization=peft.quantization if peft else None
    )
    fit_model(model, tokenizer, [])
    template = template_of(tokenizer)
    token_ids = tokenizer.convert_tokens_to_ids(sorted(template.special_tokens)) if template else []
    weights = dict(zip(prepared.scorer.labels, prepared.scorer.weights_F.tolist(), strict=True))
    practice = Practice(
        problems=prepared.problems,
        stream=stream_of(stage, prepared.problems, prepared.allowed, prepared.scorer.is_checked),
        scorer=prepared.scorer,
        tokenizer=tokenizer,
        rollouts=Rollouts(worker.dir.data, worker.dir.checkpoints / NAME, PartialState().process_index),
        seed=stage.seed,
        max_new_tokens=args.max_completion_length,
        temperature=args.temperature,
        top_p=args.top_p,
        resample=stage.sampling.resample,
        screen=stage.sampling.screen,
        batch_size=min(stage.batch_size, args.generation_batch_size // args.world_size),
        monitor=MonitorCallback(worker, stage, weights),
        tools=tools,
        max_calls=stage.max_calls if isinstance(stage, GrpoStage) else 0,
    )
    try:
        trainer = kind(
            model=model,
            reward_funcs=[_named(label) for label in prepared.scorer.labels],
            args=args,
            train_dataset=_counting(len(prepared.allowed), args),
            processing_class=tokenizer,
            peft_config=lora_config(peft, model, token_ids, worker.file.revision) if peft else None,
            practice=practice,
        )
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"stage '{stage.name}': trainer", str(error).strip().splitlines()[0]) from error
    trainer.reward_weights = trainer.reward_weights.new_tensor(prepared.scorer.weights_F.tolist())
    if peft:
        let_fused_head_read(trainer.model.get_base_model())
    if is_sharded(trainer):
        practice.batch_size = 0
        if tools is not None:
            raise UserError(f"stage '{stage.name}': tools", "the model's weights are sharded", "use zero2 or ddp")
        if stage.sampling.resample or stage.sampling.filter:
            what = "asks a model whose weights are sharded"
            raise UserError(f"stage '{stage.name}': sampling", what, "use zero2 or ddp, or leave it out")
    return trainer


def _counting(num_problems: int, args: Any) -> datasets.Dataset:
    """TRL's sampler only counts: a row per problem, but no generation batch that is short."""
    num_prompts = args.generation_batch_size // args.num_generations
    return datasets.Dataset.from_dict({"prompt": [""] * (-(-max(num_problems, 1) // num_prompts) * num_prompts)})


def _named(label: str) -> Any:
    """TRL names its curves after functions; the scores come from `PracticeMixin`."""

    def reward(**_: Any) -> list[float]:
        raise AssertionError("scored before")

    reward.__name__ = label
    return reward


def filtered(worker: Worker, trainer: Trainer, prepared: Prepared, spec: FilterSpec) -> list[int]:
    """Numbers of the problems of which neither too few nor too many answers are right, and of all that nothing checks.
    Every chunk stays on disk."""
    stage, state, steps = practice_stage(worker), PartialState(), Steps(worker.dir.data / "steps")
    practice: Practice = trainer.practice
    if worker.is_main:
        steps.begin({FILTERED: sha256_of([worker.file.fingerprint, CHUNK])})
    state.wait_for_everyone()
    asked = [number for number in prepared.allowed if prepared.scorer.is_checked(prepared.problems[number])]
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    model = trainer.accelerator.unwrap_model(trainer.model)
    engine = practice.engine(model)
    attempt_chunks(
        worker,
        state,
        steps,
        FILTERED,
        chunks,
        prepared.problems,
        lambda number, made: {
            "problem": number,
            "share": share_right(made),
            "num_tokens": sum(one.num_tokens for one in made),
        },
        engine,
        practice.scorer,
        (practice.temperature,) * spec.num_samples,
        max_new_tokens=practice.max_new_tokens,
        top_p=practice.top_p,
        seed=practice.seed + 1,
    )
    tried = list(steps.rows(FILTERED, len(chunks)))
    shares = {row["problem"]: row["share"] for row in tried}
    practice.num_tried = sum(row["num_tokens"] for row in tried)
    low, high = spec.keep
    kept = [number for number, share in shares.items() if low <= share <= high]
    easy, hard = (sum(share > high for share in shares.values()), sum(share < low for share in shares.values()))
    if worker.is_main:
        print(f"kept {len(kept)} of {len(shares)} problems: {hard} were too hard, {easy} too easy", flush=True)
    if not kept:
        what = f"no problem is solved with a share from {low:g} to {high:g}: {hard} less often, {easy} more often"
        raise UserError(f"stage '{stage.name}': sampling.filter", what, "widen 'keep', or take other problems")
    dropped = set(asked) - set(kept)
    return [number for number in prepared.allowed if number not in dropped]


def finish(worker: Worker, trainer: Any, prepared: Prepared, metrics: dict[str, float], seconds: float) -> Manifest:
    practice: Practice = trainer.practice
    folders = save(worker, trainer, prepared.tokenizer, [])
    practice.rollouts.flush(trainer.state.global_step)
    trainer.accelerator.wait_for_everyone()
    if worker.is_main:
        practice.rollouts.join()
    template, problems = template_of(prepared.tokenizer), prepared.problems
    counted = {
        "sampled_tokens": float(practice.num_tokens + practice.num_tried),
        "sampled_groups": float(practice.num_groups),
        "useful_groups": practice.num_useful / max(practice.num_groups, 1),
        "problems": float(len(practice.stream.allowed)),
    }
    return worker.manifest(
        **folders,
        data_dir=worker.dir.data.name,
        chat_template_sha256=template.sha256 if template else None,
        stop_token=template.stop_token if template else None,
        metrics={**metrics, **counted, "train_seconds": seconds},
        curves=curves(worker.dir.metrics) if worker.is_main else [],
        data=DataSummary(sources=problems.counts, num_rows=len(problems), rejected_file=problems.rejected_file),
        samples=shown(worker.dir.data, checked=bool(prepared.scorer.correctness)) if worker.is_main else [],
        tokens_per_second=practice.num_tokens / seconds if seconds else None,
    )
