"""What one thread at a time may use: transformers keeps spans in a template, and how to split in a tokenizer."""

from __future__ import annotations

import threading

ALONE = threading.RLock()
"""Held while a chat template runs, and while a tokenizer encodes."""
