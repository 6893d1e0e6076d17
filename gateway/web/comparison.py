"""What a physician made of the machine's words: kept, changed, removed, added, sentence by sentence.

Knows two bodies as the API shows them and how their sentences belong together (`source`). Does not know pages.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_ALIKE = 0.35
"""What part of two sentences' words must be shared for one to be a rewording of the other."""
_Sentence = Mapping[str, Any]
_Piece = tuple[str, bool]
"""A piece of text, and whether it is in this version only."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One sentence of a section, before and after. What is not there on one side is empty there."""

    section: str
    what: str
    before: Sequence[_Piece]
    after: Sequence[_Piece]


def compare(machine: Mapping[str, Any], report: Mapping[str, Any]) -> list[Compared]:
    """Every sentence that is not word for word the machine's, in the report's order; what was removed comes last.

    Parameters
    ----------
    machine, report
        Bodies as `Body.as_dict` gives them.
    """
    said = dict(_sentences(machine))
    found: list[Compared] = []
    used: set[tuple[str, str]] = set()
    for (section, _), sentence in _sentences(report):
        origin = next((key for key in said if key[1] == (sentence["source"] or sentence["id"])), None)
        former = said[origin]["text"] if origin else ""
        if origin is None or origin in used or not _is_alike(former, sentence["text"]):
            found.append(Compared(section, "added", (), [(sentence["text"], True)]))
            continue
        used.add(origin)
        if former != sentence["text"]:
            before, after = _pieces(former, sentence["text"])
            found.append(Compared(section, "changed", before, after))
    removed = [key for key in said if key not in used]
    return found + [Compared(section, "removed", [(said[section, key]["text"], True)], ()) for section, key in removed]


def _sentences(body: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], _Sentence]]:
    for section in body["sections"]:
        for sentence in section["sentences"]:
            yield (section["code"], sentence["id"]), sentence


def _is_alike(before: str, after: str) -> bool:
    """Whether one sentence is the other one, reworded; else somebody wrote another in its place."""
    return difflib.SequenceMatcher(None, _words(before), _words(after), autojunk=False).ratio() >= LEAST_ALIKE


def _words(text: str) -> list[str]:
    return re.findall(r"[\u2e80-\u9fff]|[^\W\u2e80-\u9fff]+", text.lower())


def _pieces(before: str, after: str) -> tuple[list[_Piece], list[_Piece]]:
    """Two texts in pieces: words that both have, and words that only one has. CJK characters count as words."""
    one, two = (re.findall(r"[\u2e80-\u9fff]|[^\W\u2e80-\u9fff]+|\s+|.", text) for text in (before, after))
    left: list[_Piece] = []
    right: list[_Piece] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        alone = kind != "equal"
        if one[a:b]:
            left.append(("".join(one[a:b]), alone))
        if two[c:d]:
            right.append(("".join(two[c:d]), alone))
    return left, right
