"""Which protocol is for a study, and which model may be asked under it.

Knows the shipped protocols, those of a site beside them, and the order among them. Does not know where a site's come
from (`record.protocols`), nor what a protocol asks for.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable, Sequence
from pathlib import Path

from record.errors import Abstained
from record.instances import InstanceHeader, StoredInstance
from record.states import InstanceKind, ReasonCode
from worker.kinds import is_own
from worker.phantom import MODEL_DIR
from worker.protocols.schema import Protocol, age_y, load

PHANTOM_MODEL = "phantom"


@functools.cache
def load_all() -> tuple[Protocol, ...]:
    """Return every protocol that is shipped, in the order in which they are tried."""
    folder = importlib.resources.files(__package__)
    found = [
        load(entry.read_text(encoding="utf-8"), origin=f"the shipped protocol {entry.name}")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    ]
    return ordered(found)


def ordered(protocols: Iterable[Protocol]) -> tuple[Protocol, ...]:
    """Return protocols in the order in which they are tried: priority, then the most specific, then by name."""
    return tuple(sorted(protocols, key=lambda p: (-p.priority, -p.match.specificity, p.name)))


def with_own(shipped: Sequence[Protocol], own: Sequence[Protocol], hidden: Iterable[str] = ()) -> tuple[Protocol, ...]:
    """Return a site's protocols: its own take the place of shipped ones of the same name, hidden ones are left out."""
    taken = {p.name for p in own} | set(hidden)
    return ordered([*own, *(p for p in shipped if p.name not in taken)])


def match(protocols: Sequence[Protocol], instances: Sequence[StoredInstance], site: str = "") -> Protocol | None:
    """Return the first protocol, in their order, that accepts an image of the study, or None.

    Localizers, screen shots and labels have no say where the study has images of its own.
    """
    images = [i.header for i in instances if i.header.kind is InstanceKind.IMAGE]
    headers = [header for header in images if is_own(header)] or images
    for protocol in ordered(protocols):
        if any(protocol.match.accepts(header, site) for header in headers):
            return protocol
    return None


def match_or_abstain(protocols: Sequence[Protocol], instances: Sequence[StoredInstance], site: str = "") -> Protocol:
    """Return the protocol of a study.

    Raises
    ------
    Abstained
        No protocol is for such a study.
    """
    found = match(protocols, instances, site)
    if found is None:
        raise Abstained(ReasonCode.NO_PROTOCOL, "No reading protocol is for this kind of study.")
    return found


def bind(protocol: Protocol, default_model: str) -> str:
    """Return the model that is asked under a protocol.

    Raises
    ------
    Abstained
        The model is not competent for what the protocol asks.
    """
    model, gate = protocol.model or default_model, protocol.gate
    name = PHANTOM_MODEL if _is_phantom(model) else model
    if name in gate.not_models or (gate.models and name not in gate.models):
        reason = gate.not_models_reason or "This model is not competent for this protocol."
        raise Abstained(ReasonCode.UNSUPPORTED, reason, protocol=protocol.name, model=name)
    return model


def admit(protocol: Protocol, patient_age: str) -> None:
    """Let a patient pass the gate, by age alone.

    Raises
    ------
    Abstained
        The protocol is not for patients of this age, or the age is not known and matters.
    """
    least, most = protocol.gate.min_age_y, protocol.gate.max_age_y
    if least is None and most is None:
        return
    age = age_y(patient_age)
    if age is None:
        message = "The protocol is for some ages alone, and the patient's is not known."
        raise Abstained(ReasonCode.UNSUPPORTED, message, protocol=protocol.name)
    if (least is not None and age < least) or (most is not None and age > most):
        message = "The protocol is not for patients of this age."
        raise Abstained(ReasonCode.UNSUPPORTED, message, protocol=protocol.name)


def patient_age(header: InstanceHeader) -> str:
    """Return Patient's Age, or what birth date and study date give; the dates themselves go nowhere."""
    if age_y(header.patient_age) is not None:
        return header.patient_age
    born, taken = header.patient_birth_date.strip(), header.study_date.strip()
    if not all(len(date) == 8 and date.isascii() and date.isdigit() for date in (born, taken)):
        return ""
    months = (int(taken[:4]) - int(born[:4])) * 12 + int(taken[4:6]) - int(born[4:6]) - (taken[6:] < born[6:])
    if not 0 <= months <= 130 * 12:
        return ""
    return f"{months // 12:03d}Y" if months >= 24 else f"{months:03d}M"


def _is_phantom(model: str) -> bool:
    return model == PHANTOM_MODEL or Path(model).expanduser().resolve() == MODEL_DIR.resolve()
