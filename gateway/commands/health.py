"""`health`: whether one part on this machine works, for a container's health check or a supervisor's.

Asks each part where it can be asked honestly: the doors at their doors (a C-ECHO, `GET /readyz`), the others by the sign
of life that their own loop writes into the record, so that a process that hangs, or has lost its database, is not
healthy; nor is a gpu worker before its engine is open. Does not know how a part works.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import click

from gateway.commands import administrating, data_dir, example, say

LOOPS = {
    **{kind: kind for kind in ("indexer", "sweep", "courier", "cpu", "gpu")},
    "worker-cpu": "cpu",
    "worker-gpu": "gpu",
}
"""The parts without a door, by every name they bear, and what the record (and `status`) calls their kind."""


@click.command(
    short_help="Say by the exit status whether one part on this machine works.",
    epilog=example("countersign health listener", "countersign health worker-gpu --within 30"),
)
@data_dir
@click.argument("part", metavar="PART", type=click.Choice(["listener", "api", *LOOPS]))
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds since the last sign of life of a part without a door.",
)
def health(part: str, within_s: float) -> None:
    """Say by the exit status whether one part on this machine works: for a container's health check, or a supervisor's.

    PART is listener, api, indexer, sweep, courier, worker-cpu or worker-gpu; the workers also by the names that `status` gives them,
    cpu and gpu.
    """
    doors: dict[str, Callable[[], bool]] = {"listener": _listener_answers, "api": _api_answers}
    if part in doors:
        fine, lacking = doors[part](), "does not answer at its door"
    else:
        lacking = f"gave no sign for {within_s:.0f} s that it works on this machine"
        fine = _was_seen(LOOPS[part], within_s)
    if not fine:
        say(f"the {part} {lacking}")
        sys.exit(1)


def _listener_answers() -> bool:
    from gateway.launcher.readiness import dicom_answers
    from record.settings import ListenerSettings, load

    settings = load(ListenerSettings)
    return dicom_answers(settings.dicom_host, settings.dicom_port, settings.ae_title)


def _api_answers() -> bool:
    from gateway.launcher.readiness import http_answers
    from record.settings import ApiSettings, load

    settings = load(ApiSettings)
    return http_answers(settings.http_host, settings.http_port)


def _was_seen(kind: str, within_s: float) -> bool:
    from sqlalchemy import func, literal, or_, select

    from record.models import Part, Worker

    recent = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, literal(within_s))
    host = socket.gethostname()
    part = select(Part.owner).where(Part.kind == kind, Part.host == host, Part.seen_at > recent)
    worker = select(Worker.owner).where(
        Worker.kind == kind, Worker.owner.startswith(f"{host}:", autoescape=True), Worker.seen_at > recent
    )
    if kind == "gpu":
        worker = worker.where(Worker.model.is_not(None))
    with administrating() as session:
        return bool(session.scalar(select(or_(part.exists(), worker.exists()))))
