"""Reward models: a causal model's body with one score in place of its vocabulary, and what is known of its scores.

model/                 the model (an ensemble: model/0, model/1, ...) with its tokenizer
model/reward.json      RewardCard: members, the scale of each one's scores, tokenizer and template
model/prompts.npy      hashes of the prompts that it was trained on
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.files import read_json
from llmkit.chat.template import template_of
from llmkit.errors import ModelError
from llmkit.modeling.load import keep_gradients, load_config, load_tokenizer, weight_options
from llmkit.modeling.source import source_of

CARD, PROMPTS = "reward.json", "prompts.npy"
HEAD = "score"


class RewardCard(BaseModel):
    """What a reward model says of itself."""

    model_config = ConfigDict(extra="forbid")

    members: list[str]
    """Folders beside this file; `.` for a single model."""
    means: list[float]
    """Of each member's scores, over the held-out answers."""
    deviations: list[float]
    low: list[float]
    """0.5 % quantile of each member's scores."""
    high: list[float]
    """99.5 % quantile."""
    max_length: int
    """Tokens of a prompt with its answer."""
    tail_ids: list[int] = []
    """Tokens that it reads behind an answer's stop token."""
    dtype: str = "float32"
    """In which it is loaded."""
    chat_template_sha256: str | None = None
    seed: int
    accuracy: float | None = None
    """Of all members together, on held-out pairs."""


def load_scorer(
    name_or_path: str,
    *,
    seed: int,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    num_layers: int | None = None,
) -> PreTrainedModel:
    """A causal model's weights with a new head that gives one score. `seed` draws the head.

    Args:
        num_layers: keep the first so many layers.

    Raises:
        ModelError: the architecture has no such form, or fewer layers.
    """
    config = load_config(name_or_path, revision)
    text = config.get_text_config()
    if num_layers is not None:
        if num_layers > text.num_hidden_layers:
            what = f"has {text.num_hidden_layers} layers, and 'num_layers' is {num_layers}"
            raise ModelError(name_or_path, what, "set it lower, or leave it out")
        text.num_hidden_layers = num_layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:num_layers]
    from trl.trainer.reward_trainer import suppress_seqcls_warning  # with it comes peft, and seconds

    config.num_labels = 1
    options = weight_options(dtype, attn_implementation, quantization)
    set_seed(seed)
    with source_of(name_or_path, revision) as source, suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(source, revision=revision, config=config, **options)
    _check_head(model, name_or_path)
    return keep_gradients(model)


def load_finished(
    name_or_path: str, *, dtype: str = "float32", attn_implementation: str | None = None, revision: str | None = None
) -> PreTrainedModel:
    """A model that scores already, such as TRL's RewardTrainer leaves.

    Raises:
        ModelError: it is none, or gives more than one score.
    """
    config = load_config(name_or_path, revision)
    names = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in names):
        what = f"is no reward model ({', '.join(names) or 'it names no architecture'})"
        raise ModelError(name_or_path, what, "name one, or leave 'train: false' out to make one of it")
    if config.num_labels != 1:
        what = f"gives {config.num_labels} numbers for a text, and a reward model gives one"
        raise ModelError(name_or_path, what, "name another")
    options = weight_options(dtype, attn_implementation)
    with source_of(name_or_path, revision) as source:
        model, told = AutoModelForSequenceClassification.from_pretrained(
            source, revision=revision, config=config, output_loading_info=True, **options
        )
    _check_head(model, name_or_path)
    if told["missing_keys"]:
        what = f"lacks weights ({', '.join(sorted(told['missing_keys'])[:3])})"
        raise ModelError(name_or_path, what, "check that it is complete, or name another")
    return keep_gradients(model)


def _check_head(model: PreTrainedModel, name_or_path: str) -> None:
    if not isinstance(getattr(model, HEAD, None), nn.Linear):
        what = f"{type(model).__name__} has no linear layer '{HEAD}' that gives the score"
        raise ModelError(name_or_path, what, "use a decoder such as Llama, Qwen, Mistral, OLMo or Gemma")


def keep_scores_exact(model: nn.Module) -> None:
    """Lets the head compute in float32 also where the body runs in 16 bits: there two of three close scores are one."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] != HEAD:
            continue
        copies = getattr(module, "modules_to_save", None)  # of an adapter
        heads = copies.values() if isinstance(copies, nn.ModuleDict) else [module]
        for head in heads:
            if isinstance(head, nn.Linear):
                head.forward = _exact(head)  # type: ignore[method-assign]


def _exact(head: nn.Linear) -> Any:
    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), head.weight.float())

    return forward


class RewardModels:
    """The members of one `reward` stage, on one device, scoring texts. Made by `load_rewards`.

    Attributes:
        card: what is known of their scores.
        tokenizer: theirs; the policy's may be another.
    """

    def __init__(
        self, card: RewardCard, members: Sequence[PreTrainedModel], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.card, self.members, self.tokenizer = card, list(members), tokenizer

    @torch.inference_mode()
    def raw(self, rows_ids: Sequence[Sequence[int]], batch_size: int = 64) -> np.ndarray:
        """Scores of token sequences as the members give them, (N, M) float64."""
        rows_ids = [[*ids, *self.card.tail_ids] for ids in rows_ids]
        found_NM = np.empty((len(rows_ids), len(self.members)))
        order = sorted(range(len(rows_ids)), key=lambda row: -len(rows_ids[row]))
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            ids_NT, mask_NT = padded([rows_ids[row] for row in part], self.tokenizer.pad_token_id)
            for place, model in enumerate(self.members):
                scores = score(model, ids_NT.to(model.device), mask_NT.to(model.device))
                found_NM[part, place] = scores.double().cpu().numpy()
        return found_NM

    def scaled(self, raw_NM: np.ndarray) -> np.ndarray:
        """With mean 0 and deviation 1 over the answers that the members were measured on."""
        scaled: np.ndarray = (raw_NM - np.array(self.card.means)) / np.array(self.card.deviations)
        return scaled


def score(model: PreTrainedModel, ids_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """(N,) float32: the score at each row's last token. Rows are padded on the right."""
    scores_N: Tensor = model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False).logits[:, 0].float()
    return scores_N


def padded(rows_ids: Sequence[Sequence[int]], pad_token_id: int, multiple: int | None = None) -> tuple[Tensor, Tensor]:
    """(N, T) ids, padded on the right, and (N, T) mask. Args: multiple: T is a multiple of it."""
    width = max(map(len, rows_ids))
    if multiple:
        width = -(-width // multiple) * multiple
    ids_NT = torch.full((len(rows_ids), width), pad_token_id, dtype=torch.long)
    mask_NT = torch.zeros((len(rows_ids), width), dtype=torch.long)
    for row, ids in enumerate(rows_ids):
        ids_NT[row, : len(ids)] = torch.tensor(list(ids))
        mask_NT[row, : len(ids)] = 1
    return ids_NT, mask_NT


def load_rewards(folder: Path, *, device: torch.device | str = "cpu") -> RewardModels:
    """The reward model in a folder that a `reward` stage left.

    Raises:
        ModelError: it is no such folder, is not whole, or its template was changed.
    """
    reader = load_reader(folder)
    for name in reader.card.members:
        with source_of(str(folder / name), None) as source:
            model = AutoModelForSequenceClassification.from_pretrained(source, **weight_options(reader.card.dtype))
        keep_scores_exact(model)
        reader.members.append(model.to(device).eval().requires_grad_(False))
    return reader


def load_reader(folder: Path) -> RewardModels:
    """The reward model without its members: what it can read is told without its weights. Raises as `load_rewards`."""
    try:
        card = RewardCard.model_validate(read_json(folder / CARD))
    except (OSError, ValueError) as error:
        what = f"holds no reward model of llmkit ({str(error).splitlines()[0]})"
        raise ModelError(str(folder), what, "name the model folder of a 'reward' stage") from None
    return RewardModels(card, [], _tokenizer(folder, card))


def _tokenizer(folder: Path, card: RewardCard) -> PreTrainedTokenizerBase:
    """Raises ModelError where its template is not the one that the model was trained with."""
    tokenizer = load_tokenizer(str(folder / card.members[0]))
    template = template_of(tokenizer)
    if (template.sha256 if template else None) != card.chat_template_sha256:
        what = "has another chat template than it was trained with: its scores would be of texts that it has never seen"
        raise ModelError(str(folder), what, "put its chat_template.jinja back, or train it again")
    return tokenizer
