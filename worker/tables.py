"""Look-up tables and palettes, as files keep them.

Knows descriptors and entries of 8 and 16 bits, in either byte order, plain and segmented (PS3.3 C.11.1.1.1, C.7.6.3.1.5, C.7.9.2), and the
many ways in which they are written wrongly. Does not know where in a file a table stands, nor what it is applied to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

_MAX_LUTS = 8
_MAX_LINE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """A look-up table: `entries` int64 (N,), the value that meets the first entry, and the bits of an entry."""

    entries: NDArray[np.int64]
    first_mapped: int
    bits: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Look values up; what lies outside meets the first or last entry (PS3.3 C.11.1.1.1)."""
        index = np.floor(values).astype(np.int64) - self.first_mapped  # as values
        found: NDArray[np.int64] = self.entries[np.clip(index, 0, len(self.entries) - 1)]
        return found


def tables_of(sequence: Any, *, signed: bool) -> tuple[Lut, ...]:
    """Return the tables of a sequence of LUT items, as far as they can be read; entries in little endian."""
    return tuple(lut for lut, _ in lut_items(sequence, little_endian=True, signed=signed))


def lut_items(sequence: Any, *, little_endian: bool, signed: bool) -> Iterator[tuple[Lut, str]]:
    """Give the tables of a sequence up to the first that cannot be read, with what the file calls them."""
    for n, item in enumerate((sequence or [])[:_MAX_LUTS]):
        try:
            descriptor, table = item.get("LUTDescriptor"), item.get("LUTData")
            if descriptor is None or table is None or len(descriptor) != 3:
                return
            lut = _lut(descriptor, table, little_endian=little_endian, signed=signed)
            explanation = one_line(item.get("LUTExplanation") or "")
        except (TypeError, ValueError):
            if n == 0:  # the one that is applied unasked
                raise
            return
        if lut is None:
            return
        yield lut, explanation


def _lut(descriptor: Any, table: Any, *, little_endian: bool, signed: bool) -> Lut | None:
    """Read a table of 8 or 16 bits an entry (PS3.3 C.11.1.1.1); 8-bit entries may lie two in a word."""
    count, first_mapped, bits = (int(v) for v in descriptor)
    count = count or 65536
    if signed and first_mapped > 32767:  # a signed value that was read as US
        first_mapped -= 65536
    order = "<" if little_endian else ">"
    if isinstance(table, bytes | bytearray):
        words = np.frombuffer(table[: len(table) // 2 * 2], order + "u2")  # (N,) or (N / 2,)
    else:
        words = np.atleast_1d(np.asarray(table)).astype(np.int64) & 0xFFFF  # (N,) or (N / 2,)
    packed = len(words) < count and bits <= 8
    entries = words.astype("<u2").view("u1") if packed else words  # (N,)
    return Lut(entries[:count].astype(np.int64), first_mapped, bits) if len(entries) else None


def palette_of(ds: Dataset, *, little_endian: bool, signed: bool) -> tuple[NDArray[np.uint8], int] | None:
    """Return the palette as 8-bit colours (PS3.3 C.7.6.3.1.5 and .6), uint8 (N, 3), and the value that meets the first of them."""
    descriptors = [ds.get(f"{c}PaletteColorLookupTableDescriptor") for c in ("Red", "Green", "Blue")]
    if ds.get("PhotometricInterpretation") != "PALETTE COLOR" or not all(
        d is not None and len(d) == 3 for d in descriptors
    ):
        return None
    if "RedPaletteColorLookupTableData" not in ds:
        return _segmented_palette(ds, descriptors, little_endian=little_endian, signed=signed)
    columns, first_mapped = [], 0
    for colour, descriptor in zip(("Red", "Green", "Blue"), descriptors, strict=True):
        table = ds.get(f"{colour}PaletteColorLookupTableData")
        lut = _lut(descriptor, table, little_endian=little_endian, signed=signed) if table is not None else None
        if lut is None:
            return None
        wide = lut.bits == 16 and len(bytes(table)) >= 2 * len(lut.entries)
        columns.append(lut.entries >> 8 if wide else lut.entries)
        first_mapped = lut.first_mapped
    shortest = min(map(len, columns))
    colours = np.stack([c[:shortest] for c in columns], axis=-1)  # (N, 3)
    return np.clip(colours, 0, 255).astype(np.uint8), first_mapped


def _segmented_palette(
    ds: Dataset, descriptors: Any, *, little_endian: bool, signed: bool
) -> tuple[NDArray[np.uint8], int] | None:
    """The palette from segmented tables (PS3.3 C.7.9.2), as 8-bit colours."""
    columns, first_mapped = [], 0
    for colour, descriptor in zip(("Red", "Green", "Blue"), descriptors, strict=True):
        table = ds.get(f"Segmented{colour}PaletteColorLookupTableData")
        if not isinstance(table, bytes | bytearray):
            return None
        count, first_mapped, bits = (int(v) for v in descriptor)
        order = "<" if little_endian else ">"
        words = np.frombuffer(table[: len(table) // 2 * 2], order + "u2").astype(np.int64)  # (M,)
        if bits == 8:
            words = words.astype("<u2").view("u1").astype(np.int64)  # two entries a word
        entries = np.array(_expanded(words.tolist(), count or 65536, wide=bits > 8), np.int64)  # (N,)
        columns.append(entries >> 8 if bits > 8 else entries)
    if signed and first_mapped > 32767:
        first_mapped -= 65536
    shortest = min(map(len, columns))
    colours = np.stack([c[:shortest] for c in columns], axis=-1)  # (N, 3)
    return (np.clip(colours, 0, 255).astype(np.uint8), first_mapped) if shortest else None


def _expanded(coded: list[int], count: int, *, wide: bool) -> list[int]:
    """Expand discrete (0), linear (1) and repeated (2) segments to `count` entries at most.

    Raises
    ------
    ValueError
        The segments make no sense, or there are more of them than entries.
    """
    found: list[int] = []
    left = count

    def expand(at: int, segments: int, *, repeats: bool) -> None:
        nonlocal left
        while segments and at + 2 < len(coded) and len(found) < count:  # a null byte may fill the last word
            kind, length = coded[at : at + 2]
            segments, left = segments - 1, left - 1
            if left < 0:
                raise ValueError("A segmented palette has more segments than entries")
            if kind == 0:
                found.extend(coded[at + 2 : at + 2 + length])
                at += 2 + length
            elif kind == 1 and found:
                first, rise = found[-1], coded[at + 2] - found[-1]
                found.extend(round(first + rise * n / length) for n in range(1, length + 1))
                at += 3
            elif kind == 2 and repeats:  # which may not repeat one another: C.7.9.2.3
                digits = coded[at + 2 : at + (4 if wide else 6)]
                offset = sum(digit << (16 if wide else 8) * n for n, digit in enumerate(digits))  # bytes
                expand(offset // 2 if wide else offset, length, repeats=False)
                at += 2 + len(digits)
            else:
                raise ValueError("A segmented palette begins with no discrete segment, or has one of an unknown kind")

    expand(0, len(coded), repeats=True)
    return found[:count]


def one_line(text: Any) -> str:
    """Return a short text of the file's, hostile as all of them: one line, capped."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)[:_MAX_LINE]).split())
