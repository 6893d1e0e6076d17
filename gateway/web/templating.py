"""Pages from templates: the Jinja environment and how values look on a page.

Knows filters, escaping (always on) and which language and colours a page is in. Does not know routes or the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.web import languages, moments
from gateway.web.auth import BACKGROUND_PARAMETER
from record import alarms
from record.alarms import Alarm
from record.body import SectionCode

_FOLDER = Path(__file__).parent / "templates"
_UNITS = (languages.english("d"), languages.english("h"), languages.english("min"), languages.english("s"))
_SEXES = {"M": languages.english("M"), "F": languages.english("F"), "O": languages.english("O")}
_AGE = re.compile(r"(\d{1,3})([DWMY])")
"""An Age String (PS3.5, 6.2)."""
_AGES = {
    "D": languages.english("{count} d"),
    "W": languages.english("{count} wk"),
    "M": languages.english("{count} mo"),
    "Y": languages.english("{count} y"),
}
_WITHOUT_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Kana, ideographs and Hangul: family and given name stand side by side."""
_SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline, 8 bits",
    "1.2.840.10008.1.2.4.51": "JPEG Extended, 12 bits",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless, RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
"""Transfer syntaxes as people call them; pydicom, which knows them all, would bring its decoders into this process."""
APPEARANCE_COOKIE = "countersign_appearance"
APPEARANCES = ("auto", "light", "dark")


def _person(name: str) -> str:
    """A DICOM person name for reading: `WANG^XIAODONG=王^小东` is `WANG, XIAODONG 王小东` (PS3.5, 6.2.1).

    The third, phonetic, group is shown only where neither of the others is there.
    """
    groups = [_group(group) for group in name.split("=")]
    return " ".join(group for group in groups[:2] if group) or " ".join(group for group in groups[2:] if group)


def _group(group: str) -> str:
    family, *others = (part.strip() for part in group.split("^"))
    if _WITHOUT_SPACES.search(group):
        return "".join((family, *others))
    given = " ".join(part for part in others if part)
    return ", ".join(part for part in (family, given) if part)


def _day(date: str) -> str:
    """A DICOM date for reading: `20260102` is `2026-01-02`; anything else stays as it was sent."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def _clock(time: str) -> str:
    """A DICOM time for reading, to the minute: `093015.123` is `09:30`."""
    return f"{time[:2]}:{time[2:4]}" if len(time) >= 4 and time[:4].isdecimal() else time


def _moment(at: datetime | None) -> str:
    """A time of ours, in UTC to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else ""


def _time(at: datetime | None, said: str = "") -> Markup:
    """A time of ours as an element: in UTC as it stands, in the browser's own zone where `page.js` runs."""
    if at is None:
        return Markup()
    stated = {"at": at.isoformat(), "utc": _moment(at), "said": said or _moment(at)}
    return Markup('<time datetime="{at}" title="{utc}">{said}</time>').format(**stated)


def _translated(language: str, text: str, **values: object) -> str:
    """A sentence; an element among its values stays one."""
    if not any(isinstance(value, Markup) for value in values.values()):
        return languages.translate(language, text, **values)
    return Markup.escape(languages.translate(language, text)).format(**values)


def _minute(at: datetime) -> str:
    """A time of ours for a table, in UTC to the minute."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _since(language: str, at: datetime) -> str:
    """How long ago a time of ours is, in the two units that matter."""
    minutes = max(0, int((datetime.now(UTC) - at).total_seconds() // 60))
    days, hours = minutes // 1440, minutes // 60
    unit = {name: languages.translate(language, name) for name in _UNITS}
    if days:
        return f"{days} {unit['d']} {hours % 24} {unit['h']}"
    return f"{hours} {unit['h']} {minutes % 60} {unit['min']}" if hours else f"{minutes} {unit['min']}"


def _sex_age(language: str, who: Any) -> str:
    """A patient's sex and age for reading: `F` and `045Y` are `F, 45 y`; without an age, that of the study's day."""
    sex = languages.translate(language, _SEXES[who.patient_sex]) if who.patient_sex in _SEXES else who.patient_sex
    return ", ".join(part for part in (sex, _age(language, who)) if part)


def _age(language: str, who: Any) -> str:
    stated = _AGE.fullmatch(who.patient_age.strip())
    if stated:
        return languages.translate(language, _AGES[stated[2]], count=int(stated[1]))
    born, on = who.patient_birth_date, who.study_date
    if who.patient_age or not (len(born) == len(on) == 8 and (born + on).isdecimal() and born <= on):
        return str(who.patient_age)
    years = (int(on) - int(born)) // 10_000
    months = int(on[:4]) * 12 + int(on[4:6]) - int(born[:4]) * 12 - int(born[4:6]) - (on[6:] < born[6:])
    unit, count = ("Y", years) if years >= 2 else ("M", months)
    return languages.translate(language, _AGES[unit], count=count)


def _section(language: str, code: str) -> str:
    """The heading of a section. It is the page's, not the report's: the text that is edited has the English ones."""
    known = languages.catalogue(language).codes.get(code)
    return known[:1].upper() + known[1:] if known else SectionCode(code).title


def _lasting(language: str, seconds: float) -> str:
    """A duration, in the unit that matters."""
    number, unit = alarms.age(seconds).split(" ")
    return f"{number} {languages.translate(language, unit)}"


def _told(language: str, alarm: Alarm) -> str:
    """What an alarm says, with what stands in it: kinds and reasons as words, durations in the language's units."""
    values = {name: _told_value(language, name, value) for name, value in alarm.values.items()}
    return languages.translate(language, alarm.text, **values)


def _told_value(language: str, name: str, value: str | int) -> str | int:
    if name in {"age", "usual"}:
        number, unit = str(value).split(" ")
        return f"{number} {languages.translate(language, unit)}"
    return languages.of_code(language, str(value)) if name in alarms.CODED else value


def _syntax(uid: str) -> str:
    """What a transfer syntax is called, or its UID."""
    return _SYNTAXES.get(uid, uid)


@cache
def _environment(language: str) -> Environment:
    """The templates in one language: `t("English sentence", …)`, `code|words` and `message|said`, also inside macros."""
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        t=partial(_translated, language),
        lang=languages.TAGS[language],
        area="",
        background=BACKGROUND_PARAMETER,
    )
    made.filters.update(
        person=_person,
        day=_day,
        clock=_clock,
        moment=_moment,
        time=_time,
        minute=_minute,
        section=partial(_section, language),
        since=partial(_since, language),
        sex_age=partial(_sex_age, language),
        words=partial(languages.of_code, language),
        said=partial(languages.of_message, language),
        captioned=partial(languages.of_caption, language),
        lasting=partial(_lasting, language),
        told=partial(_told, language),
        happened=partial(moments.told, language),
        size=alarms.size,
        syntax=_syntax,
    )
    return made


def page(
    name: str,
    *,
    request: Request,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    visitor: Any = None,
    back: str | None = None,
    **values: Any,
) -> HTMLResponse:
    """One page, in the language and the colours that the browser asks for.

    Parameters
    ----------
    back
        Where a choice of language comes back to; without it to the page itself, unless that answers a form.
    """
    language = languages.language_of(request, visitor.principal.site_id if visitor else None)
    html = (
        _environment(language)
        .get_template(name)
        .render(
            visitor=visitor,
            language=language,
            languages=languages.NAMES,
            appearance=appearance_of(request),
            here=back or _here(request),
            **values,
        )
    )
    return HTMLResponse(html, status, {"Vary": "Cookie, Accept-Language", **(headers or {})})


def appearance_of(request: Request) -> str:
    """Light, dark, or as the device is set."""
    chosen = request.cookies.get(APPEARANCE_COOKIE, "auto")
    return chosen if chosen in APPEARANCES else "auto"


def _here(request: Request) -> str | None:
    """Where the page is, to come back to; None for the answer to a form, whose words would be lost."""
    if request.method != "GET":
        return None
    asked = urlencode(
        [(name, value) for name, value in request.query_params.multi_items() if name != BACKGROUND_PARAMETER]
    )
    return request.url.path + (f"?{asked}" if asked else "")
