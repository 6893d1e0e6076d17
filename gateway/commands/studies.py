"""`studies`: what became of them, and what an operator may set going again.

Knows options and what is printed: no patient's name, number or words. Does not know any rule: those are the verbs of
`record.studies` and `record.readings`, asked as an operator of the study's own site.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, example, site
from record.errors import CountersignError
from record.states import ReadingState, ReportState, Role, StudyState
from record.terminal import print_json, print_table

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.orm import Session

    from record.access import Principal
    from record.models import Study

_named = click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
_MORE = 200
_FACTS = (
    *("study_instance_uid", "state", "revision", "instances", "modality", "lane", "reading_state", "reason_code"),
    *("report_state", "undecided_conflicts", "updated_at"),
)
_OF_REVISION = ("number", "images", "evidence_kind", "created_at")
_OF_READING = (
    *("revision", "purpose", "state", "reason_code", "failures", "protocol", "protocol_version", "model", "created_at"),
    "ended_at",
)
"""What is told of a study: nothing that names a patient, and no words."""


@click.group(
    "studies",
    cls=Ordered,
    short_help="What became of studies; have one closed or read again.",
    epilog=example(
        "countersign studies list --reading-state failed", "countersign studies retry 1.2.826.0.1.3680043.8.498.1"
    ),
)
def studies() -> None:
    """What became of studies, and what an operator may set going again.

    A study receives images until none came for a while (`up --stable-after`), is then ready and read, or skipped when it
    holds no image. A reading ends done (a draft), abstained (not analysed, with a reason) or failed.

    STUDY is a Study Instance UID, or an accession number that only one study has; what several studies, or sites, know
    by that name is refused until it is said exactly.
    """


@studies.command(
    "list",
    short_help="List studies, the newest change first.",
    epilog=example(
        "countersign studies list --reading-state failed", "countersign studies list --state receiving --json"
    ),
)
@admin_data_dir
@click.option("--state", type=click.Choice([s.value for s in StudyState]), help="Only studies that are so.")
@click.option("--reading-state", type=click.Choice([s.value for s in ReadingState]), help="Only with such a reading.")
@click.option("--report-state", type=click.Choice([s.value for s in ReportState]), help="Only with such a report.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="List so many at most.")
@site
@as_json
def list_studies(
    state: str | None, reading_state: str | None, report_state: str | None, limit: int, site: str | None, *, json: bool
) -> None:
    """List studies, the newest change first, by UID and state: nothing here names a patient."""
    from gateway.web.worklist import Filters, Row, list_studies
    from record.access import commander
    from record.sites import list_sites

    filters = Filters(
        state=StudyState(state) if state else None,
        reading_state=ReadingState(reading_state) if reading_state else None,
        report_state=ReportState(report_state) if report_state else None,
    )

    def pages(session: Session, by: Principal) -> Iterator[Row]:
        cursor, left = None, limit
        while left > 0:
            rows, cursor = list_studies(session, by, filters, limit=min(left, _MORE), cursor=cursor)
            yield from rows
            left -= len(rows)
            if cursor is None:
                return

    with administrating() as session:
        sites = {s.id: s.name for s in list_sites(session) if site in {None, s.name}} or _no_site(session, site)
        rows = [row for site_id in sites for row in pages(session, commander(site_id, Role.OPERATOR))]
        rows = sorted(rows, key=lambda row: row.study.updated_at, reverse=True)[:limit]
        found = [
            {
                "study_instance_uid": row.study.study_instance_uid,
                "site": sites[row.study.site_id],
                "state": row.study.state,
                "reading_state": row.reading_state,
                "reason_code": row.reason_code,
                "report_state": row.report.state if row.report else None,
                "modality": row.study.modality,
                "instances": row.study.instances,
                "updated_at": row.study.updated_at,
            }
            for row in rows
        ]
    if json:
        print_json(found)
        return
    titles = ("STUDY", "SITE", "STATE", "READING", "REASON", "REPORT", "MODALITY", "INSTANCES", "CHANGED")
    print_table(titles, [tuple(line.values()) for line in found])


@studies.command(
    "show",
    short_help="Show one study's revisions and readings.",
    epilog=example("countersign studies show 1.2.826.0.1.3680043.8.498.1"),
)
@admin_data_dir
@click.argument("study", metavar="STUDY")
@site
@as_json
def show(study: str, site: str | None, *, json: bool) -> None:
    """Show one study: when and why it was closed, and what each reading of it came to. No pictures, no words."""
    from gateway.web.opened import show_study
    from record import audit

    with administrating() as session:
        found, by = located(session, study, site)
        shown = show_study(session, found, by)
        audit.write(session, "study_opened", by, study_id=found.id, revision=found.revision)
    facts = {name: getattr(shown, name) for name in _FACTS}
    revisions = [{name: getattr(each, name) for name in _OF_REVISION} for each in shown.revisions]
    readings = [{name: getattr(each, name) for name in _OF_READING} for each in shown.readings]
    if json:
        print_json(facts | {"revisions": revisions, "readings": readings})
        return
    for lines in ([facts], revisions, readings):
        if lines:
            print_table([_title(name) for name in lines[0]], [tuple(line.values()) for line in lines])
            click.echo()


@studies.command(
    "close",
    short_help="Say that a receiving study is complete.",
    epilog=example("countersign studies close 1.2.826.0.1.3680043.8.498.1"),
)
@admin_data_dir
@_named
@site
def close(studies: tuple[str, ...], site: str | None) -> None:
    """Say that a receiving study is complete now, instead of waiting for its quiet time; it is then read.

    Images that come later reopen it, as they would any study.
    """
    from record import studies as records

    def closed(session: Session, study: Study, by: Principal) -> str:
        records.close(session, study.id, by=by)
        return f"closed at revision {study.revision}: {study.state}"

    _each(studies, site, closed)


@studies.command(
    "retry",
    short_help="Have a failed or abstained reading done again.",
    epilog=example(
        "countersign studies list --reading-state failed", "countersign studies retry 1.2.826.0.1.3680043.8.498.1"
    ),
)
@admin_data_dir
@_named
@site
def retry(studies: tuple[str, ...], site: str | None) -> None:
    """Have the newest reading of a study done again, after what made it fail or abstain is put right.

    It goes back to the queue with no failures counted. A draft that is done is never done again.
    """
    from record import readings
    from record import studies as records

    def retried(session: Session, study: Study, by: Principal) -> str:
        readings.retry(session, records.retriable(session, study), by=by)
        return "queued again"

    _each(studies, site, retried)


@studies.command(
    "read",
    short_help="Have a skipped study read after all.",
    epilog=example("countersign studies read 1.2.826.0.1.3680043.8.498.1"),
)
@admin_data_dir
@_named
@site
def read(studies: tuple[str, ...], site: str | None) -> None:
    """Have a skipped study read after all: a prior that was fetched for comparison counts as a study of its own from now on.

    It receives again, closes after its quiet time (or by `studies close`), and is then read. A study without any image stays
    skipped.
    """
    from record import studies as records

    def taken_up(session: Session, study: Study, by: Principal) -> str:
        records.read_skipped(session, study.id, by=by)
        return "receiving again"

    _each(studies, site, taken_up)


def _title(name: str) -> str:
    return name.replace("_", " ").upper()


def _each(names: tuple[str, ...], site: str | None, do: Callable[[Session, Study, Principal], str]) -> None:
    """Each study in a transaction of its own; one that is refused does not hold up the others."""
    refused = 0
    for number, name in enumerate(names, 1):
        which = "" if len(names) == 1 else f"study {number}: "
        try:
            with administrating() as session:
                done = do(session, *located(session, name, site))
        except CountersignError as error:
            if len(names) == 1:
                raise
            refused += 1
            done = error.message
        click.echo(f"countersign: {which}{done}", err=True)
    if refused:
        sys.exit(1)


def located(session: Session, name: str, site: str | None) -> tuple[Study, Principal]:
    """The study, and an operator of its site."""
    from record import studies as records
    from record.access import commander

    study = records.locate(session, name, sites_of(session, site))
    return study, commander(study.site_id, Role.OPERATOR)


def sites_of(session: Session, site: str | None) -> list[UUID]:
    """The one site that is named, or all."""
    from record.sites import find_site, list_sites

    return [each.id for each in ([find_site(session, site)] if site is not None else list_sites(session))]


def _no_site(session: Session, site: str | None) -> dict[Any, str]:
    from record.sites import find_site

    found = find_site(session, site)  # raises: there is none of this name
    return {found.id: found.name}
