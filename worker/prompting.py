"""The prompt: a protocol's step, filled with what may be told about the study, and its pictures.

Knows which facts may go into a prompt (age and sex, never a name, an identifier or a date of birth) and how text from
outside is made harmless: header and order text is hostile, and may name the patient. Does not know engines' templates,
nor what the answer means.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from record.instances import InstanceHeader
from worker.engines import Choice, Message, Parameters, Picture, Prompt
from worker.protocols import Language, Protocol, Step, Wording, age_y, patient_age, wording_of
from worker.views import laterality_of, view_of

MAX_CODE_CHARACTERS = 32
MAX_HISTORY_CHARACTERS = 1000
MAX_PRIOR_CHARACTERS = 2000
MAX_FINDINGS_CHARACTERS = 4000
_SPECIAL = re.compile(r"[<>{}\[\]|`#\\▁]+")
"""What control tokens, placeholders and our own delimiters are made of: <|im_start|>, </s>, [INST], <image>, >>>."""
_ROLES = re.compile(
    r"(?:\b(system|user|assistant|human|gpt|model|instruction|response)|(系统|用户|助手|指令))\s*:", re.IGNORECASE
)
_NOT_CODE = re.compile(r"[^A-Za-z0-9 /,.+-]+")
_NAME_PART = re.compile(r"[\^=\s,.]+")
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|ene|abr|ago|dic"
_DATES = re.compile(
    r"(?<!\d)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|(?:19|20)\d{6})(?!\d)"
    rf"|(?<!\d)\d{{1,2}}[\s.-]*(?:de\s+)?(?:{_MONTHS})[a-z]*\.?[\s.-]*(?:de\s+)?\d{{4}}(?!\d)"
    r"|\d{4}\s*年\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*日)?",
    re.IGNORECASE,
)
_LEAST_NAME, _LEAST_NUMBER = 2, 3
_PARTICLES = frozenset(
    {
        "de",
        "la",
        "las",
        "los",
        "del",
        "van",
        "von",
        "der",
        "den",
        "di",
        "da",
        "dos",
        "das",
        "le",
        "el",
        "al",
        "bin",
        "mr",
        "mrs",
        "dr",
    }
    | {"left", "right"}
)
"""Parts of names that are words of every text: taken out, they would take meaning with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingContext:
    """What is known of a study besides its pixels, when the prompt is composed.

    Attributes
    ----------
    patient_age
        As in the header (VR AS).
    laterality
        ``R`` or ``L`` where every picture is of that side.
    indication, history, labs
        Why the examination was asked for, what is known of the patient: as sent, identifiers taken out.
    prior_report
        Plain text of the patient's last signed report of such an examination, identifiers taken out.
    captions
        One a picture, in their order.
    missing
        Roles of the protocol that nothing in the study plays.
    patient_left_is_right
        In every picture the patient's left is at the right edge.
    """

    patient_age: str = ""
    patient_sex: str = ""
    modality: str = ""
    body_part: str = ""
    views: tuple[str, ...] = ()
    laterality: str = ""
    contrast: bool = False
    indication: str = ""
    history: str = ""
    labs: str = ""
    prior_report: str = ""
    captions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    patient_left_is_right: bool = False


def context_of(
    headers: Sequence[InstanceHeader],
    *,
    captions: Sequence[str] = (),
    edges: Sequence[Sequence[str]] = (),
    history: str = "",
    labs: str = "",
    prior_report: str = "",
    missing: Sequence[str] = (),
) -> ReadingContext:
    """Gather the context from the headers of the chosen frames; the first picture's header speaks for the study.

    Parameters
    ----------
    edges
        One a picture: where its left, right, top and bottom edge face in the patient.
    history, labs, prior_report
        What the record holds besides the images; names and numbers of the patient are taken out here.
    """
    if not headers:
        return ReadingContext()
    first = headers[0]
    sides = {laterality_of(h) for h in headers}
    told = next((h.additional_patient_history for h in headers if h.additional_patient_history), "")
    wanted = next((h.reason_for_study for h in headers if h.reason_for_study), "")
    return ReadingContext(
        patient_age=patient_age(first),
        patient_sex=first.patient_sex,
        modality=without_identity(first.modality, first),
        body_part=without_identity(first.body_part_examined, first),
        views=tuple(dict.fromkeys(view for h in headers if (view := without_identity(view_of(h), h)))),
        laterality=next(iter(sides)) if len(sides) == 1 and sides <= {"R", "L"} else "",
        contrast=any(h.contrast_bolus_agent.strip() for h in headers),
        indication=without_identity(wanted, first),
        history=without_identity(" ".join(filter(None, (history, told))), first),
        labs=without_identity(labs, first),
        prior_report=without_identity(prior_report, first),
        captions=tuple(captions),
        missing=tuple(missing),
        patient_left_is_right=bool(edges) and all(len(e) == 4 and e[1].startswith("L") for e in edges),
    )


def compose(
    protocol: Protocol,
    step: Step,
    context: ReadingContext,
    pictures: Sequence[Picture],
    *,
    language: Language = "en",
    findings: str = "",
    seed: int = 0,
    deadline_s: float = 300.0,
    alone: bool = False,
) -> Prompt:
    """Compose the prompt of one step; the pictures go with the user's message, in their order.

    Parameters
    ----------
    language
        One of the protocol's.
    findings
        What the model has said so far, for the steps that build on it.
    seed
        For draws; without effect at temperature 0.
    alone
        The reading has failed before, so it shares no batch.
    """
    ours = wording_of(language)
    values = _values(protocol, context, ours, language, len(pictures)) | {
        "findings": clean(findings, MAX_FINDINGS_CHARACTERS) or ours.labels.none_given,
    }
    values["question"] = fill(step.question.get(language, ""), values)
    system = fill(step.system.get(language, ours.system) if step.system else ours.system, values)
    user = fill(step.user[language] if step.user else getattr(ours.templates, step.kind), values)
    messages = [Message("system", system)] if system else []
    messages.append(Message("user", _tidy(user), tuple(pictures)))
    parameters = Parameters(
        max_new_tokens=step.max_new_tokens or protocol.parameters.max_new_tokens,
        temperature=protocol.parameters.temperature,
        repetition_penalty=protocol.parameters.repetition_penalty,
        seed=seed,
    )
    constraint = Choice((ours.yes, ours.no)) if step.kind == "ask" else None
    return Prompt(tuple(messages), parameters, constraint=constraint, deadline_s=deadline_s, alone=alone)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template, once: braces in a value stay what they are."""
    return "".join(
        literal + (values[name] if name is not None else "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


def clean(text: str, cap: int) -> str:
    """Make text from outside fit for a prompt: one line, no control tokens or role markers, at most `cap` characters."""
    plain = unicodedata.normalize("NFKC", text[: 4 * cap])  # look-alikes become what they look like
    spaced = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in plain)
    unmarked = _ROLES.sub(r"\1\2 ", _SPECIAL.sub(" ", spaced))
    return " ".join(unmarked.split())[:cap].strip()


def code(text: str) -> str:
    """Make a coded header value (modality, body part, view) fit for a prompt: plain ASCII, short."""
    return " ".join(_NOT_CODE.sub(" ", clean(text, MAX_CODE_CHARACTERS)).split())


def without_identity(text: str, *headers: InstanceHeader) -> str:
    """Take out what names the patient or a physician: their names' parts, numbers of theirs, and dates.

    Compared without accents, case and look-alikes. Particles of names and single ideographs stay, which are words of every
    text. What a header does not hold itself (a relative's name, an address) cannot be known here.
    """
    text = unicodedata.normalize("NFKC", text)
    for part in sorted({part for header in headers for part in _identity(header)}, key=len, reverse=True):
        edges = (r"(?<![^\W_])", r"(?![^\W_])") if part.isascii() else ("", "")
        found = re.finditer(edges[0] + re.escape(part) + edges[1], _alike(text))
        for match in reversed(list(found)):
            text = f"{text[: match.start()]} {text[match.end() :]}"
    return " ".join(_DATES.sub(" ", text).split())


def _identity(header: InstanceHeader) -> Iterator[str]:
    """What is looked for, as it is compared: the parts of names, and numbers as they are written and without their marks."""
    for name in (header.patient_name, header.referring_physician_name):
        for part in map(_alike, _NAME_PART.split(unicodedata.normalize("NFKC", name))):
            if len(part) >= _LEAST_NAME and part not in _PARTICLES:
                yield part
        whole = _alike("".join(_NAME_PART.split(name.split("=")[-1])))
        if not whole.isascii() and len(whole) >= _LEAST_NAME:
            yield whole
    for number in (header.patient_id, header.accession_number, header.patient_birth_date):
        plain = _alike(unicodedata.normalize("NFKC", number.strip()))
        yield from {n for n in (plain, "".join(filter(str.isalnum, plain))) if len(n) >= _LEAST_NUMBER}


def _alike(text: str) -> str:
    """The text in small letters without accents, each character in its place."""
    return "".join((unicodedata.normalize("NFKD", c)[:1].casefold() or c)[:1] for c in text)


def age_words(age: str, wording: Wording) -> str:
    """Return an age in words: years, below two years months."""
    years = age_y(age)
    if years is None or years > 130:
        return wording.labels.unknown
    in_years, count = years >= 2, int(years) if years >= 2 else int(years * 12)
    return (wording.labels.years if in_years else wording.labels.months).format(count=count)


def _values(
    protocol: Protocol, context: ReadingContext, ours: Wording, language: Language, pictures: int
) -> dict[str, str]:
    labels = ours.labels
    sexes = {"F": labels.female, "M": labels.male, "O": labels.other}
    told = {
        "age": age_words(context.patient_age, ours),
        "sex": sexes.get(context.patient_sex.strip().upper(), labels.unknown),
        "indication": clean(context.indication, MAX_HISTORY_CHARACTERS) or labels.none_given,
        "history": clean(context.history, MAX_HISTORY_CHARACTERS) or labels.none_given,
        "labs": clean(context.labs, MAX_HISTORY_CHARACTERS) or labels.none_given,
        "prior_report": clean(context.prior_report, MAX_PRIOR_CHARACTERS) or labels.none_given,
        "modality": code(context.modality) or labels.unknown,
        "body_part": code(context.body_part).lower() or labels.unknown,
        "view": ", ".join(filter(None, map(code, context.views))) or labels.unknown,
    }
    return told | {
        "context": "\n".join(_context_lines(protocol, context, ours, told)),
        "look_for": protocol.look_for.get(language, ""),
        "pictures": _listed(context.captions, pictures) or labels.none_given,
        "sections": ", ".join(ours.headings.get(s.value, s.value) for s in protocol.sections),
    }


def _context_lines(
    protocol: Protocol, context: ReadingContext, ours: Wording, told: Mapping[str, str]
) -> Iterator[str]:
    """A line for each fact that is known and that the protocol lets the model know."""
    labels = ours.labels
    for fact in ("modality", "body_part", "view", *protocol.context):
        if told[fact] not in {labels.unknown, labels.none_given}:
            yield f"{getattr(labels, fact)}: <<<{told[fact]}>>>"
    if context.missing:
        yield f"{labels.missing}: {', '.join(name.replace('_', ' ') for name in context.missing)}"
    if context.patient_left_is_right:
        yield labels.sides


def _listed(captions: Sequence[str], count: int) -> str:
    told = [clean(c, 160) for c in captions[:count]]
    return "\n".join(f"{number}. {caption}" for number, caption in enumerate(told, start=1))


def _tidy(text: str) -> str:
    """Without the empty lines that a value that is not there leaves."""
    return re.sub(r"\n{3,}", "\n\n", text).strip()
