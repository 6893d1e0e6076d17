"""`trace`: what became of one study, from the first byte to the last delivery.

Knows options and what is printed. Does not know where that is found (`record.timeline`).
"""

from __future__ import annotations

import click

from gateway.commands import admin_data_dir, administrating, as_json, example, say, site
from gateway.commands.studies import located, sites_of
from record.errors import NotFound
from record.ids import short
from record.terminal import cell, print_indented, print_json


@click.command(
    short_help="Show what became of a study, moment by moment.",
    epilog=example("countersign trace A2001", "countersign trace 1.2.826.0.1.3680043.8.498.1 --json"),
)
@admin_data_dir
@click.argument("study", metavar="ACCESSION|UID")
@site
@as_json
def trace(study: str, site: str | None, *, json: bool) -> None:
    """Show what became of a study: who sent it and when, why it was taken as complete, its readings, report and deliveries.

    The study is named by its accession number or its Study Instance UID. No patient's name and no words of a report are shown.
    What could not be told apart by study stands in `countersign associations list`.
    """
    from gateway.web.languages import ENGLISH
    from gateway.web.moments import told
    from record import associations, audit, timeline
    from record.alarms import age

    with administrating() as session:
        try:
            found, by = located(session, study, site)
        except NotFound as error:
            for one in associations.that_refused(session, study, sites_of(session, site)):
                say(f"under this UID something was refused: `countersign associations show {short(one.id)}`")
            raise NotFound(
                f"{error.message} Whether its sender was here, and what it was refused, `countersign associations list` "
                "says; what still waits in a spool, `countersign status`; what the sender has and we do not, "
                "`countersign reconcile`."
            ) from None
        moments = timeline.of_study(session, found)
        audit.write(session, "study_opened", by, study_id=found.id, revision=found.revision)
        facts = {"study_instance_uid": found.study_instance_uid, "state": found.state, "revision": found.revision}
    if json:
        told_of = [{"at": m.at, "until": m.until, "code": m.code, **m.facts} for m in moments]
        print_json(facts | {"moments": told_of})
        return
    began = moments[0].at if moments else None
    for moment in moments:
        after = f" (after {age((moment.at - began).total_seconds())})" if began and moment.at > began else ""
        click.echo(f"{cell(moment.at)}{after}")
        print_indented(told(ENGLISH, moment))
