"""`make hub`: the loopback Hub until Ctrl-C, to try `llmkit push` and Hub ids without an account or a network.

It prints the lines that point another shell at it. Everything lies in memory, and is gone with it.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from loopback_hub.fixture import environment
from loopback_hub.server import LoopbackHub


def main(wait: Callable[[], object]) -> None:
    """`wait`: returns when it is to end."""
    with LoopbackHub() as hub, TemporaryDirectory(prefix="loopback-hub-") as home:
        for name, value in environment(hub, Path(home)).items():
            print(f"export {name}={shlex.quote(value)}")
        print("# you are `me`: llmkit push RUN --repo-id me/model; Ctrl-C ends it", file=sys.stderr, flush=True)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(threading.Event().wait)
