"""A conversation with a model: history, settings, and answers that stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.pieces import Pieces, Reader
from llmkit.chat.render import prompt_ids, render_text
from llmkit.chat.template import Message
from llmkit.chat.turn import Turn
from llmkit.errors import DataError, UserError
from llmkit.generation.choose import Sampling
from llmkit.generation.decode import Row, context_length, stop_ids
from llmkit.generation.stream import stream_row
from llmkit.generation.thought import thought_limit


@dataclass(frozen=True)
class Settings:
    """What `/set` and the options change."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 256
    max_thinking_tokens: int = -1
    """Of reasoning, which is then ended for the model; -1: no limit."""
    seed: int = 0

    @classmethod
    def of_model(cls, model: PreTrainedModel) -> Settings:
        """As `of_config`, of the model's own."""
        return cls.of_config(model.generation_config)

    @classmethod
    def of_config(cls, config: GenerationConfig | None) -> Settings:
        """What a generation config recommends; greedy where it says nothing of sampling.

        Raises:
            UserError: it recommends what cannot be.
        """
        if config is None or not config.do_sample:
            return cls()
        found = {name: getattr(config, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        made = cls(**{"temperature": 1.0, **{name: value for name, value in found.items() if value is not None}})
        try:
            made.sampling()
        except UserError as error:
            raise UserError("generation_config.json", f"of the model cannot be used: {error}", "mend it") from None
        return made

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
        if made.max_thinking_tokens < -1:
            raise UserError(name, f"cannot be {value}", "give 0 or more, or -1 for no limit")
        made.sampling()
        return made

    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


@dataclass
class Conversation:
    """Turns so far, and how the next answer is made.

    Attributes:
        tools: schemas of tools that the model may call. Who calls `ask` does not make the calls: `begin`, `write` and
            `keep` are for that.
        row: what was written last, also of an answer that was broken off.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    system: str | None = None
    raw: bool = False
    """The model goes on from the text as it stands: no template, no history."""
    notify: Callable[[str], None] = print
    turns: list[Message] = field(default_factory=list)
    tools: Sequence[dict[str, Any]] = ()
    row: Row | None = None
    pieces: Pieces | None = None

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def num_thought(self) -> int:
        """Tokens of reasoning in what was written last."""
        return self.pieces.num_thought if self.pieces else 0

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.tokenizer, frozenset(stop_ids(self.model, self.tokenizer)))

    def reset(self) -> None:
        self.turns = []

    def change(self, assignment: str) -> None:
        """By `name=value`. Raises UserError for what does not fit, also a limit on reasoning of a model without any."""
        changed = self.settings.changed(assignment)
        if changed.max_thinking_tokens >= 0 and not self.reader.reasons:
            what = "this model's chat template has no place for reasoning (<think>)"
            raise UserError("max_thinking_tokens", what, "leave it at -1")
        self.settings = changed

    def ask(self, text: str) -> Generator[str]:
        """The answer in pieces, of which a `Thought` is reasoning. However it ends, what was written of it is kept as
        the model's turn.

        Raises:
            DataError: the text alone does not fit into the model's context.
        """
        if self.raw:
            yield from self.write(self._raw_ids(text), self._seed())
            return
        ids = self._ids(self.begin(text))
        try:
            yield from self.write(ids, self._seed())
        finally:
            self.turns.append(self.reader.turn(ids, self.row.ids if self.row else [], calls=False).message())

    def begin(self, text: str) -> list[Message]:
        """The prompt that asks this, without the oldest turns where they do not fit; the history ends with the text.

        Raises:
            DataError: the text alone does not fit into the model's context.
        """
        kept = [*self.turns, {"role": "user", "content": text}]
        ids = self._ids(self._prompt(kept))
        while len(ids) > self._room() and (rest := _without_oldest(kept)):
            kept, ids = rest, self._ids(self._prompt(rest))
        self._refuse_too_long(ids)
        dropped = len(self.turns) + 1 - len(kept)
        if dropped:
            self.notify(f"the context is full: the oldest {dropped} messages are forgotten")
        self.turns = kept
        return self._prompt(kept)

    def write(self, ids: list[int], seed: int) -> Generator[str]:
        """One turn behind these ids, in pieces; `row` and `pieces` hold what it was."""
        settings, calls = self.settings, bool(self.tools) and not self.raw
        limit = settings.max_thinking_tokens
        rows = stream_row(
            self.model,
            self.tokenizer,
            ids,
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling(),
            stop_token_ids=list(self.reader.stops),
            seed=seed,
            force=None if limit < 0 or self.raw else thought_limit(self.tokenizer, ids, limit),
        )
        reader = Reader(self.tokenizer, self.reader.stops, plain=True) if self.raw else self.reader
        self.row, self.pieces = None, reader.pieces(ids, calls=calls)
        for self.row in rows:
            yield from self.pieces.next(self.row.ids, is_last=self.row.finish_reason is not None)

    def several(self, prompt: list[Message], num: int) -> list[Turn]:
        """So many turns behind a prompt of `begin`, each with random numbers of its own."""
        ids, found = self._ids(prompt), list[Turn]()
        for place in range(num):
            # turns count by one in a seed, so that answers to one turn must be further apart
            for _ in self.write(ids, self._seed() + place * 1_000_003):
                pass
            found.append(self.reader.turn(ids, self.row.ids if self.row else [], calls=False))
        return found

    def keep(self, messages: list[Message]) -> None:
        """What a prompt of `begin` has become."""
        self.turns = messages[len(self._prompt([])) :]

    def _seed(self) -> int:
        # another seed for every turn: the same random numbers would favour the same words
        return self.settings.seed + len(self.turns)

    def _raw_ids(self, text: str) -> list[int]:
        ids = render_text(self.tokenizer, text, add_eos=False).input_ids
        self._refuse_too_long(ids)
        return ids

    def _prompt(self, turns: list[Message]) -> list[Message]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *turns]

    def _ids(self, messages: list[Message]) -> list[int]:
        return prompt_ids(self.tokenizer, messages, tools=list(self.tools) or None)

    def _room(self) -> int:
        """Tokens of the prompt that leave room for an answer, at most a quarter of the context."""
        context = context_length(self.model)
        return context - min(self.settings.max_new_tokens, context // 4)

    def _refuse_too_long(self, ids: list[int]) -> None:
        if len(ids) > self._room():
            what = f"has {len(ids)} tokens, and the model's context leaves {self._room()} beside an answer"
            raise DataError("your message", what, "shorten it")


def _without_oldest(turns: list[Message]) -> list[Message]:
    """From the second message of the user's on; a call is never parted from its result."""
    later = [place for place, turn in enumerate(turns) if turn["role"] == "user"][1:]
    return turns[later[0] :] if later else []
