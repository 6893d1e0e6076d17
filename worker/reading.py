"""The whole reading, top to bottom: a study's frames become pictures, pictures become a draft.

`prepare`: match → select → decode → render. `draft`: each step compose → submit → parse, then checks over all. No
transaction is open in either: `load_case` reads before, the queue's door (`tasks`) writes after. A lost lease cancels.
Does not know how a reading was claimed, nor what any room does inside.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import platform
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from record import readings
from record.body import Body
from record.claims import Claim, PreparedPicture
from record.errors import Abstained, EngineRejected, InvalidInstance, NotFound
from record.instances import InstanceHeader, StoredInstance
from record.models import Instance, Reading, ReadingPicture, Site, Study
from record.orientation import turned
from record.pipes import DecodingChild, Rendered
from record.priors import PriorReport, last_signed
from record.settings import WorkerSettings
from record.states import ReasonCode
from record.store import Kind, Store
from worker.checks import Asked, check, gate_pictures
from worker.engines import Answer, Completion, Engine, Picture
from worker.findings import parse_steps, to_body
from worker.prompting import ReadingContext, compose, context_of
from worker.protocols import (
    Language,
    Protocol,
    Step,
    admit,
    bind,
    match_or_abstain,
    patient_age,
    wording_of,
)
from worker.references import KEY_OBJECTS, PRESENTATION_STATES
from worker.seeing import ChildEyes
from worker.selection import Chosen, Selection
from worker.selection import select as select_frames
from worker.selection.units import SECTIONS
from worker.site_protocols import protocol_of_digest, protocols_of

_ANSWER_S = 600.0
_LOOK_S = 0.5
_MOST_UNREADABLE = 16
"""Slices that may be left out of a reading because they cannot be decoded."""


class OutdatedPreparation(Exception):  # an outcome, not a fault
    """The pictures were made under a protocol this release does not have: prepare anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a reading starts from: the frozen images, their headers, and what is known besides.

    Attributes
    ----------
    protocols
        What the site reads by, in the order in which they are tried.
    bound
        The protocol that the pictures were made under, if this release can load it.
    beside
        The study's key object selections and presentation states.
    prior
        The patient's last signed report of such an examination.
    """

    reading_id: uuid.UUID
    study_id: uuid.UUID
    site: str
    language: str
    instances: tuple[StoredInstance, ...]
    pictures: tuple[ReadingPicture, ...] = ()
    protocols: tuple[Protocol, ...] = ()
    bound: Protocol | None = None
    beside: tuple[StoredInstance, ...] = ()
    omitted: tuple[dict[str, Any], ...] = ()
    history: str = ""
    prior: PriorReport | None = None


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


def load_case(session: Session, claim: Claim) -> Case:
    """Everything a claimed reading needs from the record, at the moment the work begins."""
    reading = session.get_one(Reading, claim.reading_id)
    digest = reading.protocol_digest
    return case_of(
        session,
        session.get_one(Study, claim.study_id),
        revision_id=claim.revision_id,
        reading_id=claim.reading_id,
        pictures=readings.pictures_of(session, claim.reading_id),
        bound=protocol_of_digest(session, digest) if digest else None,
        omitted=reading.omitted or (),
    )


def case_of(
    session: Session,
    study: Study,
    *,
    revision_id: uuid.UUID,
    reading_id: uuid.UUID,
    pictures: Sequence[ReadingPicture] = (),
    bound: Protocol | None = None,
    omitted: Sequence[dict[str, Any]] = (),
) -> Case:
    """Gather what is known of a revision of a study, read or not."""
    site = session.get_one(Site, study.site_id)
    return Case(
        reading_id=reading_id,
        study_id=study.id,
        site=site.name,
        language=site.language,
        instances=_stored(readings.instances_of(session, revision_id)),
        pictures=tuple(pictures),
        protocols=protocols_of(session, study.site_id),
        bound=bound,
        beside=_stored(readings.beside(session, study.id, (KEY_OBJECTS, *PRESENTATION_STATES))),
        omitted=tuple(omitted),
        history=study.history,
        prior=last_signed(session, study),
    )


def _stored(rows: Sequence[Instance]) -> tuple[StoredInstance, ...]:
    return tuple(
        StoredInstance(row.id.hex, row.sha256, InstanceHeader.from_dict(row.header)) for row in rows if row.header
    )


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
                rendered = [eyes.render(chosen, protocol.pictures.max_side) for chosen in selection.chosen]
                gate_pictures(protocol, rendered, expected=len(selection.chosen))
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
            return list(zip(selection.chosen, rendered, strict=True)), omitted

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


def rendering_of(chosen: Chosen, picture: Rendered) -> dict[str, Any]:
    """Say how a picture came about, as plain values."""
    told: dict[str, Any] = {
        "transform": dict(picture.transform),
        "pixel_digest": picture.pixel_digest,
        "window": chosen.window,
        "blank": picture.blank,
        "edges": list(_edges(chosen, picture)),
        "bytes": len(picture.png),
    }
    if chosen.more:
        told["more"] = [[other.header.sop_instance_uid, frame] for other, frame in chosen.more]
    if chosen.region:
        told["region"] = asdict(chosen.region)
    if chosen.state:
        told["state"] = chosen.state.header.sop_instance_uid
    return told


def _edges(chosen: Chosen, picture: Rendered) -> tuple[str, ...]:
    """Where the edges of the picture face, a presentation state's turns included."""
    spatial = picture.transform.get("spatial")
    return turned(chosen.edges, spatial["rotation"], flipped=spatial["flip"]) if spatial else chosen.edges


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
        provenance=_provenance(case, protocol, engine, context, said),
        steps=tuple(_step(step.name, completion) for step, completion in said.calls),
        tokens=sum(len(c.token_ids) for c in completions),
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What the model answered, step by step."""

    language: Language
    calls: tuple[tuple[Step, Completion], ...]
    unanswered: tuple[Step, ...] = ()
    """Questions of yes or no that the engine answered with neither."""

    @property
    def texts(self) -> list[tuple[Step, str]]:
        """The answers that are words of the draft."""
        return [(step, completion.text) for step, completion in self.calls if step.kind != "ask"]

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The answers to questions of yes or no."""
        yes = wording_of(self.language).yes
        return tuple(
            Asked(
                step=step.name,
                question=step.question.get(self.language, ""),
                about=step.about.get(self.language, ()),
                is_yes=completion.text == yes,
                probability=completion.choices.get(yes),
                mass=completion.choice_mass,
            )
            for step, completion in self.calls
            if step.kind == "ask"
        )


def spoken(protocol: Protocol, language: str) -> Language:
    """Return the language to ask in: the site's, if the protocol has it, else the first that it has."""
    return next((known for known in protocol.languages if known == language), protocol.languages[0])


def converse(
    protocol: Protocol,
    context: ReadingContext,
    pictures: Sequence[Picture],
    engine: Engine,
    lost: threading.Event,
    *,
    language: Language,
    alone: bool,
) -> Said:
    """Ask the protocol's steps one after the other, each knowing what was said before it.

    A question of yes or no that is answered with neither is noted, and the reading goes on: the description stands.

    Raises
    ------
    EngineRejected, EngineUnavailable, TimeoutError, CancelledError
        As the engine says.
    """
    calls: list[tuple[Step, Completion]] = []
    unanswered: list[Step] = []
    findings = ""
    for step in protocol.steps:
        prompt = compose(
            protocol,
            step,
            context,
            pictures,
            language=language,
            findings=findings,
            deadline_s=_ANSWER_S,
            alone=alone,
        )
        try:
            completion = _await(engine.submit(prompt), lost)
        except EngineRejected as error:
            if step.kind != "ask" or error.facts.get("reason") != "constraint":
                raise
            unanswered.append(step)
            continue
        calls.append((step, completion))
        if step.kind != "ask":
            findings = f"{findings} {completion.text}".strip()
    return Said(language, tuple(calls), tuple(unanswered))


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
    shown = [(chosen.instance.header, chosen.caption, _edges(chosen, picture)) for chosen, picture in made]
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


def asking(completion: Completion, language: Language) -> str:
    """Say how sure the model was of a yes: its own probability, which nothing has calibrated."""
    probability = completion.choices.get(wording_of(language).yes)
    if probability is None:
        return "the engine tells no probability"
    return f"yes with {probability:.2f}, of {completion.choice_mass:.2f} on either answer"


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


def _await(answer: Answer, lost: threading.Event) -> Completion:
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            return answer.result(_LOOK_S)
        except TimeoutError:
            if time.monotonic() >= deadline:
                answer.cancel()
                raise
        if lost.is_set():
            answer.cancel()
            raise CancelledError


def _step(name: str, completion: Completion) -> dict[str, Any]:
    return {
        "prompt": completion.rendered_prompt,
        "prompt_sha256": _sha(completion.rendered_prompt),
        "completion": completion.text,
        "completion_sha256": _sha(completion.text),
        "parameters": {"step": name, **dict(completion.parameters)},
        "finish": completion.finish,
        "tokens": {
            "ids": list(completion.token_ids),
            "logprobs": [round(v, 4) for v in completion.token_logprobs],
            "prompt": completion.prompt_tokens,
            **({"choices": dict(completion.choices), "mass": completion.choice_mass} if completion.choices else {}),
        },
        "timing": {
            "first_token_s": round(completion.first_token_s, 4),
            "total_s": round(completion.total_s, 4),
            "batch_size": completion.batch_size,
            "batch_position": completion.batch_position,
        },
    }


def _provenance(case: Case, protocol: Protocol, engine: Engine, context: ReadingContext, said: Said) -> dict[str, Any]:
    """Where the words came from: model, software, protocol, what was shown, what was left out, what was told and asked."""
    headers = {i.instance_id: i for i in case.instances}
    return {
        "engine": engine.identity.as_dict(),
        "software": {
            "countersign": importlib.metadata.version("countersign"),
            "python": platform.python_version(),
        },
        "protocol": {
            "name": protocol.name,
            "version": protocol.version,
            "digest": protocol.digest,
            "draft_language": said.language,
        },
        "pictures": [
            {
                "sha256": row.sha256,
                "instance_id": str(row.instance_id),
                "sop_instance_uid": headers[row.instance_id.hex].header.sop_instance_uid,
                "transfer_syntax_uid": headers[row.instance_id.hex].header.transfer_syntax_uid,
                "data_set_sha256": headers[row.instance_id.hex].sha256,
                "frame": row.frame,
                "height": row.height,
                "width": row.width,
                "caption": row.caption,
                "reason": row.reason,
                "rendering": row.rendering,
            }
            for row in case.pictures
        ],
        "omitted": list(case.omitted),
        "context": {
            "told": [fact for fact in protocol.context if _is_told(context, fact)],
            "prior_report": str(case.prior.report_id) if case.prior and context.prior_report else None,
        },
        "questions": [
            {
                "step": a.step,
                "question": a.question,
                "yes": a.is_yes,
                "probability": _rounded(a.probability),
                "mass": _rounded(a.mass),
            }
            for a in said.asked
        ]
        + [
            {"step": step.name, "question": step.question.get(said.language, ""), "yes": None}
            for step in said.unanswered
        ],
        "finish": [completion.finish for _, completion in said.calls],
    }


def _is_told(context: ReadingContext, fact: str) -> bool:
    return bool(getattr(context, {"age": "patient_age", "sex": "patient_sex"}.get(fact, fact)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
