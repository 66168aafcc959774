"""A conversation with a model: history, settings, and answers that stream."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, fields, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.render import prompt_ids, render_text
from llmkit.chat.template import Message
from llmkit.errors import DataError, UserError
from llmkit.generation.choose import Sampling
from llmkit.generation.decode import context_length
from llmkit.generation.stream import stream


@dataclass(frozen=True)
class Settings:
    """What `/set` and the options change."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 256
    seed: int = 0

    @classmethod
    def of_model(cls, model: PreTrainedModel) -> Settings:
        """What the model's generation config recommends; greedy where it says nothing of sampling."""
        config = model.generation_config
        if config is None or not config.do_sample:
            return cls()
        found = {name: getattr(config, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        return cls(**{name: value for name, value in found.items() if value is not None})

    def changed(self, assignment: str) -> Settings:
        """By `name=value`. Raises UserError for a name or value that does not fit."""
        name, _, value = (part.strip() for part in assignment.partition("="))
        kinds = {field.name: type(getattr(Settings(), field.name)) for field in fields(self)}
        if name not in kinds:
            raise UserError(name or "/set", "is no setting", f"have {', '.join(kinds)}, as in temperature=0.7")
        try:
            made = replace(self, **{name: kinds[name](value)})
        except ValueError:
            raise UserError(name, f"cannot be '{value}'", f"give a number ({kinds[name].__name__})") from None
        if made.max_new_tokens < 1:
            raise UserError(name, f"cannot be {value}", "give 1 or more")
        made.sampling()
        return made

    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


@dataclass
class Conversation:
    """Turns so far, and how the next answer is made."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    system: str | None = None
    raw: bool = False
    """The model goes on from the text as it stands: no template, no history."""
    notify: Callable[[str], None] = print
    turns: list[Message] = field(default_factory=list)

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def reset(self) -> None:
        self.turns = []

    def ask(self, text: str) -> Generator[str]:
        """The answer in pieces. However it ends, what was written of it is kept as the model's turn.

        Raises:
            DataError: the text alone does not fit into the model's context.
        """
        ids = self._raw_ids(text) if self.raw else self._chat_ids(text)
        settings = self.settings
        answer = ""
        # another seed for every turn: the same random numbers would favour the same words
        seed = settings.seed + len(self.turns)
        pieces = stream(
            self.model,
            self.tokenizer,
            ids,
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling(),
            seed=seed,
        )
        try:
            for piece in pieces:
                answer += piece
                yield piece
        finally:
            if not self.raw:
                self.turns.append({"role": "assistant", "content": answer})

    def _raw_ids(self, text: str) -> list[int]:
        ids = render_text(self.tokenizer, text, add_eos=False).input_ids
        self._refuse_too_long(ids)
        return ids

    def _chat_ids(self, text: str) -> list[int]:
        """Drops the oldest turns, in pairs, until the rest and an answer fit."""
        kept = [*self.turns, {"role": "user", "content": text}]
        ids = self._render(kept)
        while len(ids) > self._room() and len(kept) > 1:
            kept = kept[2:]
            ids = self._render(kept)
        self._refuse_too_long(ids)
        dropped = len(self.turns) + 1 - len(kept)
        if dropped:
            self.notify(f"the context is full: the oldest {dropped} messages are forgotten")
        self.turns = kept
        return ids

    def _render(self, turns: list[Message]) -> list[int]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return prompt_ids(self.tokenizer, [*first, *turns])

    def _room(self) -> int:
        """Tokens of the prompt that leave room for an answer, at most a quarter of the context."""
        context = context_length(self.model)
        return context - min(self.settings.max_new_tokens, context // 4)

    def _refuse_too_long(self, ids: list[int]) -> None:
        if len(ids) > self._room():
            what = f"has {len(ids)} tokens, and the model's context leaves {self._room()} beside an answer"
            raise DataError("your message", what, "shorten it")
