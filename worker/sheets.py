"""A contact sheet: the pictures of a reading side by side, each with what it is, for a person to look over.

Knows layout. Does not know studies or patients: what stands on a sheet are captions, which hold codes and counts alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL = 320
"""Pixels of a picture's longer side on the sheet."""
_GAP, _LINE, _LINES = 12, 16, 4
_INK, _QUIET, _PAPER = (230, 230, 230), (150, 150, 150), (24, 24, 24)


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture on a sheet: its PNG and the lines below it."""

    png: bytes
    lines: tuple[str, ...]


def contact_sheet(title: str, shown: Sequence[Shown], *, columns: int = 4) -> bytes:
    """Return a PNG with all pictures, in order, row by row."""
    columns = max(1, min(columns, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    width, height = CELL + _GAP, CELL + _LINES * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + 3 * _GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    pen.text((_GAP, _GAP // 2), title, fill=_INK, font=font)
    for number, one in enumerate(shown):
        left, top = _GAP + number % columns * width, 2 * _GAP + _LINE // 2 + number // columns * height
        with Image.open(io.BytesIO(one.png), formats=("PNG",)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        sheet.paste(small, (left + (CELL - small.width) // 2, top + (CELL - small.height) // 2))
        words = [line for text in one.lines for line in _broken(text, pen, font)][:_LINES]
        for n, line in enumerate(words):
            ink = _INK if n == 0 else _QUIET
            pen.text((left, top + CELL + 2 + n * _LINE), line, fill=ink, font=font)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def _broken(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The lines of a text that fit below a picture; the font knows Latin letters alone."""
    lines = [""]
    for word in text.replace("×", "x").encode("latin-1", "replace").decode("latin-1").split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) <= CELL or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
