"""Data sets of any bytes: stepped over, or refused by name, in little time and memory; and what a header may hold then."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.elements import MAX_DEPTH, walk
from gateway.headers import MAX_NAME, MAX_TEXT, check, read_header, read_identity
from record.errors import InvalidInstance
from record.instances import InstanceHeader
from tests.hostile import EXTREMES, bounded, hurt, tries
from tests.instances import BIG, CT, EXPLICIT, IMPLICIT, encoded, instance

pytestmark = [
    pytest.mark.filterwarnings("ignore:The value length"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),
]
SYNTAXES = st.sampled_from([EXPLICIT, IMPLICIT, BIG, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.90", ""])
IDENTITY = {"SOPInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
WHOLE = {syntax: encoded(instance(side=4, **IDENTITY), syntax) for syntax in (EXPLICIT, IMPLICIT, BIG)}
UNDEFINED = 0xFFFFFFFF
LONG = (b"OB", b"OW", b"UN", b"UT", b"SQ", b"UC")
TAGS = (
    0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00100010, 0x00100020, 0x00280010, 0x00280011,
    0x00200032, 0x00280030, 0x00280008, 0x00080008, 0x0040A043, 0x0040A375, 0x00081115, 0x00081199, 0x00081155,
    0x00080100, 0x7FE00008, 0x7FE00010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00090010, 0x52009230, 0x00000000,
    0x00200011, 0x00200013,
)  # fmt: skip
VALUES = [b"", b"1.2.3", b"1.2.3.4 ", CT.encode(), b"ISO_IR 192", b"\\ISO 2022 IR 87\\GB18030", b"113001", b"1\\2\\3"]
VALUES += [
    b"\x1b$B\x3b3\x1b(B",
    b"\xff\xfe\0",
    b"nan\\inf\\-inf",
    b"9" * 60,
    b"-1",
    b"1e308\\1e-308",
    b"A^B=\\^^==",
    b"\x88\x13",
]
values = st.sampled_from(VALUES) | st.binary(max_size=20)


def at_pixels(syntax: str) -> int:
    return WHOLE[syntax].index(struct.pack(">HH" if syntax == BIG else "<HH", 0x7FE0, 0x0010))


def element(tag: int, vr: bytes, length: int, value: bytes, *, explicit: bool = True, order: str = "<") -> bytes:
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not explicit or tag >> 16 == 0xFFFE:
        return head + struct.pack(order + "I", length) + value
    form = struct.pack(order + "HI", 0, length) if vr in LONG else struct.pack(order + "H", length & 0xFFFF)
    return head + vr + form + value


@st.composite
def elements(draw: st.DrawFn, *, explicit: bool, order: str, depth: int = 0) -> bytes:
    """A few elements in any order, nested, whose kinds and lengths may lie."""
    made = b""
    for _ in range(draw(st.integers(0, 5))):
        tag, vr = (
            draw(st.sampled_from(TAGS)),
            draw(st.sampled_from([*LONG, b"UI", b"LO", b"US", b"PN", b"??", b"\0\0"])),
        )
        if depth < 4 and draw(st.integers(0, 3)) == 0:
            inner = draw(elements(explicit=explicit and vr != b"UN", order=order, depth=depth + 1))
            ends = draw(st.booleans())
            inner = element(0xFFFEE000, b"", UNDEFINED if ends else len(inner), inner, order=order)
            inner += element(0xFFFEE00D, b"", 0, b"", order=order) * ends
            value, length = inner + element(0xFFFEE0DD, b"", 0, b"", order=order), UNDEFINED
            if draw(st.booleans()):
                value, length = inner, len(inner)
        else:
            value = draw(values)
            length = len(value)
        if draw(st.integers(0, 9)) == 0:
            length = draw(st.sampled_from(EXTREMES))
        made += element(tag, vr, length, value, explicit=explicit, order=order)
    return made


made = st.booleans().flatmap(
    lambda explicit: st.sampled_from("<>").flatmap(lambda o: elements(explicit=explicit, order=o))
)
# A good data set with something put between its pixels and what is before them.
amended = st.builds(
    lambda inner, outer, syntax: (
        WHOLE[syntax][: at_pixels(syntax)] + inner + WHOLE[syntax][at_pixels(syntax) :] + outer
    ),
    made,
    made,
    st.sampled_from(list(WHOLE)),
)
tails = st.just(b"") | st.sampled_from(list(WHOLE.values()))
data_sets = st.one_of(
    amended,
    st.tuples(made, tails).map(b"".join),
    st.tuples(tails, made).map(b"".join),
    st.sampled_from(list(WHOLE.values())).flatmap(hurt),
    st.binary(max_size=120),
    st.builds(lambda unit, many: unit * many, made, st.integers(0, 400)),
)


@tries(800)
@given(data_sets, SYNTAXES, st.integers(0, 40))
def test_any_bytes_are_stepped_over_or_refused(content: bytes, syntax: str, start: int) -> None:
    view = memoryview(bytes(start) + content)
    with bounded(), contextlib.suppress(InvalidInstance):
        at = start
        for one in walk(view, syntax, start):
            assert at + 8 <= one.start <= one.start + one.length <= len(view)
            at = one.start + one.length
        assert at == len(view) or one.tag >> 16 == 0x7FE0


@tries(800)
@given(data_sets, SYNTAXES)
@example(WHOLE[EXPLICIT][:-44] + element(0x00080018, b"UI", 6, b"9.9.9\0"), EXPLICIT)
@example(WHOLE[EXPLICIT][:-44] + element(0x00200011, b"IS", 12, b"999999999999"), EXPLICIT)
@example(WHOLE[EXPLICIT][:-44] + element(0x00200032, b"DS", 12, b"nan\\inf\\-inf"), EXPLICIT)
@example(WHOLE[EXPLICIT][:-34], EXPLICIT)
def test_any_bytes_end_in_a_header_that_can_be_kept_or_a_refusal(content: bytes, syntax: str) -> None:
    identity = None
    with bounded():
        with contextlib.suppress(InvalidInstance):
            _require_storable(read_header(content, syntax))
        with contextlib.suppress(InvalidInstance):
            found = read_identity(content, syntax)
            check(found)
            identity = found
    if identity:
        header = read_header(content, syntax)
        assert (header.sop_class_uid, header.sop_instance_uid) == (identity.sop_class_uid, identity.sop_instance_uid)
        assert header.study_instance_uid == identity.study_instance_uid
        assert header.series_instance_uid == identity.series_instance_uid, "what the door checked is what is recorded"


@tries(200)
@given(
    st.lists(st.sampled_from([(b"SQ", UNDEFINED), (b"SQ", UNDEFINED), (b"UN", UNDEFINED)]), min_size=1, max_size=80),
    st.integers(1, 300),
    st.booleans(),
)
@example([(b"SQ", UNDEFINED)] * 40, 300, True)
@example([(b"SQ", UNDEFINED)] * MAX_DEPTH, 2, True)
@example([(b"SQ", UNDEFINED)] * (MAX_DEPTH + 1), 2, True)
def test_depth_costs_nothing(kinds: Sequence[tuple[bytes, int]], many: int, ends: bool) -> None:
    """Sequences in sequences, closed again or not; those that go too deep are refused."""
    opening, closing, explicit = b"", b"", True
    for vr, length in kinds:
        opening += element(0x00081140, vr, length, b"", explicit=explicit) + element(0xFFFEE000, b"", UNDEFINED, b"")
        closing += element(0xFFFEE00D, b"", 0, b"") + element(0xFFFEE0DD, b"", 0, b"")
        explicit = explicit and vr != b"UN"
    content = (opening + closing) * many if ends else opening * many
    with bounded():
        if ends and len(kinds) <= MAX_DEPTH:
            assert len(list(walk(content, EXPLICIT))) == many
        else:
            with pytest.raises(InvalidInstance):
                list(walk(content, EXPLICIT))


@tries(400)
@given(st.data(), st.booleans())
def test_what_is_well_formed_is_told_element_by_element(data: st.DataObject, explicit: bool) -> None:
    tags = data.draw(st.lists(st.integers(0x00080000, 0x7FDFFFFF), max_size=8))
    expected, content = [], b""
    for tag in tags:
        vr = data.draw(st.sampled_from([b"LO", b"OB", b"SQ", b"UN"]))
        value, length = data.draw(st.binary(max_size=60)), -1
        if vr in {b"SQ", b"UN"} and data.draw(st.booleans()):
            inner = element(0x00100020, b"LO", len(value), value, explicit=explicit and vr == b"SQ")
            item = element(0xFFFEE000, b"", UNDEFINED, inner) + element(0xFFFEE00D, b"", 0, b"")
            value, length = item + element(0xFFFEE0DD, b"", 0, b""), UNDEFINED
        content += element(tag, vr, length if length >= 0 else len(value), value, explicit=explicit)
        expected.append((tag, value))
    syntax = EXPLICIT if explicit else IMPLICIT
    assert [(one.tag, content[one.start : one.start + one.length]) for one in walk(content, syntax)] == expected


def _require_storable(header: InstanceHeader) -> None:
    """Columns and pages take what it holds."""
    told = json.loads(json.dumps(header.as_dict(), allow_nan=False))
    assert InstanceHeader.from_dict(told) == header
    for name, value in told.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                one.encode()
                assert len(one) <= max(MAX_TEXT, MAX_NAME)
                assert one.isprintable(), name
            elif isinstance(one, int):
                assert abs(one) < 1 << 31, name
