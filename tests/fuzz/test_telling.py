"""What is told besides images, of any bytes: values at any depth, and requests that are read or refused."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gateway.dicom.association import Answer
from gateway.dicom.contexts import STORAGE_COMMITMENT_INSTANCE
from gateway.dicom.telling import READ
from gateway.dicom.wire import Command
from gateway.elements import leaves, walk
from record.errors import InvalidInstance
from tests.hostile import bounded, hurt, tries
from tests.instances import BIG, CT, EXPLICIT, IMPLICIT, encoded, uid

_ITEM, _SEQUENCE = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff"
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=24),
        st.sampled_from(
            [
                *(_ITEM, _SEQUENCE, b"\xfe\xff\x0d\xe0\x00\x00\x00\x00", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"),
                *(b"\x08\x00\x15\x11\xff\xff\xff\xff", b"\x08\x00\x18\x00UI\x02\x001\x00"),
                *(b"\x08\x00\x18\x00UN\x00\x00\xff\xff\xff\xff", b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\xff"),
            ]
        ),
    ),
    max_size=60,
).map(b"".join)


def asked() -> Dataset:
    """All that a request may have, with sequences of both kinds of length."""
    told, series, step, item = Dataset(), Dataset(), Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid()
    series.ReferencedSOPSequence, series.ReferencedImageSequence = [item, item], [item]
    series.ReferencedSOPSequence.is_undefined_length = True
    step.StudyInstanceUID = uid()
    told.TransactionUID, told.StudyInstanceUID, told.PerformedProcedureStepStatus = uid(), uid(), "COMPLETED"
    told.ReferencedSOPSequence, told.ReferencedSeriesSequence = [item], [series]
    told.ScheduledStepAttributesSequence, told.PerformedSeriesSequence = [step], [series]
    return told


WHOLE = {syntax: encoded(asked(), syntax) for syntax in (EXPLICIT, IMPLICIT)}


@pytest.mark.parametrize("syntax", list(WHOLE))
def test_a_whole_request_is_read_in_both_encodings(syntax: str) -> None:
    found = list(leaves(WHOLE[syntax], syntax))
    for (class_uid, field), read in READ.items():
        command = Command(field, 1, class_uid, STORAGE_COMMITMENT_INSTANCE, has_data_set=True, action_type=1)
        said = read(command, found)
        assert not isinstance(said, Answer)
        assert said.get("instance_uids") or said["references"]


@given(
    content=PIECES | st.sampled_from(list(WHOLE.values())).flatmap(hurt) | PIECES.map(lambda piece: piece * 50),
    syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG, "1.2.840.10008.1.2.4.70", "1.2.3"]),
    which=st.sampled_from(list(READ)),
)
@tries(1500)
def test_a_request_of_any_bytes_is_read_or_refused(content: bytes, syntax: str, which: tuple[str, int]) -> None:
    with bounded(), contextlib.suppress(InvalidInstance):
        found = list(leaves(content, syntax))
        command = Command(which[1], 1, which[0], STORAGE_COMMITMENT_INSTANCE, has_data_set=True, action_type=1)
        said = READ[which](command, found)
        assert isinstance(said, Answer) or said["kind"] in {"commitment", "availability", "procedure_step"}


def test_sequences_without_end_cost_neither_stack_nor_time() -> None:
    began = time.thread_time()
    for content in ((_SEQUENCE + _ITEM) * 200_000, _SEQUENCE + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 900_000):
        for step in (walk, leaves):
            with contextlib.suppress(InvalidInstance):
                list(step(content, EXPLICIT))
    assert time.thread_time() - began < 20
