"""Database keys: UUID version 7, made in Python (RFC 9562, 5.7). Never counts, never an order."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> uuid.UUID:
    """A fresh key: 48 bits of milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def short(identity: object) -> str:
    """How an id is shown where a whole one is too long: its time in milliseconds, and what tells ids of one moment apart."""
    return str(identity)[:13]
