"""What an image is at all: for the model, a localizer, a screen shot, the label of a slide.

Knows header rows. Does not know protocols: which of them fits, and what is shown under it, both begin here.
"""

from __future__ import annotations

from record.instances import InstanceHeader
from record.states import InstanceKind
from worker.protocols.words import says

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SECTIONS = frozenset({"CT", "MR", "PT"})
"""Modalities whose single frames are slices."""
_LOCALIZERS = ("localizer", "scout", "topogram", "surview", "scanogram", "localizador", "定位")


def is_image(header: InstanceHeader) -> bool:
    """Whether it is an image object, and not of single bits (segmentations, overlays)."""
    return header.kind is InstanceKind.IMAGE and header.bits_allocated != 1


def is_localizer(header: InstanceHeader) -> bool:
    """Whether the device says that it only shows where slices lie."""
    return any(v.upper() in {"LOCALIZER", "SCOUT"} for v in header.image_type)


def is_named_localizer(header: InstanceHeader) -> bool:
    """Whether its series is called so, which is not believed where there is nothing else."""
    return header.modality in SECTIONS and says(f"{header.series_description} / {header.protocol_name}", _LOCALIZERS)


def is_capture(header: InstanceHeader) -> bool:
    """Whether it is a screen shot, such as a dose page (PS3.3 A.8)."""
    return header.sop_class_uid.startswith(SECONDARY_CAPTURE) or "SCREEN SAVE" in map(str.upper, header.image_type)


def shows_label(header: InstanceHeader) -> bool:
    """Whether a slide's label may be on it, which may name the patient."""
    return header.sop_class_uid == WHOLE_SLIDE and not {"LABEL", "OVERVIEW"}.isdisjoint(
        map(str.upper, header.image_type)
    )


def is_own(header: InstanceHeader) -> bool:
    """Whether it is what the study was made for: none of the above."""
    return (
        is_image(header)
        and not is_localizer(header)
        and not is_named_localizer(header)
        and not is_capture(header)
        and not shows_label(header)
    )
