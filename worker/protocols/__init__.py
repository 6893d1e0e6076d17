"""Reading protocols: what is asked of the model for one kind of study. Versioned data, kept as YAML beside this file.

Knows a protocol's form, which protocol fits a study (by header values alone; nothing in a protocol is ever executed)
and which models may be asked under it. Does not know frames, prompts' values or engines. A reading names the digest of
the protocol it ran under, so a changed word is a changed protocol.
"""

from worker.protocols.matching import (
    PHANTOM_MODEL,
    admit,
    bind,
    load_all,
    match,
    match_or_abstain,
    ordered,
    patient_age,
    with_own,
)
from worker.protocols.pictures import Role
from worker.protocols.schema import CHECKS, FACTS, PLACEHOLDERS, Match, Protocol, Step, age_y, load
from worker.protocols.wording import Language, Wording, wording_of
from worker.protocols.words import says

__all__ = [
    "CHECKS",
    "FACTS",
    "PHANTOM_MODEL",
    "PLACEHOLDERS",
    "Language",
    "Match",
    "Protocol",
    "Role",
    "Step",
    "Wording",
    "admit",
    "age_y",
    "bind",
    "load",
    "load_all",
    "match",
    "match_or_abstain",
    "ordered",
    "patient_age",
    "says",
    "with_own",
    "wording_of",
]
