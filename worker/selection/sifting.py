"""What is no picture for the model, each instance with the first rule that says so.

Knows header rows alone. Does not know budgets, nor what a protocol does with what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from record.instances import InstanceHeader, StoredInstance
from worker.kinds import SECTIONS, is_capture, is_image, is_localizer, is_named_localizer, shows_label
from worker.protocols import Protocol
from worker.selection.chosen import Omitted
from worker.views import laterality_of, view_of


def sift(
    protocol: Protocol, instances: Sequence[StoredInstance], site: str = ""
) -> tuple[list[StoredInstance], list[Omitted]]:
    """Return what may be shown, and what may not with the reason."""
    meant = [h for h in (i.header for i in instances) if is_image(h) and protocol.match.accepts(h, site)]
    presented = {_view(h) for h in meant if h.presentation_intent_type == "FOR PRESENTATION"}
    own = any(not is_capture(h) and not is_localizer(h) and not is_named_localizer(h) for h in meant)
    grey = {h.modality for h in meant if h.samples_per_pixel == 1}
    kept: list[StoredInstance] = []
    omitted: list[Omitted] = []
    for instance in instances:
        header = instance.header
        if not is_image(header):
            reason = "not an image for the model"
        elif not protocol.match.accepts(header, site):
            reason = f"not what the protocol {protocol.name} is for"
        elif is_localizer(header) or (own and is_named_localizer(header)):
            reason = "localizer"
        elif shows_label(header):
            reason = "shows the label of a slide, which may name the patient"
        elif header.presentation_intent_type == "FOR PROCESSING" and _is_presented(header, presented):
            reason = "for processing, and the study has images for presentation"
        elif own and is_capture(header):
            reason = "secondary capture, and the study has images of its own"
        elif header.modality in SECTIONS & grey and header.samples_per_pixel == 3:
            reason = "a coloured overview, and the study has slices in grey"
        else:
            kept.append(instance)
            continue
        omitted.append(Omitted(instance.instance_id, reason))
    return kept, omitted


def _view(header: InstanceHeader) -> tuple[str, str, str]:
    return (header.modality, view_of(header), laterality_of(header))


def _is_presented(header: InstanceHeader, presented: Collection[tuple[str, str, str]]) -> bool:
    """Whether there is an image for presentation of this view; of any, where the view is not told."""
    own = _view(header)
    return own in presented or (not own[1] and any(modality == own[0] for modality, _, _ in presented))
