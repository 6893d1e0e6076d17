"""What a C-STORE status means, in a sentence for the one who sends.

Knows PS3.4 table B.2-1, PS3.7 annex C and what our own listener means by each. Does not know who answered.
"""

from __future__ import annotations

SUCCESS = 0x0000
NO_ROOM = range(0xA700, 0xA800)
"""Refused for want of resources: passing, so that a sender tries again."""
_WARNINGS = {
    0xB000: "stored, some values were changed",
    0xB006: "stored, some elements were left out",
    0xB007: "stored, though it does not match its SOP class",
}
_EXACT = {
    0x0105: "no such attribute",
    0x0106: "an attribute has an invalid value",
    0x0107: "it lacks an attribute that the receiver wants",
    0x0110: "the receiver failed while it took it: its log says why",
    0x0111: "the receiver has another instance of this UID",
    0x0112: "the receiver knows no such instance",
    0x0117: "its SOP Instance UID is not valid",
    0x0118: "no such SOP class",
    0x0119: "the class and the instance do not go together",
    0x0120: "it lacks an attribute that the receiver wants",
    0x0121: "it lacks the value of an attribute that the receiver wants",
    0x0122: "the receiver takes no instances of its kind, or not as they are encoded",
    0x0124: "this sender may not send this to the receiver",
    0x0210: "the receiver is still busy with a message of this number",
    0x0211: "the receiver does not know the operation",
    0x0212: "the receiver does not understand the request",
    0x0213: "out of resources at the receiver",
}
_RANGES = (
    (NO_ROOM, "the receiver has no room for it now: send it again later"),
    (range(0xA900, 0xAA00), "its data set is not what its SOP class or its UID say it is"),
    (
        range(0xC000, 0xD000),
        "the receiver cannot understand it: UIDs are missing or malformed, or its bytes are broken",
    ),
)


def is_stored(status: int) -> bool:
    """Whether the receiver has the instance now: success, or a warning (PS3.4, B.2.3)."""
    return status == SUCCESS or 0xB000 <= status < 0xC000 or status == 0x0001


def meaning(status: int) -> str:
    """What a status says; empty for Success."""
    if status == SUCCESS:
        return ""
    if is_stored(status):
        return _WARNINGS.get(status, "stored, with a warning of the receiver's own")
    if status in _EXACT:
        return _EXACT[status]
    return next((told for within, told in _RANGES if status in within), "a refusal of the receiver's own making")
