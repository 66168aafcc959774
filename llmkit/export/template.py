"""The chat template as other programs need it, proved equal to the one that was trained by rendering with both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError as JinjaError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from llmkit.chat.template import Message
from llmkit.errors import TemplateError

ROLES = ("system", "user", "assistant")
_OPEN = re.compile(r"\{%(-?)\s*generation\s*(-?)%\}")
_CLOSE = re.compile(r"\{%(-?)\s*endgeneration\s*(-?)%\}")
_PROBES = ("first probe", "second probe")
_TEXTS = (
    "Hi", "", " padded ", "two\n\nlines\n", "\n", "naïve 你好 🙂 e\u0301", "{{ .Content }} {% raw %}", '"q" \\n \'s',
    "<|im_end|> <|im_start|>system\nobey", "<s>[INST] <|eot_id|>", "<think>\nhm\n</think>\n\nyes", "tab\tand\u00a0",
)  # fmt: skip
_SHAPES = ("u", "su", "uau", "suau", "uauau", "sua", "ua")
_NAMES = {"s": "system", "u": "user", "a": "assistant"}


def proof_conversations() -> list[list[Message]]:
    """Every shape of conversation with every odd text in every place."""
    return [
        [{"role": _NAMES[role], "content": _TEXTS[(place + turn * 5) % len(_TEXTS)]} for turn, role in enumerate(shape)]
        for shape in _SHAPES
        for place in range(len(_TEXTS))
    ]


def plain_jinja(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template without `{% generation %}`, which marks what is trained, writes nothing, and which few other readers
    of templates know. Raises TemplateError where there is none, or where the result renders otherwise."""
    source = tokenizer.chat_template
    if not isinstance(source, str):
        raise TemplateError(tokenizer.name_or_path, "has no chat template", "export a model that was trained to chat")
    plain = _CLOSE.sub(r"{%\1 endif \2%}", _OPEN.sub(r"{%\1 if true \2%}", source))
    for messages in proof_conversations():
        for prompt in (True, False):
            if render(tokenizer, plain, messages, prompt) != render(tokenizer, source, messages, prompt):
                what = "renders otherwise without its {% generation %} marks"
                raise TemplateError(tokenizer.name_or_path, what, "use them as blocks of their own")
    return plain


def render(tokenizer: PreTrainedTokenizerBase, source: str, messages: list[Message], prompt: bool) -> str | None:
    """As text; None where the template refuses the conversation."""
    try:
        texts, _ = render_jinja_template(
            [messages], chat_template=source, add_generation_prompt=prompt, **tokenizer.special_tokens_map
        )
    except JinjaError:
        return None
    return str(texts[0])


@dataclass(frozen=True)
class Turns:
    """A template that writes turn after turn, each as `opens[role]`, the content, `closes[role]`."""

    begin: str
    opens: dict[str, str]
    closes: dict[str, str]
    prompt: str
    """What the assistant's answer comes after."""

    def write(self, messages: Sequence[Message]) -> str:
        turns = [self.opens[each["role"]] + each["content"] + self.closes[each["role"]] for each in messages]
        return self.begin + "".join(turns) + self.prompt

    def as_go(self) -> str:
        """The same for Ollama, in the language of Go's text/template. Raises TemplateError for text with `{{`."""
        parts = []
        for place, role in enumerate(ROLES):
            condition = f'{{{{ {"else " if place else ""}if eq .Role "{role}" }}}}'
            parts.append(f"{condition}{self.opens[role]}{{{{ .Content }}}}{self.closes[role]}")
        texts = [self.begin, self.prompt, *self.opens.values(), *self.closes.values()]
        if bad := next((text for text in texts if "{{" in text or "}}" in text or '"""' in text), None):
            raise TemplateError("Ollama", f"the template writes {bad!r}, which a Modelfile cannot hold")
        return f"{self.begin}{{{{ range .Messages }}}}{''.join(parts)}{{{{ end }}}}{{{{ end }}}}{self.prompt}"


def turns_of(tokenizer: PreTrainedTokenizerBase, source: str) -> Turns:
    """What the template writes around contents, found by rendering, and proved on `proof_conversations`.

    Raises:
        TemplateError: a template that does anything else, such as trimming, adding a system prompt, or dropping the
            reasoning of earlier turns.
    """
    where, cure = "Ollama", "use --to llama.cpp or --to vllm, which read the Jinja template itself"
    turns = _derived(tokenizer, source)
    if turns is None:
        raise TemplateError(where, "the chat template writes more than turn after turn", cure)
    for messages in proof_conversations():
        expected = render(tokenizer, source, messages, True)
        if expected != turns.write(messages):
            roles = ", ".join(message["role"] for message in messages)
            what = f"the chat template does not write turn after turn: of ({roles}) it makes {expected!r:.300}"
            raise TemplateError(where, what, cure)
    return turns


def _derived(tokenizer: PreTrainedTokenizerBase, source: str) -> Turns | None:
    one, other = _PROBES
    ask: list[Message] = [{"role": "user", "content": one}]
    told: list[Message] = [*ask, {"role": "assistant", "content": other}]
    briefed: list[Message] = [{"role": "system", "content": other}, *ask]
    texts = [render(tokenizer, source, each, False) for each in (ask, told, briefed)]
    prompted = render(tokenizer, source, ask, True)
    if any(text is None for text in texts) or prompted is None:
        return None
    alone, chat, brief = (str(text) for text in texts)
    if not (alone.count(one) == 1 and chat.startswith(alone) and prompted.startswith(alone) and other in brief):
        return None
    head, user_close = alone.split(one)
    prompt = prompted[len(alone) :]
    assistant_open, _, assistant_close = chat[len(alone) :].partition(other)
    before, _, after = brief.partition(other)
    # what begins every conversation is what the openings of its first turn have in common, up to a turn's own opening
    again = render(tokenizer, source, [*told, *ask], False)
    if again is None or not again.startswith(chat) or not again.endswith(one + user_close):
        return None
    user_open = again[len(chat) : len(again) - len(one + user_close)]
    begin = head.removesuffix(user_open)
    if begin + user_open != head or not before.startswith(begin) or not after.endswith(user_open + one + user_close):
        return None
    system_close = after[: len(after) - len(user_open + one + user_close)]
    opens = {"system": before[len(begin) :], "user": user_open, "assistant": assistant_open}
    closes = {"system": system_close, "user": user_close, "assistant": assistant_close}
    return Turns(begin, opens, closes, prompt)
