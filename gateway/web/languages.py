"""The languages of the pages: which one a browser gets, and how a sentence reads in it.

Knows the catalogues beside it (a key is the English text; codes have a part of their own) and the ways a language is
chosen. Does not know any page. What the record says of a patient (reports, drafts, banners, names) is never translated.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from fastapi import Request
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from gateway.web.context import web_of
from record.db import transaction
from record.models import Site

COOKIE = "countersign_language"
ENGLISH = "en"
NAMES: Mapping[str, str] = {ENGLISH: "English", "es": "Español", "zh": "简体中文"}
"""Every language of the pages, in its own words."""
TAGS: Mapping[str, str] = {ENGLISH: "en", "es": "es", "zh": "zh-Hans"}
"""What stands in `<html lang>` (BCP 47)."""
_FOLDER = Path(__file__).parent / "languages"
_CODE = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One language's sentences (by their English text), codes, and messages of the record's errors."""

    texts: Mapping[str, str]
    codes: Mapping[str, str]
    messages: Mapping[str, str]
    patterns: Sequence[tuple[re.Pattern[str], str]] = ()
    """The messages with `{placeholders}`, as what their sentences look like when these are filled."""


@cache
def catalogue(language: str) -> Catalogue:
    """A language's catalogue; the English one is empty, since its sentences are the keys."""
    if language == ENGLISH:
        return Catalogue({}, {}, {})
    said = yaml.safe_load((_FOLDER / f"{language}.yaml").read_text("utf-8"))
    patterns = [(_pattern(key), text) for key, text in said["messages"].items() if "{" in key]
    return Catalogue(said["texts"], said["codes"], said["messages"], patterns)


def _pattern(message: str) -> re.Pattern[str]:
    """What a sentence looks like whose placeholders are filled; two of them never stand side by side."""
    parts = re.split(r"\{(\w+)\}", message)
    return re.compile(
        "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)), re.DOTALL
    )


def english(text: str) -> str:
    """Mark a sentence that Python hands to a template: the catalogues must have it."""
    return text


def translate(language: str, text: str, **values: object) -> str:
    """An English sentence of ours in another language, with its `{placeholders}` filled."""
    said = catalogue(language).texts.get(text, text)
    return said.format(**values) if values else said


def of_code(language: str, code: str | None) -> str:
    """A code (a state, reason, flag, role …) as words; one that no catalogue has reads as it is spelt.

    What is no code, but a sentence (why a picture was chosen or left out), reads as a message does.
    """
    code = code or ""
    if " " in code and code not in catalogue(language).codes:
        return of_message(language, code)
    return catalogue(language).codes.get(code) or (code.replace("_", " ") if _CODE.fullmatch(code) else code)


def of_message(language: str, message: str) -> str:
    """What an error, or whoever chose a picture, says; what stands in its placeholders reads as a code does.

    A sentence that no catalogue has stays English.
    """
    known = catalogue(language)
    if said := known.messages.get(message) or known.texts.get(message):
        return said
    for pattern, said in known.patterns:
        if found := pattern.fullmatch(message):
            return said.format(**{name: known.codes.get(value, value) for name, value in found.groupdict().items()})
    return message


def of_caption(language: str, caption: str) -> str:
    """What the model was told a picture is, part by part."""
    return ", ".join(of_message(language, part) for part in caption.split(", "))


def language_of(request: Request, site_id: uuid.UUID | None = None) -> str:
    """The language a page is answered in: as chosen, as the browser wants, as the site has it, else English."""
    chosen = request.cookies.get(COOKIE, "")
    if chosen in NAMES:
        return chosen
    wanted = request.headers.get("accept-language", "")
    return _accepted(wanted) if wanted.strip(" *") else _of_site(request, site_id)


def _accepted(header: str) -> str:
    """The best of ours in an Accept-Language header (RFC 9110, 12.5.4); English if none is."""
    ranked: list[tuple[float, str]] = []
    for part in header[:1000].split(","):
        tag, _, weight = part.partition(";")
        primary = tag.strip().lower().partition("-")[0]
        try:
            quality = float(weight.partition("=")[2]) if weight.strip() else 1.0
        except ValueError:
            continue
        if primary in NAMES and quality > 0:
            ranked.append((quality, primary))
    return max(ranked, key=lambda one: one[0])[1] if ranked else ENGLISH


def _of_site(request: Request, site_id: uuid.UUID | None) -> str:
    """The site's language; before anybody has signed in, the one that all sites share."""
    asked = select(Site.language).distinct()
    if site_id is not None:
        asked = asked.where(Site.id == site_id)
    try:
        with transaction(web_of(request).engine) as session:
            known = session.scalars(asked).all()
    except SQLAlchemyError:  # a page that says so must still come
        return ENGLISH
    primary = known[0].partition("-")[0] if len(known) == 1 else ENGLISH
    return primary if primary in NAMES else ENGLISH
