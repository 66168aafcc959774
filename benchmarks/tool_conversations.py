"""Conversations with the tool `python`, many together against one by one: same questions, tools and greedy tokens.

python benchmarks/tool_conversations.py [MODEL]

MODEL: a folder of a model that was taught to call, such as that of the stage `tools` of recipes/tiny/tools.yaml.
Without one it is the embedded model, whose forward passes are run while the tokens that it picks are those of a script.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from common import report

from llmkit.chat.calls import decode
from llmkit.chat.encode import encode_parts
from llmkit.chat.template import apply_template, load_template
from llmkit.generation import decode as decoding
from llmkit.generation.engine import TransformersEngine
from llmkit.modeling.load import load_model, load_tokenizer
from llmkit.recipe.tools import PythonSpec
from llmkit.stages.talking import Talk, talk
from llmkit.tools.exercises import conversations
from llmkit.tools.python import python_tool
from llmkit.tools.search import search_schema
from llmkit.tools.tool import Tool
from llmkit.tools.toolbox import Toolbox

TARGET, NUM, REPEATS = 3.0, 32, 3
Answer = tuple[tuple[str, ...], str, int]
"""Calls of a conversation, its answer, and the tokens that were written."""


def scripted(rows: list[dict[str, Any]]) -> tuple[Any, Any]:
    """The embedded model, which calls and answers as the rows do."""
    model, tokenizer = load_model("llmkit.tiny:base"), load_tokenizer("llmkit.tiny:base")
    apply_template(tokenizer, load_template("chatml_search"))
    tokenizer.eos_token = "<|im_end|>"
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    turns = {row["messages"][0]["content"]: _turns(tokenizer, row["messages"]) for row in rows}
    known: dict[tuple[int, ...], list[int]] = {}

    def force(own: list[decoding.Row], tokens_B: torch.Tensor) -> None:
        for place, row in enumerate(own):
            asked = tuple(row.prompt_ids)
            if asked not in known:
                text = decode(tokenizer, row.prompt_ids)
                question = max((each for each in turns if each in text), key=len)
                known[asked] = turns[question]["<|result_start|>" in text.partition(question)[2]]
            tokens_B[place] = known[asked][len(row.ids)]

    decoding._force = force
    return model, tokenizer


def _turns(tokenizer: Any, messages: list[dict[str, Any]]) -> list[list[int]]:
    code = messages[1]["tool_calls"][0]["function"]["arguments"]["code"]
    texts = (f"<|python_start|>{code}<|python_end|>", messages[3]["content"])
    return [[*ids, tokenizer.eos_token_id] for ids in encode_parts(tokenizer, [(text, False) for text in texts])]


def carried(
    model: Any, tokenizer: Any, box: Toolbox, rows: list[dict[str, Any]], size: int
) -> tuple[float, list[Answer]]:
    """Conversations a second with `size` of them together, and what became of them."""
    engine, found = TransformersEngine(model, tokenizer, size), list[Answer]()
    start = time.perf_counter()
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        talks = [Talk([one["messages"][0]], str(first + place)) for place, one in enumerate(part)]
        talk(engine, tokenizer, box, talks, max_new_tokens=64, max_calls=2)
        found += [(tuple(str(made.call) for made in one.made), one.answer, one.num_tokens) for one in talks]
    return len(rows) / (time.perf_counter() - start), found


def main() -> None:
    rows = list(conversations(num_rows=NUM, split="heldout", seed=1))
    if len(sys.argv) > 1:
        model, tokenizer = load_model(sys.argv[1]), load_tokenizer(sys.argv[1])
    else:
        model, tokenizer = scripted(rows)
    model.eval()
    # what the recipe's model was taught with; nothing here needs to be looked up
    search = Tool("search", search_schema("search"), lambda _: "Nothing found.", 100)
    with Toolbox([search, python_tool(PythonSpec(name="python"))]) as box:
        carried(model, tokenizer, box, rows[:8], 8)
        together, alone = [], []
        for _ in range(REPEATS):
            fast, many = carried(model, tokenizer, box, rows, NUM)
            slow, single = carried(model, tokenizer, box, rows, 1)
            together.append(fast)
            alone.append(slow)
    report(f"{NUM} conversations with tools together, against one by one", together, alone, "conversations/s", TARGET)
    num_same = sum(a == b for a, b in zip(many, single, strict=True))
    num_calls, num_tokens = sum(len(one[0]) for one in single), sum(one[2] for one in single)
    print(f"  {num_calls} calls and {num_tokens} tokens in {NUM} conversations; {num_same} of them the same both ways")
    assert num_calls >= NUM / 2, "the model hardly calls"


if __name__ == "__main__":
    main()
