"""Who may see and do what: the one place.

Knows roles, the actions of the house and which rows a principal may see. Does not know routes, passwords or states: a
door asks `require`, a list goes through `visible`, and another site's row is simply not there.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Select, func

from record.errors import NotPermitted
from record.models import Event, Study
from record.states import Role


class Action(StrEnum):
    """Everything that somebody may or may not do."""

    LIST_STUDIES = "studies:list"
    SEARCH_STUDIES = "studies:search"
    READ_STUDY = "studies:read"
    READ_IDENTITY = "identity:read"
    READ_DRAFT = "drafts:read"
    READ_REPORT = "reports:read"
    READ_SIGNED = "signed:read"
    READ_PICTURE = "pictures:read"
    BEGIN_REPORT = "reports:begin"
    SAVE_REPORT = "reports:save"
    DECLARE_PRELIMINARY = "reports:preliminary"
    CANCEL_REPORT = "reports:cancel"
    SIGN_REPORT = "reports:sign"
    RETRY_READING = "readings:retry"
    CLOSE_STUDY = "studies:close"
    DECIDE_CONFLICT = "conflicts:decide"
    ERASE_STUDY = "studies:erase"
    READ_AUDIT = "audit:read"
    READ_STATUS = "status:read"
    READ_METRICS = "metrics:read"


_READS = frozenset({Action.LIST_STUDIES, Action.READ_STUDY, Action.READ_SIGNED})
_PHYSICIAN = _READS | {
    Action.SEARCH_STUDIES,
    Action.READ_IDENTITY,
    Action.READ_DRAFT,
    Action.READ_REPORT,
    Action.READ_PICTURE,
    Action.BEGIN_REPORT,
    Action.SAVE_REPORT,
    Action.DECLARE_PRELIMINARY,
    Action.CANCEL_REPORT,
}

PERMITTED: Mapping[Role, frozenset[Action]] = {
    Role.RESIDENT: _PHYSICIAN,
    Role.ATTENDING: _PHYSICIAN | {Action.SIGN_REPORT, Action.DECIDE_CONFLICT},
    Role.OPERATOR: frozenset(
        {
            Action.LIST_STUDIES,
            Action.SEARCH_STUDIES,
            Action.READ_STUDY,
            Action.READ_IDENTITY,
            Action.RETRY_READING,
            Action.CLOSE_STUDY,
            Action.DECIDE_CONFLICT,
            Action.READ_STATUS,
            Action.READ_METRICS,
        }
    ),
    Role.AUDITOR: frozenset({Action.LIST_STUDIES, Action.READ_AUDIT}),
    Role.DASHBOARD: _READS | {Action.READ_METRICS},
    Role.INTAKE: frozenset({Action.LIST_STUDIES}),
    Role.ADMIN: frozenset(
        {
            Action.LIST_STUDIES,
            Action.ERASE_STUDY,
            Action.READ_STATUS,
            Action.READ_METRICS,
        }
    ),
}
"""What each role may do. A scope on a token may add `drafts:read` to a dashboard, and nothing else."""

SCOPES: Mapping[str, tuple[Role, Action]] = {"drafts:read": (Role.DASHBOARD, Action.READ_DRAFT)}


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was recognised: a person, a machine's token, or one of our own programs."""

    kind: str
    id: uuid.UUID | None
    site_id: uuid.UUID | None
    role: Role | None
    printed_name: str = ""
    scopes: frozenset[str] = frozenset()


SYSTEM = Principal(kind="system", id=None, site_id=None, role=None)
"""Our own programs: they write events and never pass through `require`."""


def commander(site_id: uuid.UUID | None, role: Role) -> Principal:
    """Whoever runs a `countersign` command, at one site or for all: who can do that holds the database's key already."""
    return Principal(kind="command", id=None, site_id=site_id, role=role)


def may(by: Principal, action: Action) -> bool:
    """Whether `by` may do this at all."""
    if by.role is None:
        return False
    if action in PERMITTED[by.role]:
        return True
    return any(SCOPES.get(scope) == (by.role, action) for scope in by.scopes)


def require(by: Principal, action: Action) -> None:
    """Refuse what a role may not do.

    Raises
    ------
    NotPermitted
        The role does not include this action.
    """
    if not may(by, action):
        message = f"The role {by.role or by.kind} does not include {action}."
        raise NotPermitted(message)


_Statement = TypeVar("_Statement", bound=Select[*tuple[Any, ...]])


def visible(statement: _Statement, by: Principal) -> _Statement:
    """Narrow a selection to the rows of the principal's site.

    The first entity of the selection must be a table that carries `site_id` (studies, readings, reports).
    """
    entity = statement.column_descriptions[0]["entity"]
    return statement.where(entity.site_id == by.site_id)


def visible_events(statement: _Statement, by: Principal) -> _Statement:
    """Narrow a selection of events, outer-joined with their studies, to those of the principal's site.

    An event that an earlier release wrote may name its study alone: it is of that study's site. What names neither is the
    house's own (the record was restored, somebody tried a login that nobody has): every site's auditor sees it.
    """
    return statement.where(func.coalesce(Event.site_id, Study.site_id, by.site_id) == by.site_id)
