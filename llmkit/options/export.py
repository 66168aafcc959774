"""`llmkit export`."""

from __future__ import annotations

import argparse

from llmkit.options import TARGET, parser_of

GGUF = "model.gguf"
USES = {
    "ollama": "ollama create NAME -f {out}/Modelfile",
    "llama.cpp": "llama-cli --jinja -m {out}/" + GGUF,
    "vllm": "vllm serve {out}",
}
"""Program -> how it loads what was written."""


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit export", "Write a model for another program.")
    made.add_argument("target", help=TARGET)
    made.add_argument("--stage", help="with a run folder: the stage whose model it is")
    made.add_argument("--to", required=True, choices=sorted(USES), help="the program")
    made.add_argument("--out", required=True, help="folder to write; it must be empty or not there")
    made.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: as it is stored")
    made.add_argument("--pre-tokenizer", metavar="NAME", help="GGUF: llama.cpp's name for how text is cut before BPE")
    return made
