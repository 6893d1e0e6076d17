"""What is known of one stored instance without decoding its pixels.

Knows the attributes that selection, protocols and pages ask for, and which SOP classes are images. Does not know how
they were read: the indexer fills an `InstanceHeader` from the first kilobytes, the worker only reads it. Text in it is
hostile input, length-capped where it is made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from record.states import InstanceKind

NOT_IMAGES: tuple[str, ...] = (
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports, Key Object Selection (PS3.4 B.5)
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, spatial registration, segmentation, surfaces
    "1.2.840.10008.5.1.4.1.1.67",  # real world value mapping
    "1.2.840.10008.5.1.4.1.1.481.",  # radiotherapy; its images are listed in IMAGES
    "1.2.840.10008.5.1.4.1.1.78.",  # ophthalmic measurements
    "1.2.840.10008.5.1.4.1.1.79.",
    "1.2.840.10008.5.1.4.1.1.30",  # parametric map
    "1.2.840.10008.5.1.4.1.1.200.",  # protocols
    "1.2.840.10008.5.1.4.34.",
    "1.2.840.10008.5.1.4.38.",
    "1.2.840.10008.5.1.4.39.",
    "1.2.840.10008.5.1.4.43.",
    "1.2.840.10008.5.1.4.44.",
    "1.2.840.10008.5.1.4.45.",
    "1.2.840.10008.1.3.10",  # media storage directory
)
RT_IMAGE = "1.2.840.10008.5.1.4.1.1.481.1"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTION_TITLES = frozenset({"113001", "113037", "113038", "113039"})
"""Document titles that make a Key Object Selection a rejection note (IHE IOCM; PS3.16 CID 7011)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """The header of one instance: identifiers, patient and study text as sent, and what selection needs.

    DICOM attributes bear their keyword in snake case and keep their text; lists keep DICOM's order. Empty strings and
    empty tuples stand for absent values. `pixel_spacing` in mm (row, column).
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    # patient and study level, as sent
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    timezone_offset_from_utc: str = ""
    study_description: str = ""
    referring_physician_name: str = ""
    # what was asked for and why, as sent with the images: free text, hostile and perhaps identifying
    procedure_codes: tuple[str, ...] = ()  # performed (0008,1032) and requested (0032,1064)
    requested_procedure_description: str = ""
    reason_for_study: str = ""  # or Reason for the Requested Procedure
    additional_patient_history: str = ""
    # series level
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    body_part_examined: str = ""
    protocol_name: str = ""
    laterality: str = ""
    # instance level
    instance_number: int | None = None
    number_of_frames: int = 1
    rows: int = 0
    columns: int = 0
    samples_per_pixel: int = 0
    bits_allocated: int = 0
    photometric_interpretation: str = ""
    has_pixels: bool = False
    image_type: tuple[str, ...] = ()
    view_position: str = ""
    image_laterality: str = ""
    patient_orientation: tuple[str, ...] = ()
    presentation_intent_type: str = ""
    burned_in_annotation: str = ""
    image_position_patient: tuple[float, ...] = ()
    image_orientation_patient: tuple[float, ...] = ()
    pixel_spacing: tuple[float, ...] = ()
    contrast_bolus_agent: str = ""
    view_code: str = ""
    slice_thickness: float | None = None  # mm
    acquisition_number: int | None = None
    acquisition_time: str = ""
    content_time: str = ""
    temporal_position_identifier: int | None = None
    echo_numbers: int | None = None
    trigger_time: float | None = None  # ms
    diffusion_b_value: float | None = None  # s/mm²
    document_title_code: str = ""
    referenced_sop_instance_uids: tuple[str, ...] = ()  # of a rejection note: what it rejects

    @property
    def kind(self) -> InstanceKind:
        """Image, rejection note or other, by SOP class and the presence of pixels (PS3.4 B.5)."""
        if self.sop_class_uid == KEY_OBJECT_SELECTION and self.document_title_code in REJECTION_TITLES:
            return InstanceKind.REJECTION_NOTE
        if self.sop_class_uid == RT_IMAGE:
            return InstanceKind.IMAGE if self.has_pixels else InstanceKind.OTHER
        if self.sop_class_uid.startswith(NOT_IMAGES):
            return InstanceKind.OTHER
        return InstanceKind.IMAGE if self.has_pixels else InstanceKind.OTHER

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the instance's row."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> InstanceHeader:
        """Back from a row; keys of a newer release are ignored."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance as the reading sees it: our id, the store's key for its bytes, and its header."""

    instance_id: str
    sha256: str
    header: InstanceHeader = field(repr=False)
