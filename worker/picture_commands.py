"""`pictures` and `protocols try`: what the model would be shown, told and asked about a stored study; nothing is kept.

Knows options, what is printed, and that opening a study is an event. Does not know how pictures are chosen or made
(`reading`), nor how an engine answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from record.errors import Abstained, NotFound
from record.terminal import (
    as_json,
    counted,
    example,
    one_transaction,
    print_indented,
    print_json,
    print_table,
    printable,
    say,
)
from worker.protocol_commands import protocols, read_protocol, which_site

if TYPE_CHECKING:
    from record.pipes import Rendered
    from record.settings import WorkerSettings
    from worker.cases import Case
    from worker.protocols import Protocol
    from worker.selection import Chosen

    Made = Sequence[tuple[Chosen, Rendered]]

sheet_file = click.option(
    "--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write the pictures side by side to this PNG."
)


@click.command(
    "pictures",
    short_help="Show which pictures of a study the model is given, and why.",
    epilog=example("countersign pictures A2001 --sheet out.png", "countersign pictures A2001 --protocol mine.yaml"),
)
@click.argument("study", metavar="ACCESSION|UID")
@click.option("--protocol", metavar="NAME|FILE", help="Under this protocol; without it, under the one that fits.")
@sheet_file
@which_site
@as_json
def pictures(study: str, protocol: str | None, sheet: Path | None, site: str | None, *, json: bool) -> None:
    """Make the pictures of a study as a reading would, and say of each why it was chosen, and what was left out and why.

    The study is named by its accession number or its Study Instance UID. That it was opened is on record; nothing else is
    changed, and no model is asked.
    """
    settings = _settings()
    case = _opened(settings, study, site)
    chosen = _protocol(case, protocol)
    made, omitted = _shown(settings, case, chosen)
    if json:
        print_json(_told(case, chosen, made, omitted))
    else:
        _print_pictures(chosen, made, omitted)
    _write_sheet(sheet, chosen, made)


@protocols.command(
    "try",
    short_help="Read one study under a protocol, and keep nothing.",
    epilog=example(
        "countersign protocols try mine.yaml --study A2001",
        "countersign protocols try mine.yaml --study A2001 --sheet out.png",
    ),
)
@click.argument("protocol", metavar="FILE|NAME")
@click.option("--study", required=True, metavar="ACCESSION|UID", help="A stored study.")
@click.option("--language", type=click.Choice(["en", "es", "zh"]), help="Instead of the site's.")
@click.option("--prompt-only", is_flag=True, help="Ask no model.")
@sheet_file
@which_site
def try_protocol(
    protocol: str, study: str, language: str | None, sheet: Path | None, site: str | None, *, prompt_only: bool
) -> None:
    """Show the pictures, the prompt and the answer that a protocol would lead to, whether or not it is for such a study.

    Nothing is kept but the event of opening the study. The answer is a draft that nobody has reviewed.
    """
    from worker.conversation import spoken
    from worker.protocols import bind

    settings = _settings()
    case = _opened(settings, study, site)
    tried = _protocol(case, protocol)
    if not any(tried.match.accepts(i.header, case.site) for i in case.instances):
        say(f"{tried.name} is not for this study by its match rule: nothing of it would be shown")
    made, omitted = _shown(settings, case, tried)
    _print_pictures(tried, made, omitted)
    _write_sheet(sheet, tried, made)
    said_in = spoken(tried, language or case.language)
    if said_in != (language or case.language):
        say(f"the protocol has no texts in {language or case.language}: it is asked in {said_in}")
    model = settings.model
    try:
        model = bind(tried, settings.model)
    except Abstained as end:
        say(f"no answer: {end.message}")
        prompt_only = True
    _converse(settings, case, tried, made, omitted, said_in, None if prompt_only else model)


def _settings() -> WorkerSettings:
    from record.settings import WorkerSettings, load

    return load(WorkerSettings)


def _opened(settings: WorkerSettings, named: str, site: str | None) -> Case:
    """The newest revision of a study; that somebody opened it is on record before anything is shown.

    Raises
    ------
    NotFound
        There is no such study, or it was never taken as complete.
    """
    import uuid

    from sqlalchemy import select

    from record import audit, studies
    from record.access import commander
    from record.models import StudyRevision
    from record.sites import find_site, list_sites
    from record.states import Role
    from worker.cases import case_of

    with one_transaction(settings.database_url) as session:
        sites = [find_site(session, site)] if site else list_sites(session)
        found = studies.locate(session, named, [one.id for one in sites])
        revision = session.scalars(
            select(StudyRevision)
            .where(StudyRevision.study_id == found.id)
            .order_by(StudyRevision.number.desc())
            .limit(1)
        ).first()
        if revision is None:
            raise NotFound("The study is still receiving: no revision of its images is frozen yet.")
        if not revision.images:
            raise NotFound("The study holds no image: there is nothing to be shown.")
        audit.write(
            session,
            "study_opened",
            commander(found.site_id, Role.OPERATOR),
            study_id=found.id,
            revision=revision.number,
        )
        return case_of(session, found, revision_id=revision.id, reading_id=uuid.UUID(int=0))


def _protocol(case: Case, named: str | None) -> Protocol:
    from worker.protocols import match_or_abstain

    if named is None:
        try:
            return match_or_abstain(case.protocols, case.instances, case.site)
        except Abstained as end:
            raise NotFound(end.message) from None
    of_site = next((one for one in case.protocols if one.name == named), None)
    if of_site is None and not Path(named).exists():
        raise NotFound(f"The site has no protocol of the name {printable(named)}, and there is no such file.")
    return of_site or read_protocol(Path(named))[1]


def _shown(settings: WorkerSettings, case: Case, protocol: Protocol) -> tuple[Made, tuple[dict[str, Any], ...]]:
    from record.store import Store
    from worker.reading import PreparingRoom

    room = PreparingRoom(Store(settings.store), settings)
    try:
        return room.show(case, protocol, threading.Event())
    except Abstained as end:
        say(f"not analysed: {end.message}")
        omitted = end.facts.get("omitted")
        return [], tuple(omitted) if isinstance(omitted, list) else ()
    finally:
        room.close()


def _told(case: Case, protocol: Protocol, made: Made, omitted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from worker.provenance import rendering_of

    headers = {one.instance_id: one.header for one in case.instances}

    def left_out(one: dict[str, Any]) -> dict[str, Any]:
        header = headers.get(str(one.get("instance_id", "")))
        if header is None:
            return one
        numbers = {"series_number": header.series_number, "instance_number": header.instance_number}
        return {**one, "sop_instance_uid": header.sop_instance_uid, **numbers}

    return {
        "protocol": {"name": protocol.name, "version": protocol.version, "digest": protocol.digest},
        "pictures": [
            {
                "instance_id": chosen.instance.instance_id,
                "sop_instance_uid": chosen.instance.header.sop_instance_uid,
                "frame": chosen.frame + 1,
                "sha256": hashlib.sha256(picture.png).hexdigest(),
                "height": picture.height,
                "width": picture.width,
                "caption": chosen.caption,
                "reason": chosen.reason,
                **rendering_of(chosen, picture),
            }
            for chosen, picture in made
        ],
        "omitted": [left_out(one) for one in omitted],
    }


def _print_pictures(protocol: Protocol, made: Made, omitted: Sequence[dict[str, Any]]) -> None:
    say(f"protocol {protocol.name} version {protocol.version}: {counted(len(made), 'picture', 'pictures')}")
    if not made:
        return
    rows = [(number, f"{p.width}×{p.height}", chosen.caption) for number, (chosen, p) in enumerate(made, start=1)]
    below = [[chosen.reason, *(["it is blank"] if picture.blank else [])] for chosen, picture in made]
    print_table(("PICTURE", "SIZE", "CAPTION"), rows, below)
    left = Counter(str(one["reason"]) for one in omitted if "instance_id" in one)
    if left:
        click.echo()
        print_table(("LEFT OUT", "WHY"), [(count, reason) for reason, count in left.most_common()])
    for role in (str(one["role"]) for one in omitted if "role" in one):
        print_indented(f"missing: {role.replace('_', ' ')}")


def _write_sheet(path: Path | None, protocol: Protocol, made: Made) -> None:
    from worker.sheets import Shown, contact_sheet

    if path is None or not made:
        return
    shown = [Shown(picture.png, (chosen.caption, chosen.reason)) for chosen, picture in made]
    content = contact_sheet(f"{protocol.name} version {protocol.version}: what the model is shown", shown)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None
    say(f"{counted(len(made), 'picture', 'pictures')} on {path}; they show a patient")


def _converse(
    settings: WorkerSettings,
    case: Case,
    protocol: Protocol,
    made: Made,
    omitted: Sequence[dict[str, Any]],
    language: Any,
    model: str | None,
) -> None:
    """Print the prompt of each step, and the answers where a model is asked."""
    from worker.conversation import asking, converse
    from worker.prompting import compose
    from worker.reading import context_for, engine_pictures

    if not made:
        return
    context = context_for(case, protocol, made, omitted)
    shown = engine_pictures(made)
    if model is None:
        for step in protocol.steps:
            prompt = compose(protocol, step, context, shown, language=language)
            _print_step(step.name, [m.text for m in prompt.messages], None)
        return
    with _engine(settings, model) as engine:
        said = converse(protocol, context, shown, engine, threading.Event(), language=language, alone=False)
    for step, completion in said.calls:
        answer = asking(completion, language) if step.kind == "ask" else completion.text
        _print_step(step.name, [completion.rendered_prompt], answer)


@contextlib.contextmanager
def _engine(settings: WorkerSettings, model: str) -> Iterator[Any]:
    from worker.engines import open_engine
    from worker.tasks import engine_key

    say(f"asking {model}")
    engine = open_engine(model, engine_url=settings.engine_url, api_key=engine_key(settings), slots=settings.slots)
    try:
        yield engine
    finally:
        engine.close()


def _print_step(name: str, prompt: Sequence[str], answer: str | None) -> None:
    click.echo(f"\n--- {name}")
    for text in prompt:
        for line in text.splitlines():
            click.echo(printable(line))
    if answer is not None:
        click.echo(f"--- {name}: AI DRAFT – NOT REVIEWED")
        for line in answer.splitlines():
            click.echo(printable(line))
