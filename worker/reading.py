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
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from record import readings
from record.body import Body
from record.claims import Claim, PreparedPicture
from record.errors import Abstained, InvalidInstance, NotFound
from record.instances import InstanceHeader, StoredInstance
from record.models import Reading, ReadingPicture, Study
from record.pipes import DecodingChild, Rendered
from record.settings import WorkerSettings
from record.states import ReasonCode
from record.store import Kind, Store
from worker.checks import check, gate_pictures
from worker.engines import Answer, Completion, Engine, Picture
from worker.findings import parse, to_body
from worker.prompting import compose, context_of
from worker.protocols import Protocol, bind, load_all, match_or_abstain
from worker.selection import Chosen
from worker.selection import select as select_frames

_ANSWER_S = 600.0
_LOOK_S = 0.5


class OutdatedPreparation(Exception):  # an outcome, not a fault
    """The pictures were made under a protocol this release does not have: prepare anew."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a reading starts from: the frozen images, their headers, and what is known besides."""

    reading_id: uuid.UUID
    study_id: uuid.UUID
    instances: tuple[StoredInstance, ...]
    pictures: tuple[ReadingPicture, ...]
    protocol_digest: str | None
    history: str


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
    study = session.get_one(Study, claim.study_id)
    rows = readings.instances_of(session, claim.revision_id)
    return Case(
        reading_id=claim.reading_id,
        study_id=claim.study_id,
        instances=tuple(
            StoredInstance(row.id.hex, row.sha256, InstanceHeader.from_dict(row.header)) for row in rows if row.header
        ),
        pictures=tuple(readings.pictures_of(session, claim.reading_id)),
        protocol_digest=session.scalar(select(Reading.protocol_digest).where(Reading.id == claim.reading_id)),
        history=study.history,
    )


class PreparingRoom:
    """Where frames become pictures: a store and one warm decoding child."""

    def __init__(self, store: Store, settings: WorkerSettings) -> None:
        self._store = store
        self._settings = settings
        self._child = DecodingChild(settings.decode_memory_bytes, settings.decode_cpu_s)

    def prepare(self, case: Case, lost: threading.Event) -> Prepared:
        """Match, select, decode, render.

        Raises
        ------
        Abstained
            Nothing is asked of such a study, the model may not be asked, or its frames cannot be shown.
        CancelledError
            The lease was lost on the way.
        """
        protocol = match_or_abstain(load_all(), case.instances)
        model = bind(protocol, self._settings.model)
        selection = select_frames(protocol, case.instances)
        omitted = tuple({"instance_id": o.instance_id, "reason": o.reason} for o in selection.omitted)
        try:
            rendered = [self._render(chosen, protocol, lost) for chosen in selection.chosen]
            gate_pictures(protocol, rendered, expected=len(selection.chosen))
        except InvalidInstance as error:
            code = str(error.facts.get("reason_code") or ReasonCode.UNDECODABLE)
            raise Abstained(code, error.message, omitted=list(omitted)) from error
        except Abstained as end:
            end.facts["omitted"] = list(omitted)
            raise
        pictures = tuple(
            self._keep(chosen, picture) for chosen, picture in zip(selection.chosen, rendered, strict=True)
        )
        return Prepared(protocol, model, pictures, omitted)

    def _render(self, chosen: Chosen, protocol: Protocol, lost: threading.Event) -> Rendered:
        if lost.is_set():
            raise CancelledError
        with self._store.local(Kind.INSTANCE, chosen.instance.instance_id) as path:
            return self._child.render(
                path,
                frame=chosen.frame,
                window=chosen.window,
                max_side=protocol.pictures.max_side,
                timeout_s=self._settings.decode_timeout_s,
            )

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
            rendering={
                "transform": dict(picture.transform),
                "pixel_digest": picture.pixel_digest,
                "window": chosen.window,
                "blank": picture.blank,
            },
        )


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
    protocol = _bound_protocol(case)
    chosen = _chosen(case)
    context = context_of(chosen, history=case.history)
    pictures = [_load(store, row) for row in case.pictures]
    digests = [p.digest for p in pictures]
    completions: list[Completion] = []
    steps: list[dict[str, Any]] = []
    for step in protocol.steps:
        prompt = compose(protocol, step, context, pictures, deadline_s=_ANSWER_S, alone=alone)
        completion = _await(engine.submit(prompt), lost)
        completions.append(completion)
        steps.append(_step(step.name, completion))
    findings = parse(completions[0].text, protocol, digests)
    shown = [_Shown(bool(row.rendering.get("blank"))) for row in case.pictures]
    findings, flags = check(findings, protocol, context, completions, pictures=shown)
    return Drafted(
        body=to_body(findings),
        flags=tuple(dict.fromkeys(f.name for f in flags)),
        provenance=_provenance(case, protocol, engine, completions),
        steps=tuple(steps),
        tokens=sum(len(c.token_ids) for c in completions),
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    blank: bool


def _bound_protocol(case: Case) -> Protocol:
    """The protocol the pictures were made for; another release's, or a changed one, is not replaced in silence."""
    for protocol in load_all():
        if protocol.digest == case.protocol_digest:
            return protocol
    message = "The protocol this reading was prepared under is not in this release."
    raise OutdatedPreparation(message)


def _chosen(case: Case) -> list[Chosen]:
    instances = {instance.instance_id: instance for instance in case.instances}
    return [
        Chosen(instances[row.instance_id.hex], row.frame, row.rendering.get("window"), row.caption, row.reason)
        for row in case.pictures
    ]


def _load(store: Store, row: ReadingPicture) -> Picture:
    with store.open(Kind.PICTURE, row.sha256) as stored:
        content = stored.read()
    if hashlib.sha256(content).hexdigest() != row.sha256:
        message = "A picture of this reading is not what was stored."
        raise NotFound(message, sha256=row.sha256)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        pixels = np.asarray(image.convert("RGB"))  # (H, W, 3) uint8
    return Picture(row.sha256, pixels)


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
        },
        "timing": {
            "first_token_s": round(completion.first_token_s, 4),
            "total_s": round(completion.total_s, 4),
            "batch_size": completion.batch_size,
            "batch_position": completion.batch_position,
        },
    }


def _provenance(case: Case, protocol: Protocol, engine: Engine, completions: Sequence[Completion]) -> dict[str, Any]:
    """Where the words came from: model, software, pictures and protocol (what was left out stands in the reading)."""
    instances = {i.instance_id: i for i in case.instances}
    return {
        "engine": engine.identity.as_dict(),
        "software": {
            "countersign": importlib.metadata.version("countersign"),
            "python": platform.python_version(),
        },
        "protocol": {"name": protocol.name, "version": protocol.version, "digest": protocol.digest},
        "pictures": [
            {
                "sha256": row.sha256,
                "instance_id": str(row.instance_id),
                "sop_instance_uid": instances[row.instance_id.hex].header.sop_instance_uid,
                "transfer_syntax_uid": instances[row.instance_id.hex].header.transfer_syntax_uid,
                "data_set_sha256": instances[row.instance_id.hex].sha256,
                "frame": row.frame,
                "caption": row.caption,
                "reason": row.reason,
                "rendering": row.rendering,
            }
            for row in case.pictures
        ],
        "context": {"history": bool(case.history), "priors": 0},
        "finish": [c.finish for c in completions],
    }


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
