"""Tables. Columns and constraints only: what may happen to a row is said by `states` and done by the verbs.

Text that was sent to us (DICOM, people) lies in columns that `erase_study()` can blank. Tables named in `APPEND_ONLY`
refuse UPDATE, DELETE and TRUNCATE to everybody but that function; a site's protocol can only be retired. Ids are UUIDv7
made in Python; time is the database's `now()`; DICOM's own dates stay text.
"""

from record.models.accounts import Peer, Receiver, Site, Token, User, UserSession
from record.models.arrivals import Announcement, Association, Commitment, Proposal
from record.models.base import Table
from record.models.events import Event, Seal, UnsealedEvent
from record.models.protocols import SiteProtocol
from record.models.readings import Draft, DraftStep, Part, Reading, ReadingPicture, Worker
from record.models.reports import Delivery, Report, ReportOffer, ReportRevision, Signature
from record.models.studies import (
    ConflictDecision,
    Instance,
    Patient,
    RevisionInstance,
    Series,
    StoreDeletion,
    Study,
    StudyRevision,
)

__all__ = [
    "APPEND_ONLY",
    "Announcement",
    "Association",
    "Commitment",
    "ConflictDecision",
    "Delivery",
    "Draft",
    "DraftStep",
    "Event",
    "Instance",
    "Part",
    "Patient",
    "Peer",
    "Proposal",
    "Reading",
    "ReadingPicture",
    "Receiver",
    "Report",
    "ReportOffer",
    "ReportRevision",
    "RevisionInstance",
    "Seal",
    "Series",
    "Signature",
    "Site",
    "SiteProtocol",
    "StoreDeletion",
    "Study",
    "StudyRevision",
    "Table",
    "Token",
    "UnsealedEvent",
    "User",
    "UserSession",
    "Worker",
]

APPEND_ONLY = ("drafts", "draft_steps", "report_revisions", "signatures", "events", "seals", "conflict_decisions")
"""Programs may insert and read these rows, never change or remove them."""
