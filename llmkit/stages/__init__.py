"""One worker per kind of stage: load, build, train, save, report."""

import gc
import logging
import sys

# It asks at import for an optional package that would speed 4-bit weights up on a CPU; they work without it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

if sys.argv[:1] == ["-m"]:
    # nothing that a worker imports is garbage, and looking for some takes a fifth of its start
    gc.disable()


def started() -> None:
    """All is imported: from here on garbage is collected, and what was imported is left alone."""
    gc.freeze()
    gc.enable()
