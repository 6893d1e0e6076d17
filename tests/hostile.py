"""Bytes that somebody changed, and how many of them are tried.

`make test ARGS=--all` tries so many as each test says, always the same. `make fuzz` tries others, round after round, for
COUNTERSIGN_FUZZ_S seconds (`tests/fuzz/conftest.py` shares them out).
"""

from __future__ import annotations

import os
import resource
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ_S = float(os.environ.get("COUNTERSIGN_FUZZ_S") or 0)
MOST_S = 2.0
MOST_BYTES = 64 << 20
EXTREMES = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
_ALL_AT_ONCE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


def tries(examples: int) -> settings:
    """So many examples in CI, always the same; a round of so many in `make fuzz`."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=not FUZZ_S,
        suppress_health_check=_ALL_AT_ONCE,
        print_blob=True,
    )


@contextmanager
def bounded() -> Iterator[None]:
    """What is done within costs this thread at most `MOST_S` of processor time and `MOST_BYTES` of memory."""
    began_s, before = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.thread_time() - began_s < MOST_S, "it takes too long"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_BYTES, "it takes too much memory"


numbers = st.builds(
    lambda form, number: struct.pack(form, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)),
    st.sampled_from(["<H", ">H", "<I", ">I"]),
    st.sampled_from(EXTREMES) | st.integers(0, 0xFFFFFFFF),
)


@st.composite
def hurt(draw: st.DrawFn, whole: bytes, most: int = 5) -> bytes:
    """The bytes with up to `most` changes: a byte, a number (lengths above all), something cut, put in, said twice."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(content)))
        how = draw(st.sampled_from(["byte", "number", "number", "put in", "take out", "twice", "cut"]))
        if how == "byte":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "number":
            number = draw(numbers)
            content[at : at + len(number)] = number
        elif how == "put in":
            content[at:at] = draw(st.binary(max_size=24))
        elif how == "take out":
            del content[at : at + draw(st.integers(1, 40))]
        elif how == "twice":
            content[at:at] = content[at : at + draw(st.integers(1, 200))]
        else:
            del content[at:]
    return bytes(content)


@st.composite
def pieces(draw: st.DrawFn, whole: bytes, most: int = 12) -> Sequence[bytes]:
    """The same bytes in up to `most` pieces, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=most - 1)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
