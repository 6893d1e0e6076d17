"""Every error countersign raises on purpose.

Knows which facts an error carries. Does not know how a door says it: each door has one table of its own codes.

    CountersignError
    ├── Misconfigured               a setting or a folder is wrong: nothing works until a person changes it
    ├── NotFound                    no such thing, or not for this user's eyes
    ├── NotPermitted                known, but not allowed
    ├── NotAuthenticated            who is it? no session, no token, or a wrong password
    ├── TooManyTries                wrong passwords came too often from one address: passing
    ├── Busy                        more is asked for at once than is taken: passing
    ├── InvalidInstance             bytes that are no DICOM instance we can stand behind
    │   ├── UnsupportedInstance     well-formed, but of a kind nobody here reads
    │   └── MismatchedInstance      class or UID differ between the request and the data set
    ├── InvalidRequest              what a client sent cannot be understood
    ├── StoreFull                   the disk has no room: passing
    ├── IllegalMove                 this state does not lead to that one
    ├── StaleRevision               somebody saved or signed in between
    ├── NewImages                   the study is not the one that was shown
    ├── Conflict                    an undecided conflict of bytes or identity, or a thing that exists already
    ├── PeerUnavailable             somebody else's server does not answer, or refuses: passing
    ├── LeaseLost                   the row was claimed anew; what was worked out must be thrown away
    ├── EngineUnavailable           the engine is away: passing, nobody's fault
    ├── EngineRejected              the engine refuses this prompt
    ├── UnusableFindings            the model's answer cannot be taken as findings
    └── Abstained                   "not analysed", with a reason code: an outcome, carried as an error
"""

from __future__ import annotations

from typing import ClassVar


class CountersignError(Exception):
    """Base of the tree. `facts` are identifiers, codes and counts: never patient data."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class Misconfigured(CountersignError):
    """A setting, a folder or a server is not as the program needs it; the message says what to do."""

    code = "misconfigured"


class NotFound(CountersignError):
    """There is no such thing, or this user may not know that there is."""

    code = "not_found"


class NotAuthenticated(CountersignError):
    """Nobody signed in, an unknown token, or a wrong password."""

    code = "not_authenticated"


class TooManyTries(CountersignError):
    """Wrong passwords came too often from one address; `retry_after_s` says how long it has to wait."""

    code = "too_many_tries"


class Busy(CountersignError):
    """More is asked for at once than this process takes. Nothing was done: the client may try again."""

    code = "unavailable"


class NotPermitted(CountersignError):
    """The user is known and may not do this."""

    code = "not_permitted"


class InvalidRequest(CountersignError):
    """A value a client sent cannot be used; the message names the value."""

    code = "invalid_request"


class InvalidInstance(CountersignError):
    """The bytes are no DICOM instance that could be kept under a name."""

    code = "invalid_instance"


class UnsupportedInstance(InvalidInstance):
    """A well-formed instance of a kind nobody here can read."""

    code = "unsupported_instance"


class MismatchedInstance(InvalidInstance):
    """SOP class or instance UID differ between the request and the data set."""

    code = "mismatched_instance"


class StoreFull(CountersignError):
    """The disk has no room (or fails to write). Passing: the sender may try again."""

    code = "store_full"


class IllegalMove(CountersignError):
    """The state a thing is in does not lead to the state asked for."""

    code = "illegal_move"


class StaleRevision(CountersignError):
    """Newer words exist than those that were seen."""

    code = "stale_revision"


class NewImages(CountersignError):
    """The study is another revision than the one shown, or still receiving."""

    code = "new_images"


class Conflict(CountersignError):
    """An undecided conflict of bytes or identity, or something that exists already."""

    code = "conflict"


class PeerUnavailable(CountersignError):
    """Somebody else's server does not answer or does not do what it was asked for; the message says which and why."""

    code = "peer_unavailable"


class LeaseLost(CountersignError):
    """The reading belongs to a newer claim (or to nobody): this result must not be written."""

    code = "lease_lost"


class EngineUnavailable(CountersignError):
    """The engine is away. The reading waits in the phase before and no failure is counted."""

    code = "engine_unavailable"


class EngineRejected(CountersignError):
    """The engine refuses this prompt, today and tomorrow."""

    code = "engine_rejected"


class UnusableFindings(CountersignError):
    """The model's answer cannot be read as findings."""

    code = "unusable_findings"


class Abstained(CountersignError):
    """The reading ends as *not analysed*; `reason_code` is one of the fixed codes in `record.states`."""

    code = "abstained"

    def __init__(self, reason_code: str, message: str, **facts: object) -> None:
        super().__init__(message, reason_code=reason_code, **facts)
        self.reason_code = reason_code
