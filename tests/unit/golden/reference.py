"""The display pipeline once more, as the standard writes it: one value at a time, in plain Python.

Knows the formulas and nothing of our code, of numpy or of pydicom; `make.py` computes the golden pictures from it.
"""

from __future__ import annotations

import math


def level(y: float) -> int:
    """0..1 to a grey level of 8 bits, rounded."""
    return round(min(max(y, 0.0), 1.0) * 255)


def linear(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.2.1, with 0 and 1 as the output's limits."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


def linear_exact(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0.0
    if x > c + w / 2:
        return 1.0
    return (x - c) / w + 0.5


def sigmoid(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.1."""
    return 1 / (1 + math.exp(-4 * (x - c) / w))


def between(x: float, low: float, high: float) -> float:
    """Where the file has no VOI transform: from the smallest value to the largest."""
    return min(max((x - low) / (high - low), 0.0), 1.0)


def looked_up(x: float, entries: list[int], first: int) -> int:
    """PS3.3 C.11.1.1.1: below the first value mapped the first entry, above the last the last."""
    return entries[min(max(math.floor(x) - first, 0), len(entries) - 1)]


def sample(word: int, stored: int, high: int, *, signed: bool) -> int:
    """PS3.5 8.1.1: the sample inside a word; what lies beside it is none of it."""
    bits = (word >> (high - stored + 1)) % (1 << stored)
    return bits - (1 << stored) if signed and bits >> (stored - 1) else bits


def rgb(y: float, cb: float, cr: float) -> tuple[int, int, int]:
    """The inverse of YBR_FULL's equations in PS3.3 C.7.6.3.1.2 (ITU-R BT.601)."""
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return tuple(min(max(round(v), 0), 255) for v in (red, green, blue))


def segments(words: list[int]) -> list[int]:
    """PS3.3 C.7.9.2: discrete (0) and linear (1) segments, and a repeat (2) of one segment that went before."""
    out: list[int] = []
    at = 0
    while at < len(words):
        kind, length = words[at], words[at + 1]
        if kind == 2:  # 16-bit entries: the byte offset's low word comes first
            again = (words[at + 2] + (words[at + 3] << 16)) // 2
            assert length == 1
            out += _segment(words, again, out[-1])
            at += 4
        else:
            out += _segment(words, at, out[-1] if out else 0)
            at += 2 + (length if kind == 0 else 1)
    return out


def _segment(words: list[int], at: int, before: int) -> list[int]:
    kind, length = words[at], words[at + 1]
    if kind == 0:
        return words[at + 2 : at + 2 + length]
    return [round(before + (words[at + 2] - before) * (n + 1) / length) for n in range(length)]
