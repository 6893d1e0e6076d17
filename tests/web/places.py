"""Every kind of page there is, and how somebody gets there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from record.db import transaction
from record.models import Instance
from record.states import Role
from tests.records import study_of
from tests.web.browsing import Window


@dataclass(frozen=True)
class Place:
    """A page, whom it is shown to, and whether there are unsigned words on it."""

    go: Callable[[Window], None]
    role: Role | None = Role.ATTENDING
    unsigned: bool = False


def address(path: str) -> Callable[[Window], None]:
    """Straight to an address; `{name}` in it is the UID of the ward's study of that name."""

    def go(window: Window) -> None:
        window.open(re.sub(r"\{(.+?)\}", lambda found: window.ward.uids[found[1]], path))

    return go


def signing(name: str) -> Callable[[Window], None]:
    """To the page to sign a study's report on."""

    def go(window: Window) -> None:
        report = window.ward.desk.report_of(window.ward.uids[name])
        window.open(f"/reports/{report.id}/sign")

    return go


def search(**said: str) -> Callable[[Window], None]:
    """From the worklist, by what belongs to a patient; the field's name stands for its label."""

    def go(window: Window) -> None:
        window.open("/")
        form = window.page.get_by_role("search")
        for name, value in said.items():
            form.locator(f"[name={name}]").fill(value)
        form.locator("button").first.click()
        window.page.wait_for_url("**/search?kept=*")

    return go


def viewer(name: str, number: int = 0) -> Callable[[Window], None]:
    """To an image of a study, as it was sent."""

    def go(window: Window) -> None:
        with transaction(window.ward.desk.engine) as session:
            study = study_of(session, window.ward.uids[name])
            found = session.query(Instance).filter_by(study_id=study.id).order_by(Instance.created_at, Instance.id)
            instance_id = found.offset(number).limit(1).one().id
        window.open(f"/studies/{window.ward.uids[name]}/instances/{instance_id}")

    return go


def _refused(window: Window) -> None:
    window.open("/sign-in")
    window.sign_in("nobody", "wrong")


def _save(window: Window) -> None:
    """Press the editor's button, whatever it is called in the page's language."""
    window.page.locator("button[name=then][value=stay]").click()


def _over(window: Window) -> None:
    """A text comes with a session that is over."""
    window.open_study(window.ward.uids["draft"])
    window.context.clear_cookies()
    _save(window)
    window.page.wait_for_url("**/text")


def _stale(window: Window) -> None:
    """A text comes after another one was saved."""
    study_uid = window.ward.study("Stale^Words")
    window.open_study(study_uid)
    window.ward.write(study_uid, "Findings:\nSomebody else's words.\n")
    window.page.locator("#text").fill("Findings:\nMy own words.\n")
    _save(window)
    window.page.wait_for_url("**/text")


PLACES: Mapping[str, Place] = {
    "sign-in": Place(address("/sign-in"), None),
    "sign-in refused": Place(_refused, None),
    "worklist": Place(address("/")),
    "worklist, all": Place(address("/?tab=all")),
    "worklist, filtered": Place(address("/?tab=all&modality=CT&lane=routine")),
    "worklist of an auditor": Place(address("/"), Role.AUDITOR),
    "worklist of an admin": Place(address("/"), Role.ADMIN),
    "found": Place(search(patient_name="WAITING")),
    "nothing found": Place(search(patient_name="Nobody")),
    "study, draft": Place(address("/studies/{draft}"), unsigned=True),
    "study of a resident": Place(address("/studies/{chinese}"), Role.RESIDENT, unsigned=True),
    "study, edited": Place(address("/studies/{edited}"), unsigned=True),
    "study, preliminary": Place(address("/studies/{preliminary}"), unsigned=True),
    "study, final": Place(address("/studies/{final}")),
    "study, final, of an operator": Place(address("/studies/{final}"), Role.OPERATOR),
    "study, images after signing": Place(address("/studies/{late}")),
    "study, outdated": Place(address("/studies/{outdated}"), unsigned=True),
    "study, more images arriving": Place(address("/studies/{arriving late}"), unsigned=True),
    "study, receiving": Place(address("/studies/{receiving}")),
    "study, queued": Place(address("/studies/{queued}")),
    "study, in conflict": Place(address("/studies/{conflict}"), unsigned=True),
    "study, conflict decided": Place(address("/studies/{decided}"), unsigned=True),
    "study, cancelled": Place(address("/studies/{cancelled}")),
    "study, abstained": Place(address("/studies/{CT}")),
    "study, failed": Place(address("/studies/{failed}")),
    "study, skipped": Place(address("/studies/{skipped}")),
    "study, long id": Place(address("/studies/{long id}"), unsigned=True),
    "study of an operator": Place(address("/studies/{failed}"), Role.OPERATOR),
    "sign": Place(signing("draft"), unsigned=True),
    "sign, other images": Place(signing("outdated"), unsigned=True),
    "viewer, film": Place(viewer("draft")),
    "viewer, slices": Place(viewer("CT", 4)),
    "viewer, loop": Place(viewer("US"), Role.RESIDENT),
    "viewer, final": Place(viewer("final")),
    "text kept": Place(_over),
    "text of two editors": Place(_stale, unsigned=True),
    "no such page": Place(address("/studies/1.2.3")),
    "operations": Place(address("/operations"), Role.OPERATOR),
    "operations of an admin": Place(address("/operations"), Role.ADMIN),
    "audit": Place(address("/audit"), Role.AUDITOR),
    "audit of a study": Place(address("/audit?study_instance_uid={final}"), Role.AUDITOR),
    "docs": Place(address("/docs")),
}
