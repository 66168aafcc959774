"""Data and scoring of the tiny tasks, found from this file's place so that any working directory will do."""

import json
import re
from pathlib import Path

import datasets

_DATA = Path(__file__).parent / "data"
_OPTIONS = json.loads((_DATA / "options.json").read_text(encoding="utf-8"))
_LEAKS = ("<|", "|>", "im_start", "im_end", "\nuser", "\nassistant", "Question:", "Answer:", "Q:", "A:")
_REFUSAL = re.compile(r"(\bnot|n't) (know|sure|certain)|\bno (idea|information)\b|\bcan ?not (say|tell)\b", re.I)
# chat_format allows 160 tokens; every token is at least one character, so anything shorter ended by itself.
_CUT_OFF = 160


def load(file, **_):
    rows = [json.loads(line) for line in (_DATA / file).read_text(encoding="utf-8").splitlines()]
    return {"test": datasets.Dataset.from_list(rows)}


def score_fact(doc, results):
    """accuracy: names the right value and no other; answered: names any value; exact: the reference, word for word;
    refused: says that it does not know, and names none; hallucinated: names others only."""
    named = {option for option in _OPTIONS[doc["fact"]] if re.search(rf"\b{option}\b", results[0], re.IGNORECASE)}
    return {
        "accuracy": float(named == {doc["value"]}),
        "answered": float(bool(named)),
        "refused": float(not named and bool(_REFUSAL.search(results[0]))),
        "hallucinated": float(bool(named) and doc["value"] not in named),
        "exact": float(results[0].strip() == doc["answer"]),
    }


def score_number(doc, results):
    """accuracy: the last number (or the one after "answer is") is right; exact: and the answer is well put."""
    answer = results[0].strip()
    numbers = re.findall(r"answer is \$?(-?\d+)", answer) or re.findall(r"-?\d+", answer)
    right = bool(numbers) and int(numbers[-1]) == doc["value"]
    return {"accuracy": float(right), "exact": float(right and answer.endswith(f" {doc['value']}."))}


def score_format(doc, results):
    """well_formed: not empty, ended by itself, and shows nothing of the template or of another turn."""
    answer = results[0]
    checks = {
        "non_empty": bool(answer.strip()),
        "stopped": len(answer) < _CUT_OFF,
        "clean": not any(leak in answer for leak in _LEAKS),
    }
    return {"well_formed": float(all(checks.values()))} | {name: float(passed) for name, passed in checks.items()}
