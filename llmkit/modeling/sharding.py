"""How this launch spreads weights over its processes, as Accelerate tells them."""

from __future__ import annotations

import os


def wants(strategy: str) -> bool:
    """Whether the Accelerate config of this launch asks for "DEEPSPEED" or "FSDP"."""
    return os.environ.get(f"ACCELERATE_USE_{strategy}", "false").lower() == "true"
