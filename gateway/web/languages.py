"""The languages of the pages: which one a browser gets, and how a sentence reads in it.

Knows the catalogues beside it (a key is the English text; codes have a part of their own) and the ways a language is
chosen. Does not know any page. What the record says of a patient (reports, drafts, banners, names) is never translated.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One language's sentences (by their English text), codes, and messages of the record's errors."""

    texts: Mapping[str, str]
    codes: Mapping[str, str]
    messages: Mapping[str, str]


@cache
def catalogue(language: str) -> Catalogue:
    """A language's catalogue; the English one is empty, since its sentences are the keys."""
    if language == ENGLISH:
        return Catalogue({}, {}, {})
    said = yaml.safe_load((_FOLDER / f"{language}.yaml").read_text("utf-8"))
    return Catalogue(said["texts"], said["codes"], said["messages"])


def english(text: str) -> str:
    """Mark a sentence that Python hands to a template: the catalogues must have it."""
    return text


def translate(language: str, text: str, **values: object) -> str:
    """An English sentence of ours in another language, with its `{placeholders}` filled."""
    said = catalogue(language).texts.get(text, text)
    return said.format(**values) if values else said


def of_code(language: str, code: str | None) -> str:
    """A code (a state, reason, flag, role …) as words; one that no catalogue has reads as it is spelt."""
    return catalogue(language).codes.get(code or "") or (code or "").replace("_", " ")


def of_message(language: str, message: str) -> str:
    """What an error says, where the catalogue has it; those that carry numbers or states stay English."""
    return catalogue(language).messages.get(message, message)


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
