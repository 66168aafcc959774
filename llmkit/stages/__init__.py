"""One worker per kind of stage: load, build, train, save, report."""

import logging

# It asks at import for an optional package that would speed 4-bit weights up on a CPU; they work without it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
