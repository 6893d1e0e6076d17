"""The prompt: a protocol's step, filled with what may be told about the study, and its pictures.

Knows which facts may go into a prompt (age and sex, never a name, an identifier or a birth date) and how text from
outside is made harmless: header and order text is hostile. Does not know engines' templates, nor what the answer means.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from record.instances import InstanceHeader
from worker.engines import Message, Parameters, Picture, Prompt
from worker.protocols import Protocol, Step, age_y
from worker.selection import Chosen

MAX_CODE_CHARACTERS = 32
MAX_HISTORY_CHARACTERS = 1000
UNKNOWN = "unknown"
NONE_GIVEN = "none given"
_SEXES = {"F": "female", "M": "male"}
_SPECIAL = re.compile(r"[<>{}\[\]|`#\\▁]+")
"""What control tokens, placeholders and our own delimiters are made of: <|im_start|>, </s>, [INST], <image>, >>>."""
_ROLES = re.compile(r"\b(system|user|assistant|human|gpt|model|instruction|response)\s*:", re.IGNORECASE)
_NOT_CODE = re.compile(r"[^A-Za-z0-9 /,.+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingContext:
    """What is known of a study besides its pixels, when the prompt is composed.

    Attributes
    ----------
    patient_age
        As in the header (VR AS).
    laterality
        ``R`` or ``L`` where every picture is of that side.
    history
        Clinical information from orders, as sent.
    priors
        Texts of earlier signed reports that the model is given; none in this release.
    captions
        One a picture, in their order.
    """

    patient_age: str = ""
    patient_sex: str = ""
    modality: str = ""
    body_part: str = ""
    views: tuple[str, ...] = ()
    laterality: str = ""
    contrast: bool = False
    history: str = ""
    priors: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


def context_of(chosen: Sequence[Chosen], *, history: str = "") -> ReadingContext:
    """Gather the context from the headers of the chosen frames; the first picture's header speaks for the study."""
    if not chosen:
        return ReadingContext(history=history)
    headers = [c.instance.header for c in chosen]
    first = headers[0]
    sides = {h.image_laterality or h.laterality for h in headers}
    return ReadingContext(
        patient_age=_age(first),
        patient_sex=first.patient_sex,
        modality=first.modality,
        body_part=first.body_part_examined,
        views=tuple(dict.fromkeys(h.view_position for h in headers if h.view_position)),
        laterality=next(iter(sides)) if len(sides) == 1 and sides <= {"R", "L"} else "",
        contrast=any(h.contrast_bolus_agent.strip() for h in headers),
        history=history,
        captions=tuple(c.caption for c in chosen),
    )


def compose(
    protocol: Protocol,
    step: Step,
    context: ReadingContext,
    pictures: Sequence[Picture],
    *,
    seed: int = 0,
    deadline_s: float = 300.0,
    alone: bool = False,
) -> Prompt:
    """Compose the prompt of one step; the pictures go with the user's message, in their order.

    Parameters
    ----------
    seed
        For draws; without effect at temperature 0.
    alone
        The reading has failed before, so it shares no batch.
    """
    values = {
        "age": age_words(context.patient_age),
        "sex": _SEXES.get(context.patient_sex.strip().upper(), UNKNOWN),
        "modality": code(context.modality) or UNKNOWN,
        "body_part": code(context.body_part).lower() or UNKNOWN,
        "view": ", ".join(filter(None, map(code, context.views))) or UNKNOWN,
        "history": clean(context.history, MAX_HISTORY_CHARACTERS) or NONE_GIVEN,
        "pictures": _listed(context.captions, len(pictures)),
    }
    system, user = fill(step.system, values), fill(step.user, values)
    messages = [Message("system", system)] if system else []
    messages.append(Message("user", user, tuple(pictures)))
    parameters = Parameters(
        max_new_tokens=protocol.parameters.max_new_tokens,
        temperature=protocol.parameters.temperature,
        repetition_penalty=protocol.parameters.repetition_penalty,
        seed=seed,
    )
    return Prompt(tuple(messages), parameters, deadline_s=deadline_s, alone=alone)


def fill(template: str, values: dict[str, str]) -> str:
    """Put values into a template, once: braces in a value stay what they are."""
    return "".join(
        literal + (values[name] if name is not None else "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


def clean(text: str, cap: int) -> str:
    """Make text from outside fit for a prompt: one line, no control tokens or role markers, at most `cap` characters."""
    plain = unicodedata.normalize("NFKC", text[: 4 * cap])  # look-alikes become what they look like
    spaced = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in plain)
    unmarked = _ROLES.sub(r"\1 ", _SPECIAL.sub(" ", spaced))
    return " ".join(unmarked.split())[:cap].strip()


def code(text: str) -> str:
    """Make a coded header value (modality, body part, view) fit for a prompt: plain ASCII, short."""
    return " ".join(_NOT_CODE.sub(" ", clean(text, MAX_CODE_CHARACTERS)).split())


def age_words(patient_age: str) -> str:
    """Return an age in words: years, below two years months."""
    years = age_y(patient_age)
    if years is None or years > 130:
        return UNKNOWN
    return f"{int(years)} years" if years >= 2 else f"{int(years * 12)} months"


def _age(header: InstanceHeader) -> str:
    """Patient's Age, or what birth date and study date give; the dates themselves go nowhere."""
    if age_y(header.patient_age) is not None:
        return header.patient_age
    born, taken = header.patient_birth_date.strip(), header.study_date.strip()
    if not all(len(date) == 8 and date.isascii() and date.isdigit() for date in (born, taken)):
        return ""
    months = (int(taken[:4]) - int(born[:4])) * 12 + int(taken[4:6]) - int(born[4:6]) - (taken[6:] < born[6:])
    if not 0 <= months <= 130 * 12:
        return ""
    return f"{months // 12:03d}Y" if months >= 24 else f"{months:03d}M"


def _listed(captions: Sequence[str], count: int) -> str:
    told = [clean(c, 120) for c in captions[:count]]
    return "\n".join(f"{number}. {caption}" for number, caption in enumerate(told, start=1)) or NONE_GIVEN
