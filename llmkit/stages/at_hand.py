"""Tools that a stage has at hand while its model answers: `grpo`, `best_of_n` and `rollout` open and use them alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Answer, Engine
from llmkit.data.formats import convert
from llmkit.data.messages import BadRow, Message
from llmkit.recipe.stages import GrpoStage, SampledStage
from llmkit.stages.common import Worker, stages_read
from llmkit.stages.talking import ToolEngine
from llmkit.tools.toolbox import Toolbox, open_tools


@contextmanager
def tools_of(worker: Worker) -> Iterator[Toolbox | None]:
    """Those of the stage, open; None: it names none. Raises UserError where they cannot be opened."""
    stage = worker.file.stage
    if not (isinstance(stage, (GrpoStage, SampledStage)) and stage.tools):
        yield None
        return
    with open_tools(stage.tools, stages_read(worker)) as box:
        yield box


def with_tools(engine: Engine, tokenizer: PreTrainedTokenizerBase, tools: Toolbox | None, max_calls: int) -> Engine:
    """The engine itself, or with tools one whose answers are conversations."""
    return engine if tools is None else ToolEngine(engine, tokenizer, tools, max_calls)


def schemas_of(tools: Toolbox | None) -> list[dict[str, Any]]:
    return tools.schemas if tools is not None else []


def reads_back(prompt: str | Sequence[Message], answer: Answer) -> bool:
    """Whether the answer is read from a row of messages as what was said. One with a call that is no call is not, nor
    one that ends with a result or says nothing. Of an answer without tools it is always true."""
    if not answer.messages:
        return True
    messages = [*prompt, *answer.messages]
    try:
        read: list[Message] = convert({"messages": messages}, "messages", {})["messages"]
    except BadRow:
        return False
    return read == messages and messages[-1]["role"] == "assistant"
