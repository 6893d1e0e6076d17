"""Pages from templates: the Jinja environment and how values look on a page.

Knows filters and escaping (always on). Does not know routes or the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from record.body import SectionCode

_FOLDER = Path(__file__).parent / "templates"


def _person(name: str) -> str:
    """A DICOM person name for reading: `DOE^JOHN` is `DOE, JOHN` (PS3.5, 6.2.1)."""
    groups = [group for group in name.split("=") if group.strip("^ ")]
    family, *others = groups[0].split("^") if groups else [""]
    given = " ".join(part for part in others if part.strip())
    return f"{family}, {given}" if given else family


def _day(date: str) -> str:
    """A DICOM date for reading: `20260102` is `2026-01-02`; anything else stays as it was sent."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def _moment(at: datetime | None) -> str:
    """A time of ours, in UTC to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else ""


def _minute(at: datetime) -> str:
    """A time of ours for a table, in UTC to the minute."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _words(code: str | None) -> str:
    """A code as words."""
    return (code or "").replace("_", " ")


def _section(code: str) -> str:
    return SectionCode(code).title


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(person=_person, day=_day, moment=_moment, minute=_minute, words=_words, section=_section)
    return made


_templates = _environment()


def page(
    name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, visitor: Any = None, **values: Any
) -> HTMLResponse:
    """One page."""
    html = _templates.get_template(name).render(visitor=visitor, **values)
    return HTMLResponse(html, status, headers)
