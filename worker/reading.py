"""The whole reading, top to bottom: a study's frames become pictures, pictures become a draft.

`prepare`: match → select → decode → render. `draft`: each step compose → submit → parse, then checks over all. No
transaction is open in either: `load_case` (`cases`) reads before, the queue's door (`tasks`) writes after. A lost lease cancels.
Does not know how a reading was claimed, nor what any room does inside.
"""

from __future__ import annotations

import hashlib
import io
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from record.body import Body
from record.claims import PreparedPicture
from record.errors import Abstained, InvalidInstance, NotFound
from record.instances import InstanceHeader, StoredInstance
from record.models import ReadingPicture
from record.pipes import DecodingChild, Rendered
from record.settings import WorkerSettings
from record.states import ReasonCode
from record.store import Kind, Store
from worker.cases import Case
from worker.checks import check, gate_pictures
from worker.conversation import converse, spoken
from worker.engines import Engine, Picture
from worker.findings import parse_steps, to_body
from worker.kinds import SECTIONS
from worker.prompting import ReadingContext, context_of
from worker.protocols import Protocol, admit, bind, match_or_abstain, patient_age
from worker.provenance import as_shown, edges_of, provenance_of, rendering_of, step_of, top_of_counts
from worker.seeing import ChildEyes
from worker.selection import Chosen, Selection
from worker.selection import select as select_frames

_MOST_UNREADABLE = 16
"""Slices that may be left out of a reading because they cannot be decoded."""


class OutdatedPreparation(Exception):  # an outcome, not a fault
    """The pictures were made under a protocol this release does not have: prepare anew."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pictures that lie in the store, with the protocol and model that are bound."""

    protocol: Protocol
    model: str
    pictures: tuple[PreparedPicture, ...]
    omitted: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Drafted:
    """A draft, how it came about, and one row per engine call."""

    body: Body
    flags: tuple[str, ...]
    provenance: dict[str, Any]
    steps: tuple[dict[str, Any], ...]
    tokens: int


class PreparingRoom:
    """Where frames become pictures: a store and one warm decoding child."""

    def __init__(self, store: Store, settings: WorkerSettings) -> None:
        self._store = store
        self._settings = settings
        self._child = DecodingChild(settings.decode_memory_bytes, settings.decode_cpu_s)

    def prepare(self, case: Case, lost: threading.Event) -> Prepared:
        """Match, select, decode, render; put the pictures into the store.

        Raises
        ------
        Abstained
            Nothing is asked of such a study, the model may not be asked, or its frames cannot be shown.
        CancelledError
            The lease was lost on the way.
        """
        protocol = match_or_abstain(case.protocols, case.instances, case.site)
        model = bind(protocol, self._settings.model)
        made, omitted = self.show(case, protocol, lost)
        pictures = tuple(self._keep(chosen, picture) for chosen, picture in made)
        return Prepared(protocol, model, pictures, omitted)

    def show(
        self, case: Case, protocol: Protocol, lost: threading.Event
    ) -> tuple[list[tuple[Chosen, Rendered]], tuple[dict[str, Any], ...]]:
        """Select, decode, render; nothing is kept. Return the pictures, and what is left out and why.

        A slice that cannot be decoded is left out, with that as its reason, and another is chosen in its place; any other
        image that cannot be shown ends the reading.

        Raises
        ------
        Abstained, CancelledError
            As `prepare`.
        """
        eyes = ChildEyes(self._store, self._child, self._settings.decode_timeout_s, lambda: _halt(lost))
        unreadable: dict[str, str] = {}
        while True:
            left = [i for i in case.instances if i.instance_id not in unreadable]
            selection = select_frames(protocol, left, eyes, beside=case.beside, site=case.site)
            omitted = _told_omitted(selection, unreadable)
            try:
                _admit(protocol, selection)
                made = _made(selection.chosen, eyes, protocol.pictures.max_side)
                gate_pictures(protocol, [picture for _, picture in made], expected=len(made))
            except InvalidInstance as error:
                bad = str(error.facts.get("instance_id", ""))
                if _is_spare(bad, left) and len(unreadable) < _MOST_UNREADABLE:
                    unreadable[bad] = error.message
                    continue
                code = str(error.facts.get("reason_code") or ReasonCode.UNDECODABLE)
                raise Abstained(code, error.message, protocol=protocol.name, omitted=list(omitted)) from error
            except Abstained as end:
                end.facts |= {"omitted": list(omitted), "protocol": protocol.name}
                raise
            return made, omitted

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _keep(self, chosen: Chosen, picture: Rendered) -> PreparedPicture:
        digest = hashlib.sha256(picture.png).hexdigest()
        self._store.put(Kind.PICTURE, digest, picture.png)
        return PreparedPicture(
            instance_id=uuid.UUID(chosen.instance.instance_id),
            frame=chosen.frame,
            sha256=digest,
            height=picture.height,
            width=picture.width,
            caption=chosen.caption,
            reason=chosen.reason,
            rendering=rendering_of(chosen, picture),
        )


def _made(chosen: Sequence[Chosen], eyes: ChildEyes, max_side: int) -> list[tuple[Chosen, Rendered]]:
    """Render, and say of each picture what it came to be; counts of one series are shown on one scale."""
    made: list[tuple[Chosen, Rendered]] = []
    for one in chosen:
        picture = eyes.render(one, max_side)
        shown = as_shown(one, picture)
        if not any(_is_again(shown, picture, *other) for other in made):
            made.append((shown, picture))
    tops: dict[str, float] = {}
    for one, picture in made:
        if (top := top_of_counts(picture)) is not None:
            series = one.instance.header.series_instance_uid
            tops[series] = max(top, tops.get(series, 0.0))
    for number, (one, picture) in enumerate(made):
        top = tops.get(one.instance.header.series_instance_uid)
        if top and top_of_counts(picture) not in {None, top} and not one.more:
            scaled = replace(one, top=top)
            made[number] = (scaled, eyes.render(scaled, max_side))
    return made


def _is_again(one: Chosen, picture: Rendered, other: Chosen, shown: Rendered) -> bool:
    """Whether a frame looks the same through a second window: the windows did not fit its values."""
    same = (one.instance.instance_id, one.frame) == (other.instance.instance_id, other.frame)
    return same and one.window == other.window and picture.png == shown.png


def _halt(lost: threading.Event) -> None:
    if lost.is_set():
        raise CancelledError


def _told_omitted(selection: Selection, unreadable: dict[str, str]) -> tuple[dict[str, Any], ...]:
    return (
        *({"instance_id": instance_id, "reason": reason} for instance_id, reason in unreadable.items()),
        *({"instance_id": o.instance_id, "reason": o.reason} for o in selection.omitted),
        *({"role": role, "reason": "no image of the study plays this role"} for role in selection.missing),
    )


def _is_spare(instance_id: str, instances: Sequence[StoredInstance]) -> bool:
    """Whether others of its series can stand in for an instance: it is one slice of several."""
    found = next((i.header for i in instances if i.instance_id == instance_id), None)
    if found is None or found.modality not in SECTIONS or found.number_of_frames > 1:
        return False
    return sum(i.header.series_instance_uid == found.series_instance_uid for i in instances) > 1


def _admit(protocol: Protocol, selection: Selection) -> None:
    """The gate: the patient's age, and the pictures without which nothing is asked."""
    if selection.chosen:
        admit(protocol, patient_age(selection.chosen[0].instance.header))
    absent = [role for role in protocol.gate.required_roles if role in selection.missing]
    if absent:
        message = "The study lacks images that the protocol requires."
        raise Abstained(ReasonCode.NO_USABLE_FRAMES, message, roles=absent)


def draft(case: Case, engine: Engine, store: Store, lost: threading.Event, *, alone: bool) -> Drafted:
    """Run the protocol's steps and check what came of them.

    Parameters
    ----------
    alone
        The reading has failed before, so it shares no batch.

    Raises
    ------
    UnusableFindings, EngineRejected, EngineUnavailable, Abstained
        As the rooms say.
    CancelledError
        The lease was lost on the way.
    """
    protocol = case.bound
    if protocol is None:
        message = "The protocol this reading was prepared under is not in this release."
        raise OutdatedPreparation(message)
    pictures = [_load(store, row) for row in case.pictures]
    context = _context(case)
    said = converse(protocol, context, pictures, engine, lost, language=spoken(protocol, case.language), alone=alone)
    findings = parse_steps(said.texts, protocol, [p.digest for p in pictures], language=said.language)
    shown = [_Shown(bool(row.rendering.get("blank"))) for row in case.pictures]
    completions = [completion for _, completion in said.calls]
    findings, flags = check(findings, protocol, context, completions, pictures=shown, asked=said.asked)
    return Drafted(
        body=to_body(findings),
        flags=tuple(dict.fromkeys(f.name for f in flags)),
        provenance=provenance_of(case, protocol, engine, context, said),
        steps=tuple(step_of(step.name, completion) for step, completion in said.calls),
        tokens=sum(len(c.token_ids) for c in completions),
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    blank: bool


def _context(case: Case) -> ReadingContext:
    """What the model is told, from what a prepared reading has on record."""
    headers = {instance.instance_id: instance.header for instance in case.instances}
    shown = [(headers[r.instance_id.hex], r.caption, r.rendering.get("edges") or ()) for r in case.pictures]
    return _context_of(case, case.bound, shown, case.omitted)


def context_for(
    case: Case, protocol: Protocol, made: Sequence[tuple[Chosen, Rendered]], omitted: Sequence[dict[str, Any]]
) -> ReadingContext:
    """Return what the model would be told, with pictures that were just made."""
    shown = [(chosen.instance.header, chosen.caption, edges_of(chosen, picture)) for chosen, picture in made]
    return _context_of(case, protocol, shown, omitted)


def _context_of(
    case: Case,
    protocol: Protocol | None,
    shown: Sequence[tuple[InstanceHeader, str, Sequence[str]]],
    omitted: Sequence[dict[str, Any]],
) -> ReadingContext:
    wants_prior = protocol is not None and "prior_report" in protocol.context
    return context_of(
        [header for header, _, _ in shown],
        captions=[caption for _, caption, _ in shown],
        edges=[edges for _, _, edges in shown],
        history=case.history,
        prior_report=case.prior.text if case.prior and wants_prior else "",
        missing=[str(one["role"]) for one in omitted if "role" in one],
    )


def engine_pictures(made: Sequence[tuple[Chosen, Rendered]]) -> list[Picture]:
    """Return pictures that were just made as an engine takes them."""
    return [_picture(hashlib.sha256(picture.png).hexdigest(), picture.png) for _, picture in made]


def _load(store: Store, row: ReadingPicture) -> Picture:
    with store.open(Kind.PICTURE, row.sha256) as stored:
        content = stored.read()
    if hashlib.sha256(content).hexdigest() != row.sha256:
        message = "A picture of this reading is not what was stored."
        raise NotFound(message, sha256=row.sha256)
    return _picture(row.sha256, content)


def _picture(digest: str, png: bytes) -> Picture:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        pixels = np.asarray(image.convert("RGB"))  # (H, W, 3) uint8
    return Picture(digest, pixels)
