"""How alike two sentences are: whether one was made out of the other.

Knows words and letters. Does not know who wrote a sentence. A Chinese character counts as a word; a word weighs its
letters, so that "is", "the" and "no" make no two sentences alike.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

ALIKE = 0.45
"""From here on one sentence may have been made out of the other."""
VERY_ALIKE = 0.8
"""From here on one sentence is nearly the other's words, or a part of them."""
_FEW_WORDS = 4
_LEAST_LETTERS = 0.6  # what two short sentences share of their letters; below, letters agree by chance
_LEAST_PART = 0.75  # what of the shorter sentence's pairs of words stands in the longer one
_LEAST_PART_WEIGHT = 10  # "the heart is" stands in too many sentences
_MOST = 12
_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3100-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_PIECE = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|\s+|.", re.DOTALL)
_CHARACTER = re.compile(f"[{_CJK}]")
_SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_END = " .。．,，;；:："


@dataclass(frozen=True, slots=True)
class Wording:
    """A sentence as it is compared: its words and how often each stands in it, its pairs of words, its pairs of letters."""

    words: tuple[str, ...]
    counts: Mapping[str, int]
    weight: int
    pairs: frozenset[tuple[str, str]]
    letters: frozenset[str]


def same(text: str) -> str:
    """What two texts have in common that are the same but for spaces, case and the mark at their end."""
    plain = " ".join(unicodedata.normalize("NFKC", _SELECTORS.sub("", text)).casefold().split())
    return plain.rstrip(_END) or plain


def pieces(text: str) -> list[str]:
    """A text cut into words, spaces and marks; joined they are the text."""
    return _PIECE.findall(text)


def wording(text: str) -> Wording:
    """A text made ready to be compared."""
    plain = same(text)
    words = tuple(_WORD.findall(plain))
    short = len(words) <= _FEW_WORDS
    return Wording(
        words=words,
        counts=Counter(words),
        weight=sum(map(weight, words)),
        pairs=frozenset(pairwise(words)),
        letters=frozenset(a + b for a, b in pairwise(plain)) if short else frozenset(),
    )


def weight(word: str) -> int:
    """How much a word counts: its letters; a Chinese character counts as two."""
    return 2 if _CHARACTER.match(word) else len(word)


def shared(part: Mapping[str, int], whole: Mapping[str, int]) -> int:
    """The weight of the words that both have."""
    return sum(weight(word) * min(n, whole[word]) for word, n in part.items() if word in whole)


def likeness(one: Wording, other: Wording) -> float:
    """How alike two sentences are, from 0 to 1: by their words, if short by their letters, or one as part of the other."""
    if not one.words or not other.words:
        return 0.0
    few, many = (one, other) if len(one.words) <= len(other.words) else (other, one)
    by_words = 2 * shared(few.counts, many.counts) / (few.weight + many.weight)
    return max(by_words, _by_letters(few, many), _as_part(few, many))


def _by_letters(one: Wording, other: Wording) -> float:
    if not one.letters or not other.letters:
        return 0.0
    alike = 2 * len(one.letters & other.letters) / (len(one.letters) + len(other.letters))
    return alike if alike >= _LEAST_LETTERS else 0.0


def _as_part(few: Wording, many: Wording) -> float:
    if len(few.words) < 3 or few.weight < _LEAST_PART_WEIGHT:
        return 0.0
    part = len(few.pairs & many.pairs) / len(few.pairs)
    return part if part >= _LEAST_PART else 0.0


class Index:
    """Sentences among which those are found quickly that a text is like."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._wordings = [wording(text) for text in texts]
        self._sizes = [len(known.words) for known in self._wordings]
        self._having: dict[str, list[int]] = defaultdict(list)
        self._lettered: dict[str, list[int]] = defaultdict(list)
        for at, known in enumerate(self._wordings):
            for word in known.counts:
                self._having[word].append(at)
            for pair in known.letters:
                self._lettered[pair].append(at)

    def closest(self, text: str, least: float = ALIKE) -> list[tuple[float, int]]:
        """The likest sentences with their places, the likest first, none below `least`.

        Only those are compared that share most words (or letters); how many is bounded, so that a long text of sentences
        that are all alike takes no time.
        """
        asked = wording(text)
        size = len(asked.words)
        common = _count(self._having, asked.counts)
        by_words = [(n / (size + self._sizes[at]) + n / min(size, self._sizes[at]), at) for at, n in common.items()]
        by_letters = [
            (n / len(self._wordings[at].letters), at) for at, n in _count(self._lettered, asked.letters).items()
        ]
        likely = {at for ranked in (by_words, by_letters) for _, at in heapq.nlargest(_MOST, ranked)}
        scored = ((likeness(asked, self._wordings[at]), at) for at in likely)
        return sorted((one for one in scored if one[0] >= least), key=lambda one: (-one[0], one[1]))


def _count(places: Mapping[str, list[int]], parts: Iterable[str]) -> Counter[int]:
    found: Counter[int] = Counter()
    for part in parts:
        found.update(places.get(part, ()))
    return found
