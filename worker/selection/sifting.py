"""What is no picture for the model, each instance with the first rule that says so.

Knows header rows alone. Does not know budgets, nor what a protocol does with what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from record.instances import InstanceHeader, StoredInstance
from record.states import InstanceKind
from worker.protocols import Protocol, says
from worker.selection.chosen import Omitted

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SECTIONS = frozenset({"CT", "MR", "PT"})
_LOCALIZERS = ("localizer", "scout", "topogram", "surview", "scanogram", "localizador", "定位")


def sift(
    protocol: Protocol, instances: Sequence[StoredInstance], site: str = ""
) -> tuple[list[StoredInstance], list[Omitted]]:
    """Return what may be shown, and what may not with the reason."""
    meant = [h for h in (i.header for i in instances) if _is_image(h) and protocol.match.accepts(h, site)]
    presented = {h.modality for h in meant if h.presentation_intent_type == "FOR PRESENTATION"}
    own = any(not _is_capture(h) and not _is_localizer(h) and not _is_named_localizer(h) for h in meant)
    grey = {h.modality for h in meant if h.samples_per_pixel == 1}
    kept: list[StoredInstance] = []
    omitted: list[Omitted] = []
    for instance in instances:
        header = instance.header
        if not _is_image(header):
            reason = "not an image for the model"
        elif not protocol.match.accepts(header, site):
            reason = f"not what the protocol {protocol.name} is for"
        elif _is_localizer(header) or (own and _is_named_localizer(header)):
            reason = "localizer"
        elif header.sop_class_uid == WHOLE_SLIDE and {"LABEL", "OVERVIEW"} & {*header.image_type[2:3]}:
            reason = "shows the label of a slide, which may name the patient"
        elif header.presentation_intent_type == "FOR PROCESSING" and header.modality in presented:
            reason = "for processing, and the study has images for presentation"
        elif own and _is_capture(header):
            reason = "secondary capture, and the study has images of its own"
        elif header.modality in _SECTIONS & grey and header.samples_per_pixel == 3:
            reason = "a coloured overview, and the study has slices in grey"
        else:
            kept.append(instance)
            continue
        omitted.append(Omitted(instance.instance_id, reason))
    return kept, omitted


def _is_image(header: InstanceHeader) -> bool:
    """Whether it is an image object, and not of single bits (segmentations, overlays)."""
    return header.kind is InstanceKind.IMAGE and header.bits_allocated != 1


def _is_localizer(header: InstanceHeader) -> bool:
    return any(v.upper() in {"LOCALIZER", "SCOUT"} for v in header.image_type)


def _is_named_localizer(header: InstanceHeader) -> bool:
    """By the series' name alone, which is not believed where there is nothing else."""
    return header.modality in _SECTIONS and says(f"{header.series_description} / {header.protocol_name}", _LOCALIZERS)


def _is_capture(header: InstanceHeader) -> bool:
    """A screen shot, such as a dose page (PS3.3 A.8)."""
    return header.sop_class_uid.startswith(SECONDARY_CAPTURE) or "SCREEN SAVE" in map(str.upper, header.image_type)
