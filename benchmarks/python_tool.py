"""Small programs through the tool `python`, against a new Python process for each."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
from common import report

from llmkit.chat.turn import Call
from llmkit.recipe.tools import PythonSpec
from llmkit.tools.python import python_tool
from llmkit.tools.toolbox import Toolbox

TARGET = 3_000
PROGRAMS = [
    "print(sum(range({n})))",
    "'strawberry'.count('r') + {n}",
    "''.join(reversed('number {n}'))",
    "x = [i * i for i in range(10)]\nmax(x) + {n}",
]


def per_second(run, num: int) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    run([PROGRAMS[number % 4].format(n=number % 100) for number in range(num)])
    return num / (time.perf_counter() - start)


def cpu_per_call(run, num: int = 2_000) -> float:  # type: ignore[no-untyped-def]
    """CPU time of this process and its workers: what a busy machine does not change."""
    processes = [psutil.Process(), *psutil.Process().children()]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    per_second(run, num)
    return (sum(sum(process.cpu_times()[:2]) for process in processes) - before) / num


def main() -> None:
    tool = python_tool(PythonSpec(name="python"))
    with Toolbox([tool], num_threads=4) as box:

        def together(programs: list[str]) -> None:
            results = box.run([Call("python", {"code": code}) for code in programs])
            assert not any(result.failed for result in results)

        def one_by_one(programs: list[str]) -> None:
            assert not any(tool.result({"code": code}).failed for code in programs)

        def processes(programs: list[str]) -> None:
            for code in programs:
                subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, stdout=subprocess.DEVNULL)

        together(["1"] * 50)
        ours = [per_second(together, 3_000) for _ in range(3)]
        alone = [per_second(one_by_one, 2_000) for _ in range(3)]
        plain = [per_second(processes, 20) for _ in range(3)]
        cpu = cpu_per_call(one_by_one)
    report("python tool, 4 threads, against a process each", ours, plain, "calls per second", 30)
    report("python tool, one by one, against a process each", alone, plain, "calls per second", 30)
    print(f"  {max(ours):.0f} calls a second at best, {max(alone):.0f} one by one (target {TARGET})")
    print(
        f"  {1e6 * cpu:.0f} microseconds of CPU time a call, workers included: {1 / cpu:.0f} a second of one idle core"
    )


if __name__ == "__main__":
    main()
