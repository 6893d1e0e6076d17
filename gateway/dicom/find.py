"""C-FIND as a user of somebody's archive: which studies it has, and how many instances each (PS3.4, C.4.1 and C.6.2.1).

Knows the study root model at study level. Does not know what we have ourselves. What comes back is a stranger's: values are
checked or capped here.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from gateway.dicom.calling import Destination, Refusal, associate, cut, end, hold
from gateway.headers import UID
from record.errors import PeerUnavailable

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_KINDS = [(STUDY_ROOT_FIND, str(uid.ExplicitVRLittleEndian)), (STUDY_ROOT_FIND, str(uid.ImplicitVRLittleEndian))]
_PENDING = frozenset({0xFF00, 0xFF01})
_COUNT = re.compile(r"\s*([0-9]{1,9})\s*")
MAX_STUDIES = 100_000
_LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class Held:
    """A study that an archive says it has; None where it tells no count. The date as DICOM has it."""

    study_instance_uid: str
    instances: int | None
    study_date: str
    modalities: str


def count_of(to: Destination, study_instance_uid: str) -> int | None:
    """How many instances of a study the archive says it has; None if it does not know the study.

    An archive that does not count them itself is asked for the series, and for the images of each.

    Raises
    ------
    PeerUnavailable
        It does not answer, or refuses.
    """
    asked = _asked()
    asked.StudyInstanceUID = study_instance_uid
    with _asking(to) as opened:
        held = [
            each
            for each in map(_held, _answers(to, opened, asked))
            if each and each.study_instance_uid == study_instance_uid
        ]
        if not held or held[0].instances is not None:
            return held[0].instances if held else None
        series = _uids(_answers(to, opened, _below(study_instance_uid)), "SeriesInstanceUID")
        images = (_uids(_answers(to, opened, _below(study_instance_uid, each)), "SOPInstanceUID") for each in series)
        return len(set().union(*images)) or None


def studies(to: Destination, since_date: str = "") -> Iterator[Held]:
    """The studies of an archive from a day on (DICOM's YYYYMMDD; empty for all), each once.

    Raises
    ------
    PeerUnavailable
        It does not answer, or refuses.
    """
    asked = _asked()
    asked.StudyDate = f"{since_date}-" if since_date else ""
    known: set[str] = set()
    with _asking(to) as opened:
        for each in map(_held, _answers(to, opened, asked)):
            if each is not None and each.study_instance_uid not in known and len(known) < MAX_STUDIES:
                known.add(each.study_instance_uid)
                yield each


def answers(to: Destination) -> None:
    """Ask for a study that nobody has, to see whether it answers at all.

    Raises
    ------
    PeerUnavailable
        It does not answer, or refuses.
    """
    count_of(to, "2.25.1")


def _asked() -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    for keyword in ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy"):
        setattr(asked, keyword, "")
    asked.NumberOfStudyRelatedInstances = None
    return asked


def _below(study_instance_uid: str, series_instance_uid: str | None = None) -> Dataset:
    """The question for the series of a study, or for the images of one of them."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "SERIES" if series_instance_uid is None else "IMAGE"
    asked.StudyInstanceUID = study_instance_uid
    asked.SeriesInstanceUID = series_instance_uid or ""
    if series_instance_uid is not None:
        asked.SOPInstanceUID = ""
    return asked


@contextlib.contextmanager
def _asking(to: Destination) -> Iterator[Association]:
    """An association on which the archive answers questions."""
    opened = associate(to, _KINDS)
    if isinstance(opened, Refusal):
        raise PeerUnavailable(f"{to.ae_title} cannot be asked: {opened.why}.")
    whole = False
    try:
        if not any(context.abstract_syntax == STUDY_ROOT_FIND for context in opened.accepted_contexts):
            raise PeerUnavailable(f"{to.ae_title} answers no C-FIND of the study root model from us.")
        yield opened
        whole = True
    except (RuntimeError, ValueError):
        raise PeerUnavailable(f"{to.ae_title} was lost while it was asked.") from None
    finally:
        end(opened) if whole else cut(opened)


def _answers(to: Destination, opened: Association, asked: Dataset) -> Iterator[Dataset]:
    hold(opened)
    until = time.monotonic() + _LONGEST_S
    for count, (status, identifier) in enumerate(opened.send_c_find(asked, STUDY_ROOT_FIND)):
        if count > MAX_STUDIES or time.monotonic() > until:
            raise PeerUnavailable(f"{to.ae_title} answers without end.")
        if "Status" not in status:
            raise PeerUnavailable(f"{to.ae_title} fell silent while it was asked.")
        if status.Status not in _PENDING:
            if status.Status != 0:
                raise PeerUnavailable(f"{to.ae_title} answers a C-FIND with 0x{status.Status:04X}.")
        elif identifier is not None:
            yield identifier


def _uids(answers: Iterable[Dataset], keyword: str) -> list[str]:
    """Each usable UID once, as many as a study may have."""
    found: dict[str, None] = {}
    for each in answers:
        with contextlib.suppress(Exception):  # a stranger's value goes through a parser that is not ours
            uid = str(each.get(keyword, ""))
            if UID.fullmatch(uid) and len(found) < MAX_STUDIES:
                found[uid] = None
    return list(found)


def _held(identifier: Dataset) -> Held | None:
    try:
        named = str(identifier.get("StudyInstanceUID", ""))
        if not UID.fullmatch(named):
            return None
        counted = _COUNT.fullmatch(str(identifier.get("NumberOfStudyRelatedInstances", "")))
        modalities = identifier.get("ModalitiesInStudy", "")
        told = modalities if isinstance(modalities, str) else "\\".join(map(str, modalities or ()))
        return Held(
            study_instance_uid=named,
            instances=int(counted[1]) if counted else None,
            study_date=re.sub(r"[^0-9]", "", str(identifier.get("StudyDate", "")))[:8],
            modalities=re.sub(r"[^A-Z0-9_ \\]", "", told)[:64],
        )
    except Exception:  # noqa: BLE001  a stranger's values go through a parser that is not ours
        return None
