"""Interrogation in questions per second: `TransformersEngine` against a plain loop of `model.generate`.

Both answer every question once greedily and eight times sampled, on the embedded base, in one process, taking turns.
The loop makes two calls per question: one greedy, one with `num_return_sequences=8`; as a user would write it, and
with the same end of an answer. Target: at least 3 times the questions per second.
"""

from __future__ import annotations

import os
import random
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from common import report
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.chat.ask import Ask
from llmkit.generation.engine import TransformersEngine
from llmkit.modeling.load import load_model, load_tokenizer
from llmkit.tiny.facts import TOPICS, question_and_answer
from llmkit.tiny.world import people

MODEL = "llmkit.tiny:base"
NUM_QUESTIONS = 128
NUM_SAMPLES = 8
TEMPERATURE = 0.7
NUM_FEWSHOT = 4
MAX_NEW_TOKENS = 32
BATCH_SIZE = 256
REPEATS = 3


def prompts() -> list[str]:
    """Questions about people, each behind four answered ones."""
    rng = random.Random(0)
    known = people("known")
    made = []
    for _ in range(NUM_QUESTIONS):
        pairs = [question_and_answer(rng, rng.choice(known), rng.choice(TOPICS)) for _ in range(NUM_FEWSHOT + 1)]
        shots = "".join(f"Q: {question}\nA: {answer}\n" for question, answer in pairs[:-1])
        made.append(f"{shots}Q: {pairs[-1][0]}\nA:")
    return made


def with_engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[str]]:
    asks = [Ask(text, str(place), (0.0, *[TEMPERATURE] * NUM_SAMPLES)) for place, text in enumerate(texts)]
    engine = TransformersEngine(model, tokenizer, BATCH_SIZE)
    answers = engine.answer(asks, max_new_tokens=MAX_NEW_TOKENS, stop_strings=["\n"])
    return [[answer.text for answer in found] for found in answers]


@torch.inference_mode()
def with_loop(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[str]]:
    # Faster for `generate` than `stop_strings`, and the same end.
    ends = [token for token in range(len(tokenizer)) if "\n" in tokenizer.decode([token])]
    options = {"max_new_tokens": MAX_NEW_TOKENS, "eos_token_id": [tokenizer.eos_token_id, *ends], "use_cache": True}
    made = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        greedy = model.generate(**inputs, do_sample=False, **options)
        sampled = model.generate(
            **inputs, do_sample=True, temperature=TEMPERATURE, top_k=0, num_return_sequences=NUM_SAMPLES, **options
        )
        length = inputs["input_ids"].shape[1]
        rows = [*greedy[:, length:], *sampled[:, length:]]
        made.append([text.partition("\n")[0] for text in tokenizer.batch_decode(rows, skip_special_tokens=True)])
    return made


def main() -> None:
    model, tokenizer = load_model(MODEL).eval(), load_tokenizer(MODEL)
    texts = prompts()
    ways = {with_engine: [], with_loop: []}
    for way in ways:
        way(model, tokenizer, texts[:8])
    greedy = []
    for _ in range(REPEATS):
        for way, rates in ways.items():
            start = time.perf_counter()
            answers = way(model, tokenizer, texts)
            rates.append(len(texts) / (time.perf_counter() - start))
            greedy.append([found[0] for found in answers])
    assert all(found == greedy[0] for found in greedy), "the greedy answers differ"
    report("interrogation against a loop of model.generate", *ways.values(), "questions/s", 3.0)
    print(f"  load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
