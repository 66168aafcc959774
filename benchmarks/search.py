"""Search over 100,000 passages with the index, against reading all of them.

The passages are cut out of wikitext-2 where LLMKIT_REAL_DATA has it, else made up.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import report

from llmkit.tools.index import Document, Index, build_index
from llmkit.tools.words import words

NUM_PASSAGES = 100_000
VOCABULARY = 50_000
TARGET_MS = 10.0


def documents(rng: random.Random) -> Iterator[Document]:
    """Passages of 40 to 120 words."""
    pool = real_words() or made_up_words(rng)
    for number in range(NUM_PASSAGES):
        start, size = rng.randrange(len(pool) - 120), rng.randint(40, 120)
        yield Document(" ".join(pool[start : start + size]), f"Page {number}")


def real_words() -> list[str]:
    """Of wikitext-2 in their order; empty without it."""
    path = Path(os.environ.get("LLMKIT_REAL_DATA", ""), "wikitext-2", "valid.txt")
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def made_up_words(rng: random.Random) -> list[str]:
    """As unequally frequent as those of a language."""
    names = [f"w{number}" for number in range(VOCABULARY)]
    weights = [1 / (rank + 2) for rank in range(VOCABULARY)]
    return rng.choices(names, weights, k=4_000_000)


def scan(lines: list[str], query: str) -> int:
    """The passage that holds most of the query's words, found by reading all."""
    asked = set(words(query))
    return max(range(len(lines)), key=lambda place: len(asked.intersection(lines[place].split())))


def main() -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        start = time.perf_counter()
        manifest = build_index(documents(rng), folder, passage_chars=2000)
        print(f"  {manifest.num_passages} passages indexed in {time.perf_counter() - start:.1f} s")
        index = Index.open(folder)
        with (folder / manifest.data / "passages.jsonl").open() as file:
            lines = [json.loads(line)["text"] for line in file]
        queries = [" ".join(rng.sample(rng.choice(lines).split(), 6)) for _ in range(50)]
        index.search(queries[0], 3)
        fast = [seconds(lambda query=query: index.search(query, 3)) for query in queries]
        slow = [seconds(lambda query=query: scan(lines, query)) for query in queries[:3]]
    for name, place in (("on the clock", 0), ("of CPU time", 1)):
        times = sorted(1000 * each[place] for each in fast)
        print(f"  a query {name}: median {times[25]:.2f} ms, slowest of 50 {times[-1]:.2f} ms (target {TARGET_MS} ms)")
    ours, theirs = ([1 / clock for clock, _ in each[:3]] for each in (fast, slow))
    report("search: index against reading all", ours, theirs, "queries per second", 10)


def seconds(call) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """On the clock, and of CPU time: a busy machine makes the first mean little."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cpu


if __name__ == "__main__":
    main()
