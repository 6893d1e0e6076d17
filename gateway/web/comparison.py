"""What a physician made of the machine's words: kept, changed, removed, added, sentence by sentence.

Knows two bodies as the API shows them and which of their sentences belong together. Does not know pages. The draft is the
one that the report was opened from: what came from another one bears a `draft`, since ids repeat between drafts.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from record.body import Origin
from record.likeness import ALIKE, Index, likeness, pieces, same, wording

_MOST_COMPARED = 250_000
"""Two long texts are shown whole, not word by word: that would take as long as the product of their pieces."""
_Sentence = Mapping[str, Any]
_Piece = tuple[str, bool]
"""A piece of text, and whether it is in this version only."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One sentence of a section, before and after. What is not there on one side is empty there.

    `former_section`: where the machine had said it, if that was another section.
    """

    section: str
    what: str
    before: Sequence[_Piece]
    after: Sequence[_Piece]
    former_section: str | None = None


def compare(machine: Mapping[str, Any], report: Mapping[str, Any]) -> list[Compared]:
    """Every sentence that is not the machine's word for word and where it was, in the report's order; what is gone comes last.

    Parameters
    ----------
    machine, report
        Bodies as `Body.as_dict` gives them.
    """
    said, stands = list(_sentences(machine)), list(_sentences(report))
    origins = _origins([sentence for _, sentence in said], [sentence for _, sentence in stands])
    found: list[Compared] = []
    for (section, sentence), origin in zip(stands, origins, strict=True):
        if origin is None:
            found.append(Compared(section, "added", (), [(sentence["text"], True)]))
            continue
        former_section, former = said[origin][0], said[origin][1]["text"]
        moved_from = former_section if former_section != section else None
        if former != sentence["text"]:
            found.append(Compared(section, "changed", *_pieces(former, sentence["text"]), moved_from))
        elif moved_from:
            whole = [(former, False)]
            found.append(Compared(section, "moved", whole, whole, moved_from))
    removed = [one for at, one in enumerate(said) if at not in origins]
    return found + [Compared(section, "removed", [(sentence["text"], True)], ()) for section, sentence in removed]


def _sentences(body: Mapping[str, Any]) -> Iterator[tuple[str, _Sentence]]:
    for section in body["sections"]:
        for sentence in section["sentences"]:
            yield section["code"], sentence


def _origins(said: Sequence[_Sentence], stands: Sequence[_Sentence]) -> list[int | None]:
    """Of each sentence of the report the place of the machine's that it was: by its words, its source, its likeness."""
    found: list[int | None] = [None] * len(stands)
    left = set(range(len(said)))
    for look in (_by_words(said), _by_source(said), _by_likeness(said)):
        for at, sentence in enumerate(stands):
            origin = next((each for each in look(sentence) if each in left), None) if found[at] is None else None
            if origin is not None:
                found[at] = origin
                left.remove(origin)
    return found


def _by_words(said: Sequence[_Sentence]) -> Callable[[_Sentence], Sequence[int]]:
    having: dict[str, list[int]] = {}
    for at, one in enumerate(said):
        having.setdefault(same(one["text"]), []).append(at)
    return lambda sentence: having.get(same(sentence["text"]), ())


def _by_source(said: Sequence[_Sentence]) -> Callable[[_Sentence], Sequence[int]]:
    places = {one["id"]: at for at, one in enumerate(said)}

    def look(sentence: _Sentence) -> Sequence[int]:
        at = None if _is_of_another(sentence) else places.get(sentence["source"] or sentence["id"])
        if at is None or likeness(wording(said[at]["text"]), wording(sentence["text"])) < ALIKE:
            return ()
        return (at,)

    return look


def _by_likeness(said: Sequence[_Sentence]) -> Callable[[_Sentence], Sequence[int]]:
    """What was made out of another draft's sentence may still be one of these, reworded."""
    index = Index([one["text"] for one in said])
    return lambda sentence: [at for _, at in index.closest(sentence["text"])] if sentence.get("draft") else []


def _is_of_another(sentence: _Sentence) -> bool:
    return sentence["origin"] == Origin.HUMAN or bool(sentence.get("draft"))


def _pieces(before: str, after: str) -> tuple[list[_Piece], list[_Piece]]:
    """Two texts in pieces: words that both have, and words that only one has. CJK characters count as words."""
    one, two = pieces(before), pieces(after)
    if len(one) * len(two) > _MOST_COMPARED:
        return [(before, True)], [(after, True)]
    left: list[_Piece] = []
    right: list[_Piece] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        alone = kind != "equal"
        if one[a:b]:
            left.append(("".join(one[a:b]), alone))
        if two[c:d]:
            right.append(("".join(two[c:d]), alone))
    return left, right
