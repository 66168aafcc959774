"""Start-up: `llmkit --help`, `validate` and `plan` against `trl sft --help` in the same run."""

from __future__ import annotations

from pathlib import Path

from common import ROOT, best_of, report

BIN = ROOT / ".venv" / "bin"
RECIPE = "recipes/tiny/assistant.yaml"


def main() -> None:
    llmkit, trl = str(BIN / "llmkit"), str(BIN / "trl")
    times = {
        "llmkit --help": best_of([llmkit, "--help"], 5),
        "llmkit validate": best_of([llmkit, "validate", RECIPE], 5),
        "llmkit plan": best_of([llmkit, "plan", RECIPE], 5),
    }
    baseline = best_of([trl, "sft", "--help"], 3)
    for name, seconds in times.items():
        report(f"{name} against trl sft --help (speed)", [1 / seconds], [1 / baseline], "starts per second", 15.0)
        print(f"  {name}: {seconds:.3f} s; trl sft --help: {baseline:.2f} s")


if __name__ == "__main__":
    assert Path(BIN / "llmkit").exists(), "run `make setup` first"
    main()
