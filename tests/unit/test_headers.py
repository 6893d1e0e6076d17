"""Headers are read from bytes of any kind within limits, and tell what pydicom would tell."""

from __future__ import annotations

import json
import random
import struct

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.elements import walk
from gateway.headers import MAX_REFERENCES, check, read_header, read_identity
from record.errors import InvalidInstance, UnsupportedInstance
from record.instances import KEY_OBJECT_SELECTION, InstanceHeader
from record.states import InstanceKind
from tests.instances import BIG, EXPLICIT, IMPLICIT, encoded, instance, uid

DEFLATED = "1.2.840.10008.1.2.1.99"


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_every_encoding_gives_the_same_header(syntax):
    ds = instance(
        NumberOfFrames=7,
        SeriesNumber=-3,
        StudyDescription="Chest",
        ImagePositionPatient=[1.5, -2, 3],
        ViewPosition="PA",
    )
    header = read_header(encoded(ds, syntax), syntax)
    assert header.sop_instance_uid == ds.SOPInstanceUID
    assert (header.rows, header.columns, header.bits_allocated, header.samples_per_pixel) == (16, 16, 16, 1)
    assert (header.number_of_frames, header.series_number, header.instance_number) == (7, -3, 1)
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert (header.image_position_patient, header.pixel_spacing) == ((1.5, -2.0, 3.0), (0.5, 0.25))
    assert (header.patient_name, header.study_description, header.view_position) == ("Canary^Yellow", "Chest", "PA")
    assert header.has_pixels
    assert header.kind == InstanceKind.IMAGE


@pytest.mark.parametrize(("declared", "really"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT)])
def test_a_sender_that_mixes_up_the_two_little_endian_forms_is_understood(declared, really):
    ds = instance()
    assert read_header(encoded(ds, really), declared).sop_instance_uid == ds.SOPInstanceUID


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "王^小東"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_are_read_in_their_character_set(character_set, name):
    ds = instance(SpecificCharacterSet=character_set, PatientName=name)
    assert read_header(encoded(ds), EXPLICIT).patient_name == name


def test_an_unknown_character_set_and_wrong_bytes_do_no_harm():
    ds = instance(PatientName=None)
    data = element(0x0008, 0x0005, b"CS", b"KLINGON ") + encoded(ds)
    data = data.replace(b"P1", b"\xff\xfe")
    assert read_header(data, EXPLICIT).patient_id


@pytest.mark.filterwarnings("ignore:The value length")
def test_values_are_capped_and_free_of_control_characters():
    raw = encoded(instance(PatientID="X" * 3000, StudyDescription="a\x00b\x1b[31mc", InstanceNumber=None))
    header = read_header(raw, EXPLICIT)
    assert len(header.patient_id) == 256
    assert "\x00" not in header.study_description
    assert "\x1b" not in header.study_description


def test_numbers_that_no_column_holds_are_absent():
    raw = encoded(instance()).replace(
        element(0x0020, 0x0013, b"IS", b"1 "), element(0x0020, 0x0013, b"IS", b"99999999999 ")
    )
    assert read_header(raw, EXPLICIT).instance_number is None
    raw = encoded(instance()).replace(b"0.5\\0.25", b"nan\\1e99")
    assert read_header(raw, EXPLICIT).pixel_spacing == ()


def test_deflated_data_is_refused_unread():
    with pytest.raises(UnsupportedInstance):
        read_header(b"anything", DEFLATED)


def nested(depth: int) -> Dataset:
    ds = Dataset()
    ds.Manufacturer = "inside"
    for _ in range(depth):
        outer = Dataset()
        outer.add_new(0x00081140, "SQ", Sequence([ds]))
        outer[0x00081140].is_undefined_length = True
        ds.is_undefined_length_sequence_item = True
        ds = outer
    return ds


def test_sequences_are_stepped_over_without_recursion_and_only_so_deep():
    ds = instance()
    ds.update(nested(20))
    assert read_header(encoded(ds), EXPLICIT).has_pixels
    deep = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(InvalidInstance) as refused:
        list(walk(deep * 100_000, EXPLICIT))
    assert refused.value.facts["reason_code"] == "too_deep"


def test_what_breaks_before_the_pixels_still_counts_as_having_some():
    raw = encoded(instance())
    at = raw.index(struct.pack("<HH", 0x7FE0, 0x0010))
    broken = raw[:at] + struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0x7FFFFFFF)
    header = read_header(broken, EXPLICIT)
    assert header.has_pixels
    assert header.kind == InstanceKind.IMAGE


def test_an_instance_cut_off_in_its_pixels_keeps_its_header():
    raw = encoded(instance())
    assert read_header(raw[:-100], EXPLICIT).has_pixels


def test_a_rejection_note_is_known_by_its_title():
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113001", "DCM", "Rejected for Quality Reasons"
    ds = instance(PixelData=None, Rows=None, Columns=None, SOPClassUID=KEY_OBJECT_SELECTION)
    ds.ConceptNameCodeSequence = Sequence([code])
    for syntax in (EXPLICIT, IMPLICIT):
        assert read_header(encoded(ds, syntax), syntax).kind == InstanceKind.REJECTION_NOTE


def rejection(*series: list[str], title: str = "113001", undefined: bool = False) -> Dataset:
    """A rejection note on instances, a list a series."""

    def sequence(items: list[Dataset]) -> Sequence:
        for each in items:
            each.is_undefined_length_sequence_item = undefined
        return Sequence(items)

    code, request = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = title, "DCM", "Rejected"
    named = []
    for uids in series:
        one, instances = Dataset(), []
        for each in uids:
            instances.append(Dataset())
            instances[-1].ReferencedSOPClassUID, instances[-1].ReferencedSOPInstanceUID = KEY_OBJECT_SELECTION, each
            instances[-1].add_new(0x0040A170, "SQ", Sequence([code]))  # another sequence, to be stepped over
        one.ReferencedSOPSequence, one.SeriesInstanceUID = sequence(instances), uid()
        one["ReferencedSOPSequence"].is_undefined_length = undefined
        named.append(one)
    request.ReferencedSeriesSequence, request.StudyInstanceUID = sequence(named), uid()
    request["ReferencedSeriesSequence"].is_undefined_length = undefined
    ds = instance(PixelData=None, Rows=None, Columns=None, SOPClassUID=KEY_OBJECT_SELECTION)
    ds.ConceptNameCodeSequence = Sequence([code])
    ds.CurrentRequestedProcedureEvidenceSequence = sequence([request])
    ds["CurrentRequestedProcedureEvidenceSequence"].is_undefined_length = undefined
    return ds


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("undefined", [True, False])
def test_a_rejection_note_names_what_it_rejects(syntax, undefined):
    ds = rejection(["1.2.3", "1.2.4"], ["1.2.5", "1.2.3"], undefined=undefined)
    header = read_header(encoded(ds, syntax), syntax)
    assert header.referenced_sop_instance_uids == ("1.2.3", "1.2.4", "1.2.5")
    assert InstanceHeader.from_dict(json.loads(json.dumps(header.as_dict()))) == header


def test_only_a_rejection_note_s_references_are_kept():
    raw = encoded(rejection(["1.2.3"], title="113000"))
    assert read_header(raw, EXPLICIT).referenced_sop_instance_uids == ()
    raw = encoded(rejection(["1.2.3"])).replace(
        KEY_OBJECT_SELECTION.encode(), KEY_OBJECT_SELECTION[:-1].encode() + b"8"
    )
    assert read_header(raw, EXPLICIT).referenced_sop_instance_uids == ()


def test_a_rejection_note_s_references_are_bounded_and_are_uids():
    ds = rejection([f"1.2.{n}" for n in range(MAX_REFERENCES + 50)])
    assert len(read_header(encoded(ds), EXPLICIT).referenced_sop_instance_uids) == MAX_REFERENCES
    raw = encoded(rejection(["1.2.3", "1.2.4"])).replace(b"1.2.3", b"<../>")
    assert read_header(raw, EXPLICIT).referenced_sop_instance_uids == ("1.2.4",)


def test_a_hurt_rejection_note_ends_in_a_header_or_a_refusal():
    chance = random.Random(20261125)
    for syntax in (EXPLICIT, IMPLICIT, BIG):
        for undefined in (True, False):
            whole = encoded(rejection(["1.2.3", "1.2.4"], ["1.2.5"], undefined=undefined), syntax)
            for _ in range(300):
                hurt = bytearray(whole)
                for _ in range(chance.randrange(1, 6)):
                    hurt[chance.randrange(len(hurt))] = chance.randrange(256)
                try:
                    header = read_header(bytes(hurt), syntax)
                except InvalidInstance:
                    continue
                assert len(header.referenced_sop_instance_uids) <= 3


@pytest.mark.parametrize(
    ("keyword", "reason"),
    [("StudyInstanceUID", "missing_study_instance_uid"), ("SOPInstanceUID", "missing_sop_instance_uid")],
)
def test_an_instance_without_identity_is_refused_by_the_name_of_what_lacks(keyword, reason):
    with pytest.raises(InvalidInstance) as refused:
        read_header(encoded(instance(**{keyword: None})), EXPLICIT)
    assert refused.value.facts["reason_code"] == reason


def test_of_an_element_that_comes_twice_the_first_one_counts_at_the_door_and_in_the_record():
    raw = encoded(instance(PixelData=None, SOPInstanceUID="1.2.3.4"))
    late = raw + element(0x0008, 0x0018, b"UI", b"9.9.9\0") + element(0x0020, 0x000D, b"UI", b"<>")
    early = element(0x0008, 0x0018, b"UI", b"9.9.9\0") + raw
    for content, expected in ((late, "1.2.3.4"), (early, "9.9.9")):
        assert read_identity(content, EXPLICIT).sop_instance_uid == expected
        assert read_header(content, EXPLICIT).sop_instance_uid == expected


@pytest.mark.parametrize("bad", ["../../etc/passwd", "1.2.3/4", "1" * 65, "1.2;drop"])
def test_what_is_no_uid_is_refused(bad):
    raw = encoded(instance()).replace(b"P1", b"P2")
    ours = uid()
    raw = encoded(instance(SeriesInstanceUID=ours)).replace(
        element(0x0020, 0x000E, b"UI", ours.encode() + b"\0" * (len(ours) % 2)),
        element(0x0020, 0x000E, b"UI", bad.encode() + b"\0" * (len(bad) % 2)),
    )
    with pytest.raises(InvalidInstance):
        check(read_identity(raw, EXPLICIT))


def test_any_bytes_end_in_a_header_or_a_refusal():
    chance = random.Random(20261124)
    ds = instance(side=4)
    ds.update(nested(3))
    for syntax in (EXPLICIT, IMPLICIT, BIG):
        whole = encoded(ds, syntax)
        for _ in range(700):
            hurt = bytearray(whole[: chance.randrange(1, len(whole))] if chance.random() < 0.3 else whole)
            for _ in range(chance.randrange(1, 6)):
                hurt[chance.randrange(len(hurt))] = chance.randrange(256)
            try:
                read_header(bytes(hurt), syntax)
            except InvalidInstance:
                continue
