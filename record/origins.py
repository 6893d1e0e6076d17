"""Who wrote each sentence of a text that is to be saved: settled by its words, whatever a client claims.

A sentence is held against everything that was said of the study before it, in whatever section, draft or revision it
stands: the same words are whose they were first, much the same words of the machine are *edited*, and what resembles none
of them is a person's own. Knows bodies and when each sentence was said. Does not know where they are kept (`said`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count

from record.body import Body, Origin, Section, SectionCode, Sentence
from record.likeness import ALIKE, VERY_ALIKE, Index, same, shared, wording
from record.written import Written

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_MARKS = re.compile(r"[.。．;；,，:：!?！？]+\s*")
_LEAST_REST = 0.8
"""What of a sentence must be left over from another for it to be its other half."""


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence of a draft or of a saved text, and when it was written; its `draft` is as the report at hand names it."""

    sentence: Sentence
    at: datetime


@dataclass(slots=True)
class _Line:
    """A sentence to be saved. `id` is the client's, if it has one; `near` the words it was made out of."""

    section: SectionCode
    text: str
    key: str
    id: str | None = None
    near: str | None = None
    settled: Sentence | None = None


def settle(saved: Written | Body, former: Body, said: Iterable[Said] = ()) -> Body:
    """A text as it is to be stored: with ids that survive an edit, and with the origin of each sentence.

    Parameters
    ----------
    saved
        A plain text, or a structured body whose ids are kept and whose other claims are not believed, save one: a sentence
        under the id of a machine's sentence came from that one.
    former
        The revision that was edited.
    said
        All that was said of the study: its drafts, those that are only offered too, and what was saved.
    """
    lines = list(_lines(saved))
    _Settling(lines, former, said).run()
    sections = [code for code, _ in saved.sections] if isinstance(saved, Written) else [s.code for s in saved.sections]
    return Body(
        sections=tuple(
            Section(code, tuple(line.settled for line in lines if line.section is code and line.settled))
            for code in sections
        ),
        language=former.language if isinstance(saved, Written) else saved.language,
    )


def _lines(saved: Written | Body) -> Iterator[_Line]:
    if isinstance(saved, Written):
        for code, texts in saved.sections:
            yield from (_Line(code, text, same(text)) for text in texts)
    else:
        yield from (_Line(code, s.text, same(s.text), s.id) for code, s in saved.sentences())


class _Settling:
    def __init__(self, lines: Sequence[_Line], former: Body, said: Iterable[Said]) -> None:
        self._lines = lines
        self._former = list(former.sentences())
        self._by_id = {sentence.id: sentence for _, sentence in self._former}
        self._first = _first_said(_as_said(former)) | _first_said(said)
        self._standing: dict[str, list[tuple[SectionCode, Sentence]]] = {}
        for code, sentence in self._former:
            self._standing.setdefault(same(sentence.text), []).append((code, sentence))
        self._reserved = {*self._by_id, *(one.sentence.id for one in self._first.values())}
        self._numbers = count(1)
        self._used = {line.id for line in lines if line.id is not None}

    def run(self) -> None:
        for line in self._lines:
            self._take_same(line)
        self._take_near()
        for lines in (self._lines, self._lines[::-1]):
            for line, beside in zip(lines[1:], lines, strict=False):
                self._take_rest(line, beside)
        settled = {line.key: line.settled for line in self._lines if line.settled}
        for line in self._lines:
            if line.settled is None and (twin := settled.get(line.key)):  # the same words twice are the same one's
                self._put(line, twin, twin.origin, None)
        self._leave_to_person()

    def _take_same(self, line: _Line) -> None:
        """Words that were said before: whose they were then. What stood in the former revision keeps what it was."""
        first = self._first.get(line.key)
        former = self._former_of(line)
        if first is not None and first.sentence.origin is not Origin.HUMAN:
            origin = first.sentence.origin
            base = former if former is not None and former.origin is origin else first.sentence
            self._put(line, base, origin, former)
        elif former is not None and former.origin is not Origin.HUMAN:
            self._put(line, former, former.origin, former)

    def _take_near(self) -> None:
        """Words that were made out of the machine's, the likest first."""
        machine, own = _Known(self._first, own=False), _Known(self._first, own=True)
        found: list[tuple[float, int, str]] = []
        for position, line in enumerate(self._lines):
            if line.settled is not None:
                continue
            known = self._first.get(line.key)
            parts = ((VERY_ALIKE, key) for key in self._parts_of(line))
            for score, key in chain(parts, machine.closest(line.text, ALIKE)):
                source = self._first[key]
                if known and (source.sentence.origin is not Origin.MACHINE or source.at >= known.at):
                    continue  # a person's sentence is not drawn into doubt by what was written later
                if not own.has(line.text, score, before=source.at):
                    found.append((score, position, key))
        taken = {line.key for line in self._lines} | self._sources()
        for score, position, key in sorted(found, key=lambda one: (-one[0], one[1])):
            line = self._lines[position]
            if line.settled is None and (score >= VERY_ALIKE or key not in taken):
                taken.add(key)
                self._put_edited(line, key)
        for line in self._lines:
            claimed = self._by_id.get(line.id or "")
            if line.settled is None and claimed is not None and claimed.origin is not Origin.HUMAN:
                self._put(line, claimed, Origin.EDITED, claimed)

    def _sources(self) -> set[str]:
        """The machine's words that a line already settled was made out of."""
        by_name = {
            (one.sentence.source or one.sentence.id, one.sentence.draft): key
            for key, one in self._first.items()
            if one.sentence.origin is Origin.MACHINE
        }
        settled = [line.settled for line in self._lines if line.settled and line.settled.origin is not Origin.HUMAN]
        return {by_name[name] for each in settled if (name := (each.source or each.id, each.draft)) in by_name}

    def _parts_of(self, line: _Line) -> Iterator[str]:
        """The machine's sentences that stand word for word, between two marks, in a longer line, however short they are."""
        parts = [same(part) for part in _MARKS.split(line.text)]
        for part in dict.fromkeys(parts) if len(parts) > 1 else ():
            first = self._first.get(part)
            if first is not None and first.sentence.origin is not Origin.HUMAN:
                yield part

    def _take_rest(self, line: _Line, beside: _Line) -> None:
        """The other half of a sentence that was split: what it says is what the half beside it leaves."""
        if line.settled or line.key in self._first or beside.near is None or line.section is not beside.section:
            return
        whole, half, asked = (wording(text) for text in (beside.near, beside.text, line.text))
        rest = {word: n - half.counts.get(word, 0) for word, n in whole.counts.items() if n > half.counts.get(word, 0)}
        if asked.weight and shared(asked.counts, rest) >= _LEAST_REST * asked.weight:
            self._put_edited(line, beside.near)

    def _leave_to_person(self) -> None:
        """What is left is a person's own, under the id of what they made it out of."""
        mine = [s for _, s in self._former if s.origin is Origin.HUMAN]
        index = Index([s.text for s in mine])
        left = [line for line in self._lines if line.settled is None]
        for line in left:
            former = self._former_of(line)
            if former is not None and former.origin is Origin.HUMAN:
                line.settled = Sentence(id=self._id_for(line, former), text=line.text, origin=Origin.HUMAN)
        for line in left:
            if line.settled is None:
                alike = (mine[at] for _, at in index.closest(line.text)) if line.id is None else iter(())
                former = next((one for one in alike if one.id not in self._used), None)
                line.settled = Sentence(id=self._id_for(line, former), text=line.text, origin=Origin.HUMAN)

    def _put_edited(self, line: _Line, key: str) -> None:
        line.near = key
        former = next((s for _, s in self._standing.get(key, ()) if s.origin is not Origin.HUMAN), None)
        self._put(line, former or self._first[key].sentence, Origin.EDITED, former)

    def _put(self, line: _Line, base: Sentence, origin: Origin, former: Sentence | None) -> None:
        """Settle a line on the sentence it is or was, under the id of the former revision's if it can be."""
        mine = self._id_for(line, former, base)
        itself = origin is Origin.MACHINE and base.source is None and base.draft is None and base.id == mine
        line.settled = Sentence(
            id=mine,
            text=line.text,
            origin=origin,
            source=None if itself else base.source or base.id,
            pictures=base.pictures,
            flags=base.flags if origin is base.origin else (),
            draft=base.draft,
        )

    def _former_of(self, line: _Line) -> Sentence | None:
        """The sentence of the former revision with these words: under this id, else in this section, else elsewhere."""
        same_words = self._standing.get(line.key, [])
        if line.id is not None:
            same_words = [one for one in same_words if one[1].id == line.id] or same_words
        else:
            same_words = [one for one in same_words if one[1].id not in self._used]
        return next((s for code, s in same_words if code is line.section), same_words[0][1] if same_words else None)

    def _id_for(self, line: _Line, former: Sentence | None, base: Sentence | None = None) -> str:
        """The client's id; else that of the sentence it was, if nobody bears it yet; else a new one."""
        if line.id is not None:
            return line.id
        wanted = [each.id for each in (former, base) if each is not None and (each is former or each.draft is None)]
        mine = next((each for each in wanted if each not in self._used), None)
        while mine is None:
            new = f"{line.section.value}-h{next(self._numbers)}"
            mine = new if new not in self._reserved and new not in self._used else None
        self._used.add(mine)
        return mine


class _Known:
    """The machine's sentences, edited or not; or people's own."""

    def __init__(self, first: Mapping[str, Said], *, own: bool) -> None:
        self._first = first
        self._keys = [key for key, one in first.items() if (one.sentence.origin is Origin.HUMAN) is own]
        self._oldest = min((first[key].at for key in self._keys), default=_LAST)
        self._index: Index | None = None  # most texts that are saved need none

    def closest(self, text: str, least: float) -> list[tuple[float, str]]:
        self._index = self._index or Index(self._keys)
        return [(score, self._keys[at]) for score, at in self._index.closest(text, least)]

    def has(self, text: str, least: float, *, before: datetime) -> bool:
        """Whether one of them that is at least as like the text was said before."""
        if self._oldest >= before:
            return False
        return any(self._first[key].at < before for _, key in self.closest(text, least))


def _as_said(former: Body) -> Iterator[Said]:
    """The former revision for itself: so much is sure that the machine's words came first."""
    for _, sentence in former.sentences():
        yield Said(sentence, _FIRST if sentence.origin is Origin.MACHINE else _LAST)


def _first_said(said: Iterable[Said]) -> dict[str, Said]:
    """Of each text who said it first; at the same time the machine, then who edited it.

    What several drafts say alike counts as the report's own draft's.
    """
    rank = (Origin.MACHINE, Origin.EDITED, Origin.HUMAN)
    first: dict[str, Said] = {}
    for one in sorted(said, key=lambda one: (one.at, rank.index(one.sentence.origin))):
        former = first.setdefault(same(one.sentence.text), one)
        if one.sentence.origin is former.sentence.origin and one.sentence.draft is None and former.sentence.draft:
            first[same(one.sentence.text)] = Said(one.sentence, former.at)
    return first
