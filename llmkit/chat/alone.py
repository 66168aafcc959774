"""What one thread at a time may use: transformers keeps a template's spans, and a tokenizer how it splits, in itself."""

from __future__ import annotations

import threading

ALONE = threading.RLock()
"""Held while a chat template runs, and while a tokenizer encodes."""
