"""What the API takes and gives, as `/openapi.json` shows it.

Knows shapes only. A field that a role may not see is null (`drafts`, `identity`, `text`), never left out silently.
"""

from __future__ import annotations

from gateway.web.schemas.given import (
    Alive,
    EventPage,
    EventShown,
    Given,
    Opened,
    Person,
    Problem,
    Ready,
)
from gateway.web.schemas.report import (
    DraftShown,
    ReportLine,
    ReportRevisionShown,
    ReportShown,
    SignatureShown,
)
from gateway.web.schemas.study import (
    ConflictShown,
    Identity,
    PictureShown,
    ReadingShown,
    RevisionShown,
    SeriesShown,
    StudyItem,
    StudyPage,
    StudyShown,
)
from gateway.web.schemas.taken import (
    MAX_LIMIT,
    Cancellation,
    Cursor,
    Day,
    Decision,
    Limit,
    Line,
    Moment,
    Number,
    SavedText,
    SearchRequest,
    Seen,
    Short,
    SignatureRequest,
    SignIn,
    Text,
)

__all__ = [
    "MAX_LIMIT",
    "Alive",
    "Cancellation",
    "ConflictShown",
    "Cursor",
    "Day",
    "Decision",
    "DraftShown",
    "EventPage",
    "EventShown",
    "Given",
    "Identity",
    "Limit",
    "Line",
    "Moment",
    "Number",
    "Opened",
    "Person",
    "PictureShown",
    "Problem",
    "ReadingShown",
    "Ready",
    "ReportLine",
    "ReportRevisionShown",
    "ReportShown",
    "RevisionShown",
    "SavedText",
    "SearchRequest",
    "Seen",
    "SeriesShown",
    "Short",
    "SignIn",
    "SignatureRequest",
    "SignatureShown",
    "StudyItem",
    "StudyPage",
    "StudyShown",
    "Text",
]
