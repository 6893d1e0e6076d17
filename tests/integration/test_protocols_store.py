"""A site's own protocols on a real database: what is in use, what was, and what a program cannot change."""

from __future__ import annotations

import threading
import uuid
from importlib.resources import files

import pytest
import structlog
from sqlalchemy import Engine, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from record import migrate, protocols, recent
from record.access import commander
from record.db import connect, transaction
from record.errors import Conflict, CountersignError, InvalidRequest, Misconfigured, NotFound
from record.models import Event, Site, SiteProtocol
from record.sites import add_site, find_site
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import arrival, closed, uid
from worker import site_protocols
from worker.protocols import Match, load, load_all
from worker.site_protocols import protocol_of_digest, protocols_of

pytestmark = pytest.mark.integration

MINE = """
name: {name}
version: {version}
title: Ours
priority: {priority}
match: {{modalities: [{modality}]}}
steps: [{{name: draft, kind: report}}]
sections: [findings, impression]
"""


def mine(name: str = "mine", version: int = 1, *, priority: int = 100, modality: str = "CR") -> str:
    return MINE.format(name=name, version=version, priority=priority, modality=modality)


def add(session: Session, site: Site, yaml: str) -> protocols.Added:
    found = load(yaml)
    return protocols.add(
        session,
        site.id,
        name=found.name,
        version=found.version,
        digest=found.digest,
        text=yaml,
        by=commander(site.id, Role.ADMIN),
    )


def hide(session: Session, site: Site, name: str = "general") -> None:
    protocols.hide(session, site.id, name=name, version=2, digest="a" * 64)


@pytest.fixture
def site(session: Session) -> Site:
    return find_site(session, "main")


def told(session: Session) -> list[tuple[str, str, int]]:
    rows = session.scalars(select(Event).where(Event.kind.like("protocol%")).order_by(Event.id)).all()
    assert all(len(row.facts["digest"]) == 64 and row.site_id for row in rows)
    return [(row.kind, row.facts["name"], row.facts["version"]) for row in rows]


def test_the_tables_are_those_of_the_models(database: FreshDatabase) -> None:
    migrate.check(database.owner_url)


def test_a_newer_version_takes_the_place_of_the_one_in_use_and_both_stay_on_record(
    session: Session, site: Site
) -> None:
    assert add(session, site, mine()).is_new
    second = add(session, site, mine(version=3))
    assert second.replaced is not None
    assert (second.replaced.version, second.protocol.version) == (1, 3)
    assert [(row.name, row.version) for row in protocols.live(session, site.id)] == [("mine", 3)]
    newest, oldest = protocols.history(session, site.id, "mine")
    assert (newest.version, newest.text, newest.retired_at) == (3, mine(version=3), None)
    assert (oldest.version, oldest.text, oldest.retired_at) == (1, mine(), newest.added_at)
    assert told(session) == [
        ("protocol_added", "mine", 1),
        ("protocol_retired", "mine", 1),
        ("protocol_added", "mine", 3),
    ]
    by_kind = {row.actor_kind for row in session.scalars(select(Event).where(Event.kind == "protocol_added"))}
    assert by_kind == {"command"}


def test_a_version_that_is_not_greater_than_every_earlier_one_is_refused(session: Session, site: Site) -> None:
    add(session, site, mine(version=4))
    protocols.retire(session, site.id, "mine")
    for version in (1, 4):
        with pytest.raises(InvalidRequest, match="give this one the version 5"):
            add(session, site, mine(version=version, priority=1))
    assert add(session, site, mine(version=5)).is_new
    protocols.retire(session, site.id, "mine")
    session.add(SiteProtocol(site_id=site.id, name="mine", version=4, digest="b" * 64, text="x"))
    with pytest.raises(DBAPIError, match="uq_site_protocols_version"):
        session.flush()
    session.rollback()


def test_the_same_content_added_again_changes_nothing(session: Session, site: Site) -> None:
    first = add(session, site, mine())
    again = add(session, site, mine() + "# said otherwise\n")
    assert (again.is_new, again.protocol.id) == (False, first.protocol.id)
    assert told(session) == [("protocol_added", "mine", 1)]


def test_what_cannot_be_kept_is_refused_in_a_sentence(session: Session, site: Site) -> None:
    fine = {"name": "mine", "version": 1, "digest": "a" * 64, "text": "x"}
    for wrong in (
        *({"name": "Mine"}, {"name": ""}, {"version": 0}, {"version": 2**31}, {"digest": "A" * 64}, {"digest": "a"}),
        *({"text": " "}, {"text": "x" * 100_001}, {"text": "a\0b"}),
    ):
        with pytest.raises(InvalidRequest, match=r"^A protocol's .*\.$"):
            protocols.add(session, site.id, **(fine | wrong))  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no such site"):
        protocols.add(session, uuid.uuid4(), **fine)  # type: ignore[arg-type]
    assert told(session) == []


def test_a_retired_one_is_used_no_more_and_found_by_its_digest_still(session: Session, site: Site) -> None:
    digest = add(session, site, mine()).protocol.digest
    assert protocols.retire(session, site.id, "mine").retired_at is not None
    assert protocols.live(session, site.id) == []
    assert (found := protocols.by_digest(session, digest)) is not None
    assert found.text == mine()
    assert protocols.by_digest(session, "0" * 64) is None
    for name in ("mine", "general", "nothing"):
        with pytest.raises(NotFound, match="protocols list"):
            protocols.retire(session, site.id, name)
    assert told(session)[-1] == ("protocol_retired", "mine", 1)


def test_a_shipped_one_is_left_out_and_taken_back(session: Session, site: Site) -> None:
    hide(session, site)
    with pytest.raises(Conflict, match="left out at this site already"):
        hide(session, site)
    with pytest.raises(NotFound):
        protocols.retire(session, site.id, "general")
    assert protocols.by_digest(session, "a" * 64) is None, "there is no text"
    assert "general" not in {each.name for each in protocols_of(session, site.id)}
    protocols.unhide(session, site.id, name="general", version=3, digest="b" * 64)
    with pytest.raises(NotFound):
        protocols.unhide(session, site.id, name="general", version=3, digest="b" * 64)
    assert protocols_of(session, site.id) == load_all()
    assert told(session) == [("protocol_retired", "general", 2), ("protocol_added", "general", 3)]


def test_one_of_its_own_ends_the_hiding_of_the_shipped_one_and_cannot_be_hidden_itself(
    session: Session, site: Site
) -> None:
    hide(session, site)
    added = add(session, site, mine("general", 7))
    assert added.replaced is not None
    assert added.replaced.hides
    with pytest.raises(Conflict, match="retire that one first"):
        hide(session, site)
    protocols.retire(session, site.id, "general")
    assert protocols_of(session, site.id) == load_all()
    assert told(session) == [
        ("protocol_retired", "general", 2),
        ("protocol_added", "general", 7),
        ("protocol_retired", "general", 7),
    ]


def test_two_who_add_at_once_wait_for_each_other(engine: Engine) -> None:
    ended: list[CountersignError | None] = []

    def second() -> None:
        try:
            with transaction(engine) as session:
                add(session, find_site(session, "main"), mine(version=1, priority=2))
            ended.append(None)
        except CountersignError as error:
            ended.append(error)

    with transaction(engine) as session:
        add(session, find_site(session, "main"), mine(version=1, priority=1))
        other = threading.Thread(target=second)
        other.start()
        other.join(0.3)
        assert not ended, "it waits until the first is through"
    other.join(10)
    assert [type(each) for each in ended] == [InvalidRequest]
    with transaction(engine) as session:
        assert len(protocols.live(session, find_site(session, "main").id)) == 1


def test_whoever_waited_is_recorded_after_what_it_waited_for(engine: Engine) -> None:
    late = Session(engine)
    late.execute(text("SELECT now()"))  # its transaction begins first
    with transaction(engine) as session:
        first = add(session, find_site(session, "main"), mine()).protocol
    second = add(late, find_site(late, "main"), mine(version=2))
    late.commit()
    assert second.protocol.added_at > first.added_at
    assert second.replaced is not None
    assert second.replaced.retired_at == second.protocol.added_at
    late.close()


@pytest.mark.parametrize("who", ["a program", "the owner"])
def test_nobody_changes_or_removes_a_protocol_and_it_is_retired_once(
    database: FreshDatabase, engine: Engine, who: str
) -> None:
    with transaction(engine) as session:
        site = find_site(session, "main")
        add(session, site, mine())
        add(session, site, mine("other"))
        protocols.retire(session, site.id, "other")
    as_who = engine if who == "a program" else connect(database.owner_url)
    for statement in (
        *(f"UPDATE site_protocols SET {c} = {c}" for c in ("text", "name", "digest", "version", "added_at", "site_id")),
        "UPDATE site_protocols SET text = 'x' WHERE name = 'mine'",
        "UPDATE site_protocols SET retired_at = now(), digest = repeat('0', 64) WHERE name = 'mine'",
        "UPDATE site_protocols SET retired_at = NULL WHERE name = 'other'",
        "UPDATE site_protocols SET retired_at = now() WHERE name = 'other'",
        "DELETE FROM site_protocols",
        "TRUNCATE site_protocols",
    ):
        with as_who.connect() as connection:
            if who == "the owner":
                connection.execute(text("RESET ROLE"))
            with pytest.raises(DBAPIError) as refused:
                connection.execute(text(statement))
        assert getattr(refused.value.orig, "sqlstate", "") == "42501", statement
    with transaction(engine) as session:
        session.execute(update(SiteProtocol).where(SiteProtocol.name == "mine").values(retired_at=text("now()")))
    as_who.dispose()


def test_each_site_has_its_own(session: Session, site: Site) -> None:
    north = add_site(session, name="north")
    digest = add(session, site, mine()).protocol.digest
    assert protocols_of(session, site.id)[0].name == "mine"
    assert protocols_of(session, north.id) == load_all()
    assert add(session, north, mine()).is_new, "a version is counted at its own site"
    assert (found := protocol_of_digest(session, digest)) is not None
    assert found.name == "mine"


def test_an_own_protocol_takes_the_place_of_the_shipped_one_in_the_order(session: Session, site: Site) -> None:
    add(session, site, mine("general", 9, priority=100))
    first, *others = protocols_of(session, site.id)
    assert (first.name, first.version) == ("general", 9)
    assert {each.name for each in others} == {each.name for each in load_all()} - {"general"}
    shipped = next(each for each in load_all() if each.name == "general")
    assert protocol_of_digest(session, shipped.digest) is shipped, "a reading may have begun under it"


def test_a_text_is_parsed_once_and_not_even_fetched_again(
    session: Session, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(session, site, mine())
    first = protocols_of(session, site.id)
    session.commit()
    session.expire_all()
    monkeypatch.setattr(site_protocols, "load", None)
    assert protocols_of(session, site.id)[0] is first[0]
    (row,) = protocols.live(session, site.id)
    assert "text" not in row.__dict__


def test_what_this_release_cannot_read_is_left_out_told_once_and_not_forgotten(session: Session, site: Site) -> None:
    newer = mine("general", 9) + "surprise: 1\n"
    protocols.add(session, site.id, name="general", version=9, digest="c" * 64, text=newer)
    with structlog.testing.capture_logs() as logged:
        assert protocols_of(session, site.id) == load_all()
        assert protocols_of(session, site.id) == load_all()
    assert [line["event"] for line in logged] == ["protocol_unreadable"]
    assert set(logged[0]) == {"event", "log_level", "site_id", "digest", "version"}
    assert protocol_of_digest(session, "c" * 64) is None
    found = site_protocols.site_protocols(session, site.id)
    assert isinstance(found.unreadable["general"], Misconfigured)


def test_a_protocol_is_found_by_the_digest_that_this_release_gives_it(session: Session, site: Site) -> None:
    """A former release took it in with another digest: it knew fewer keys, or worded our texts otherwise."""
    found = load(mine())
    protocols.add(session, site.id, name="mine", version=1, digest="d" * 64, text=mine())
    assert protocol_of_digest(session, found.digest) == found
    assert protocol_of_digest(session, "d" * 64) is None, "this release would ask something else under it"
    assert protocol_of_digest(session, "e" * 64) is None


def test_every_shipped_protocol_is_shown_as_it_is_shipped() -> None:
    texts = site_protocols.shipped_texts()
    assert texts.keys() == {each.name for each in load_all()}
    assert texts["general"] == (files("worker.protocols") / "general.yaml").read_text(encoding="utf-8")


# --- the studies that a rule is tried on --------------------------------------------------------------------------------


def test_recent_studies_are_those_of_the_present_revision_with_what_differs_between_images(
    session: Session, site: Site
) -> None:
    chest, old, empty = uid(), uid(), uid()
    closed(session, [arrival(chest, body_part_examined="CHEST", instance_number=n) for n in range(1, 6)])
    closed(session, [arrival(chest, series_instance_uid=uid(), body_part_examined="ABDOMEN", patient_sex="F")])
    closed(session, [arrival(old)])
    session.execute(
        text("UPDATE studies SET first_image_at = now() - interval '40 days' WHERE study_instance_uid = :u"), {"u": old}
    )
    closed(session, [arrival(empty, has_pixels=False)])
    (found,) = recent.recent_studies(session, site.id, days=30)
    assert found.study_instance_uid == chest
    assert sorted(each.body_part_examined for each in found.headers) == ["ABDOMEN", "CHEST"]
    assert {each.patient_name for each in found.headers} == {""}
    assert len([*recent.recent_studies(session, site.id, days=60)]) == 2
    assert [*recent.recent_studies(session, add_site(session, name="north").id, days=60)] == []


def test_recent_studies_are_all_told_however_many_there_are(
    session: Session, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "_STUDIES", 3)
    sent = [uid() for _ in range(8)]
    for each in sent:
        closed(session, [arrival(each)])
    session.execute(text("UPDATE studies SET first_image_at = date_trunc('hour', now())"))  # of one moment
    found = [each.study_instance_uid for each in recent.recent_studies(session, site.id, days=1)]
    assert sorted(found) == sorted(sent)


def test_no_rule_asks_for_what_is_left_out_of_the_headers_of_recent_studies() -> None:
    asked: set[str] = set()

    class Spy:
        def __getattr__(self, name: str) -> object:
            asked.add(name)
            return () if name in {"image_type", "procedure_codes"} else ""

    said = dict.fromkeys(("modalities", "body_parts", "views", "sop_class_uids", "sexes"), ("",))  # as the spy answers
    everything = Match.model_construct(**{**Match().model_dump(), **said, "not_words": ("x",), "min_age_y": 1.0})
    for match in (*(protocol.match for protocol in load_all()), everything):
        match.accepts(Spy(), "main")  # type: ignore[arg-type]
    assert {"modality", "view_position", "sop_class_uid", "protocol_name", "patient_age"} <= asked
    assert asked.isdisjoint({*recent.OF_ONE_IMAGE, *recent._IDENTIFYING})
