"""From the bytes of a data set to an `InstanceHeader`, within limits that hold whatever the bytes are.

Knows which attributes a header has, and that values are capped and freed of control characters before anybody sees them.
Does not know how elements are encoded (`elements`), files, spools or what the header is used for; nested functional groups of enhanced objects are left to whoever decodes frames.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom import charset
from pydicom.charset import decode_bytes
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from gateway.elements import BIG_ENDIAN, PIXELS, Buffer, Element, leaves, walk
from record.errors import InvalidInstance, UnsupportedInstance
from record.instances import KEY_OBJECT_SELECTION, REJECTION_TITLES, InstanceHeader

UID = re.compile(r"[0-9.]{1,64}")
"""What we take as a UID. Real devices send leading zeros in components (PS3.5 section 9.1 forbids them)."""
MAX_TEXT = 256
MAX_LONG_TEXT = 1024
"""Of a history or a reason (ST, LT, UT): what a prompt takes of it is shorter."""
MAX_NAME = 324  # five components of three representations, PS3.5 section 6.2
MAX_VALUES = 16
MAX_REFERENCES = 10_000
"""A rejection note names more only where it rejects more images than any study has."""
_MAX_RAW = 4096
_INTEGER = 2**31 - 1

SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_CHARACTER_SET, _TITLE, _CODE_VALUE = 0x00080005, 0x0040A043, 0x00080100
_VIEW_CODE, _PROCEDURE_CODES = 0x00540220, (0x00081032, 0x00321064)
_CODED = frozenset({_TITLE, _VIEW_CODE, *_PROCEDURE_CODES})
# Current Requested Procedure Evidence Sequence, and what lies in it (PS3.3, table C.17-3b): series, instances, their UIDs.
_EVIDENCE, _IN_EVIDENCE, _REFERENCED = 0x0040A375, (0x0040A375, 0x00081115, 0x00081199), 0x00081155
_TEXTS: Mapping[str, int] = {
    "patient_id": 0x00100020,
    "issuer_of_patient_id": 0x00100021,
    "patient_name": 0x00100010,
    "patient_birth_date": 0x00100030,
    "patient_sex": 0x00100040,
    "patient_age": 0x00101010,
    "accession_number": 0x00080050,
    "study_date": 0x00080020,
    "study_time": 0x00080030,
    "timezone_offset_from_utc": 0x00080201,
    "study_description": 0x00081030,
    "referring_physician_name": 0x00080090,
    "modality": 0x00080060,
    "series_description": 0x0008103E,
    "body_part_examined": 0x00180015,
    "protocol_name": 0x00181030,
    "laterality": 0x00200060,
    "photometric_interpretation": 0x00280004,
    "view_position": 0x00185101,
    "image_laterality": 0x00200062,
    "presentation_intent_type": 0x00080068,
    "burned_in_annotation": 0x00280301,
    "contrast_bolus_agent": 0x00180010,
    "requested_procedure_description": 0x00321060,
    "acquisition_time": 0x00080032,
    "content_time": 0x00080033,
}
_LONG_TEXTS: Mapping[str, tuple[int, ...]] = {  # the first that says something
    "reason_for_study": (0x00401002, 0x00321030),
    "additional_patient_history": (0x001021B0,),
}
_NAMES = frozenset({"patient_name", "referring_physician_name"})
_LISTS: Mapping[str, int] = {"image_type": 0x00080008, "patient_orientation": 0x00200020}
_NUMBERS: Mapping[str, int] = {
    "series_number": 0x00200011,
    "instance_number": 0x00200013,
    "acquisition_number": 0x00200012,
    "temporal_position_identifier": 0x00200100,
    "echo_numbers": 0x00180086,
}
_SHORTS: Mapping[str, int] = {
    "rows": 0x00280010,
    "columns": 0x00280011,
    "samples_per_pixel": 0x00280002,
    "bits_allocated": 0x00280100,
}
_DECIMALS: Mapping[str, tuple[int, int]] = {  # tag, number of values
    "image_position_patient": (0x00200032, 3),
    "image_orientation_patient": (0x00200037, 6),
    "pixel_spacing": (0x00280030, 2),
}
_SCALARS: Mapping[str, int] = {"slice_thickness": 0x00180050, "trigger_time": 0x00181060}
_FRAMES, _B_VALUE = 0x00280008, 0x00189087
_WANTED = frozenset(
    {SOP_CLASS, SOP_INSTANCE, STUDY, SERIES, _CHARACTER_SET, _FRAMES, _B_VALUE}
    | _CODED
    | {tag for tags in _LONG_TEXTS.values() for tag in tags}
    | set(_SCALARS.values())
    | set(_TEXTS.values())
    | set(_LISTS.values())
    | set(_NUMBERS.values())
    | set(_SHORTS.values())
    | {tag for tag, _ in _DECIMALS.values()}
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The four UIDs every instance must have (PS3.3, section C.12.1 and the modules above it); empty where absent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def read_identity(buffer: Buffer, transfer_syntax_uid: str, start: int = 0) -> Identity:
    """The instance's four UIDs, from as few bytes as it takes.

    Raises
    ------
    InvalidInstance
        The bytes cannot be followed to the end of group 0020; more of them may help.
    """
    found: dict[int, bytes] = {}
    for element in walk(buffer, transfer_syntax_uid, start):
        if element.tag > SERIES:
            break
        if element.tag in {SOP_CLASS, SOP_INSTANCE, STUDY, SERIES} and element.tag not in found:
            found[element.tag] = bytes(buffer[element.start : element.start + min(element.length, _MAX_RAW)])
    return Identity(*(_uid(found, tag) for tag in (SOP_CLASS, SOP_INSTANCE, STUDY, SERIES)))


def check(identity: Identity) -> None:
    """Refuse an instance that cannot be filed: a missing or malformed UID.

    Raises
    ------
    InvalidInstance
        With the fact `reason_code`, which names the attribute.
    """
    for name in ("sop_class_uid", "sop_instance_uid", "study_instance_uid", "series_instance_uid"):
        value = getattr(identity, name)
        if not UID.fullmatch(value):
            reason = f"{'malformed' if value else 'missing'}_{name}"
            raise InvalidInstance(f"The data set has no usable {name}.", reason_code=reason)


def read_header(buffer: Buffer, transfer_syntax_uid: str, start: int = 0) -> InstanceHeader:
    """The header of one instance. What follows a broken element is unknown, what stands before it is kept.

    Of an element that comes twice the first one counts, as for `read_identity`: a door has checked that one.

    Where the walk fails before it meets pixels, an instance with Rows and Columns counts as one that has pixels: it
    must end as *not analysed*, never silently as one without images.

    Raises
    ------
    InvalidInstance
        One of the four UIDs is missing or malformed.
    UnsupportedInstance
        The data set is deflated.
    """
    found: dict[int, bytes] = {}
    has_pixels, broken, evidence = False, None, None
    try:
        for element in walk(buffer, transfer_syntax_uid, start):
            if element.tag in PIXELS:
                has_pixels = has_pixels or element.length > 0
            elif element.tag in found:  # none may come twice (PS3.5 section 7.1); `read_identity` saw the first
                continue
            elif element.tag in _CODED:
                found[element.tag] = _code_value(buffer, element, transfer_syntax_uid, start)
            elif element.tag == _EVIDENCE:
                evidence = element
            elif element.tag in _WANTED:
                found[element.tag] = bytes(buffer[element.start : element.start + min(element.length, _MAX_RAW)])
    except UnsupportedInstance:
        raise
    except InvalidInstance as error:
        broken = error
    identity = Identity(*(_uid(found, tag) for tag in (SOP_CLASS, SOP_INSTANCE, STUDY, SERIES)))
    if broken and not (identity.study_instance_uid and identity.series_instance_uid):
        raise broken  # it ended before they could come
    check(identity)
    order = ">" if transfer_syntax_uid == BIG_ENDIAN else "<"
    shorts = {name: _short(found.get(tag, b""), order) for name, tag in _SHORTS.items()}
    if broken and shorts["rows"] and shorts["columns"]:
        has_pixels = True
    encodings = _encodings(found.get(_CHARACTER_SET, b""))
    frames = _integer(found.get(_FRAMES, b""))
    values: dict[str, Any] = dict(shorts)
    values |= {name: _text(found.get(tag, b""), encodings, name=name in _NAMES) for name, tag in _TEXTS.items()}
    values |= {name: _list(found.get(tag, b"")) for name, tag in _LISTS.items()}
    values |= {name: _integer(found.get(tag, b"")) for name, tag in _NUMBERS.items()}
    values |= {name: _decimals(found.get(tag, b""), count) for name, (tag, count) in _DECIMALS.items()}
    values |= {name: next(iter(_decimals(found.get(tag, b""), 1)), None) for name, tag in _SCALARS.items()}
    for name, tags in _LONG_TEXTS.items():
        told = (_text(found.get(tag, b""), encodings, name=False, limit=MAX_LONG_TEXT) for tag in tags)
        values[name] = next(filter(None, told), "")
    title = _coded(found, _TITLE)
    if evidence and identity.sop_class_uid == KEY_OBJECT_SELECTION and title in REJECTION_TITLES:
        values["referenced_sop_instance_uids"] = _references(buffer, evidence, transfer_syntax_uid, start)
    return InstanceHeader(
        study_instance_uid=identity.study_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        number_of_frames=max(1, frames if frames is not None else 1),
        has_pixels=has_pixels,
        document_title_code=title,
        view_code=_coded(found, _VIEW_CODE),
        procedure_codes=tuple(filter(None, (_coded(found, tag) for tag in _PROCEDURE_CODES))),
        diffusion_b_value=_double(found.get(_B_VALUE, b""), order),
        **values,
    )


def _code_value(buffer: Buffer, sequence: Element, transfer_syntax_uid: str, start: int) -> bytes:
    """Code Value of the first item of a code sequence (PS3.3 section 8.8), where it can be found."""
    with contextlib.suppress(InvalidInstance):
        for leaf in leaves(buffer, transfer_syntax_uid, sequence, start):
            if leaf.tag == _CODE_VALUE and leaf.path == ((sequence.tag, 0),):
                return leaf.value
    return b""


def _references(buffer: Buffer, evidence: Element, transfer_syntax_uid: str, start: int) -> tuple[str, ...]:
    """The SOP Instance UIDs in an evidence sequence, each once; what follows a broken element is unknown."""
    found: dict[str, None] = {}
    with contextlib.suppress(InvalidInstance):
        for leaf in leaves(buffer, transfer_syntax_uid, evidence, start):
            if leaf.tag == _REFERENCED and leaf.tags == _IN_EVIDENCE:
                found[leaf.text] = None
            if len(found) >= MAX_REFERENCES:
                break
    return tuple(uid for uid in found if UID.fullmatch(uid))


def _uid(found: Mapping[int, bytes], tag: int) -> str:
    return found.get(tag, b"")[:128].decode("latin-1").strip("\0 ")


def _encodings(declared: bytes) -> list[str]:
    terms = [term.strip() for term in declared.decode("latin-1").strip("\0 ").split("\\")]
    known = [term for term in terms if term in charset.python_encoding]
    alone = [term for term in known if term in {"ISO_IR 192", "GB18030", "GBK"}]  # PS3.3 section C.12.1.1.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they would quote a stranger's value
        return charset.convert_encodings(alone[:1] or known or [""])


def _coded(found: Mapping[int, bytes], tag: int) -> str:
    return _clean(found.get(tag, b"").decode("latin-1"), MAX_TEXT)


def _text(raw: bytes, encodings: list[str], *, name: bool, limit: int = MAX_TEXT) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = decode_bytes(raw, encodings, TEXT_VR_DELIMS | PN_DELIMS if name else TEXT_VR_DELIMS)
    return _clean(text, MAX_NAME).rstrip("=^") if name else _clean(text, limit)


def _clean(text: str, limit: int) -> str:
    """Without padding and control characters (PostgreSQL takes no NUL), without half a character, not too long."""
    readable = "".join(c if c.isprintable() else " " for c in text.rstrip("\0 "))
    return readable.encode("utf-8", "replace").decode("utf-8").strip()[:limit]


def _list(raw: bytes) -> tuple[str, ...]:
    text = raw.decode("latin-1").strip("\0 ")
    return tuple(_clean(value, 64) for value in text.split("\\")[:MAX_VALUES]) if text else ()


def _integer(raw: bytes) -> int | None:
    """An IS value (PS3.5 section 6.2) that a column can hold, else nothing."""
    try:
        value = int(raw[:32].split(b"\\")[0].strip(b"\0 "))
    except ValueError:
        return None
    return value if -_INTEGER <= value <= _INTEGER else None


def _short(raw: bytes, order: str) -> int:
    return int(struct.unpack_from(order + "H", raw)[0]) if len(raw) >= 2 else 0


def _double(raw: bytes, order: str) -> float | None:
    """An FD value, if it is a number."""
    value = float(struct.unpack_from(order + "d", raw)[0]) if len(raw) >= 8 else math.nan
    return value if math.isfinite(value) else None


def _decimals(raw: bytes, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in raw.strip(b"\0 ").split(b"\\"))
    except ValueError:
        return ()
    return values if len(values) == count and all(map(math.isfinite, values)) else ()
