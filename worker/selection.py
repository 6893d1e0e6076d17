"""Which frames the model is shown, and why; and why the others are not.

Knows series, slices, views and a protocol's limits, from headers alone. Does not know pixels: a frame that cannot be
decoded is found out later. Deterministic: the same instances, in whatever order they come, give the same selection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from record.instances import InstanceHeader, StoredInstance
from record.states import InstanceKind
from worker.protocols import Protocol

CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_VIEW_ORDER = ("PA", "AP")
_DIRECTION_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """One picture to be made.

    Attributes
    ----------
    frame
        Counted from 0.
    window
        A named window, or None for the file's own.
    caption
        What the model is told the picture is: codes and counts, never free text of the header.
    """

    instance: StoredInstance
    frame: int
    window: str | None
    caption: str
    reason: str


@dataclass(frozen=True, slots=True)
class Omitted:
    """An instance of which the model is shown nothing."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Every instance of the revision stands in exactly one of the two."""

    chosen: tuple[Chosen, ...]
    omitted: tuple[Omitted, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Frames that belong together in order: the slices of a series, or the frames of one instance."""

    frames: tuple[tuple[StoredInstance, int], ...]
    kind: str


def select(protocol: Protocol, instances: Sequence[StoredInstance]) -> Selection:
    """Choose the frames a protocol asks for.

    A budget of pictures goes round the units (a series of slices, or one instance) until it is spent; within a unit the
    frames are spread evenly. With fewer pictures than units, the first units have it: large series, frontal views.
    """
    candidates, omitted = _sift(protocol, sorted(instances, key=_order))
    units = _units(candidates)
    windows = [_windows(protocol, unit.frames[0][0].header) for unit in units]
    shares = _share([len(unit.frames) for unit in units], [len(w) for w in windows], protocol.pictures.max)
    is_all = not omitted and all(len(unit.frames) == share for unit, share in zip(units, shares, strict=True))
    chosen: list[Chosen] = []
    for unit, share, wanted in zip(units, shares, windows, strict=True):
        taken = set()
        for position in _spread(len(unit.frames), share):
            instance, frame = unit.frames[position]
            taken.add(instance.instance_id)
            for window in wanted:
                caption = _caption(instance.header, unit, position, window)
                chosen.append(Chosen(instance, frame, window, caption, _why(unit, share, position, is_all=is_all)))
        left = dict.fromkeys(i.instance_id for i, _ in unit.frames if i.instance_id not in taken)
        omitted.extend(Omitted(instance_id, _why_not(unit, share, protocol)) for instance_id in left)
    return Selection(tuple(chosen), tuple(omitted))


def _sift(protocol: Protocol, instances: Sequence[StoredInstance]) -> tuple[list[StoredInstance], list[Omitted]]:
    """Leave out what is no picture for the model; the first rule that applies gives the reason."""
    meant = [h for h in (i.header for i in instances) if _is_image(h) and protocol.match.accepts(h)]
    presented = {h.modality for h in meant if h.presentation_intent_type == "FOR PRESENTATION"}
    own = any(not _is_capture(h) and not _is_localizer(h) for h in meant)
    kept: list[StoredInstance] = []
    omitted: list[Omitted] = []
    for instance in instances:
        header = instance.header
        if not _is_image(header):
            reason = "not an image for the model"
        elif not protocol.match.accepts(header):
            reason = f"not what the protocol {protocol.name} is for"
        elif _is_localizer(header):
            reason = "localizer"
        elif header.presentation_intent_type == "FOR PROCESSING" and header.modality in presented:
            reason = "for processing, and the study has images for presentation"
        elif own and _is_capture(header):
            reason = "secondary capture, and the study has images of its own"
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


def _is_capture(header: InstanceHeader) -> bool:
    """A screen shot, such as a dose page (PS3.3 A.8)."""
    return header.sop_class_uid.startswith(SECONDARY_CAPTURE) or "SCREEN SAVE" in map(str.upper, header.image_type)


def _units(instances: Sequence[StoredInstance]) -> list[_Unit]:
    series: dict[tuple[object, ...], list[StoredInstance]] = defaultdict(list)
    single: list[StoredInstance] = []
    for instance in instances:
        header = instance.header
        if header.modality in CROSS_SECTIONAL and header.number_of_frames <= 1:
            series[(header.series_instance_uid, _direction(header))].append(instance)
        else:
            single.append(instance)
    stacks = [_Unit(tuple((i, 0) for i in _by_position(stack)), "slice") for stack in series.values()]
    stacks.sort(key=lambda u: (-len(u.frames), _order(u.frames[0][0])))
    single.sort(key=lambda i: (_view_rank(i.header), _order(i)))
    return stacks + [
        _Unit(tuple((i, f) for f in range(max(i.header.number_of_frames, 1))), _kind(i.header)) for i in single
    ]


def _kind(header: InstanceHeader) -> str:
    return "frame" if header.number_of_frames > 1 else "image"


def _by_position(stack: list[StoredInstance]) -> list[StoredInstance]:
    """Order slices along their normal (PS3.3 C.7.6.2.1.1), or by Instance Number where positions are not told."""
    headers = [i.header for i in stack]
    if all(len(h.image_position_patient) == 3 and len(h.image_orientation_patient) == 6 for h in headers):
        a, b = np.reshape(headers[0].image_orientation_patient, (2, 3))  # (3,), (3,)
        normal = np.cross(a, b)  # (3,)
        place = {i.instance_id: round(float(normal @ np.array(i.header.image_position_patient)), 3) for i in stack}
        return sorted(stack, key=lambda i: (place[i.instance_id], _order(i)))
    return sorted(stack, key=_order)


def _direction(header: InstanceHeader) -> tuple[float, ...]:
    return tuple(round(v, _DIRECTION_DIGITS) + 0.0 for v in header.image_orientation_patient)


def _windows(protocol: Protocol, header: InstanceHeader) -> tuple[str | None, ...]:
    return protocol.pictures.windows.get(header.modality) or (None,)


def _share(sizes: Sequence[int], costs: Sequence[int], budget: int) -> list[int]:
    """How many frames each unit may show: one more for each in turn, while the budget lasts."""
    shares = [0] * len(sizes)
    growing = True
    while growing:
        growing = False
        for unit, (size, cost) in enumerate(zip(sizes, costs, strict=True)):
            if shares[unit] < size and cost <= budget:
                shares[unit] += 1
                budget -= cost
                growing = True
    return shares


def _spread(total: int, count: int) -> list[int]:
    """The middle of each of `count` equal parts of `total` places."""
    return [(2 * k + 1) * total // (2 * count) for k in range(count)]


def _caption(header: InstanceHeader, unit: _Unit, position: int, window: str | None) -> str:
    parts = [header.modality if _is_code(header.modality) else "image"]
    if _is_code(header.view_position):
        parts.append(f"view {header.view_position}")
    side = {"R": "right", "L": "left"}.get(header.image_laterality or header.laterality)
    if side:
        parts.append(side)
    if len(unit.frames) > 1:
        parts.append(f"{unit.kind} {position + 1} of {len(unit.frames)}")
    if window:
        parts.append(f"{window.replace('_', ' ')} window")
    return ", ".join(parts)


def _is_code(value: str) -> bool:
    return value.isascii() and value.isalnum() and len(value) <= 16


def _why(unit: _Unit, share: int, position: int, *, is_all: bool) -> str:
    total = len(unit.frames)
    if total == 1:
        if unit.kind == "slice":
            return "the only frame of its kind"
        return "no image of the study was left out" if is_all else "one of the chosen images, frontal views first"
    return f"{unit.kind} {position + 1} of {total}, {share} of them spread evenly"


def _why_not(unit: _Unit, share: int, protocol: Protocol) -> str:
    if share:
        return f"{share} of {len(unit.frames)} slices of this series are shown, spread evenly"
    return f"over the protocol's limit of {protocol.pictures.max} pictures"


def _view_rank(header: InstanceHeader) -> int:
    return _VIEW_ORDER.index(header.view_position) if header.view_position in _VIEW_ORDER else len(_VIEW_ORDER)


def _order(instance: StoredInstance) -> tuple[int, str, int, str, str]:
    header = instance.header
    return (
        header.series_number if header.series_number is not None else 1 << 31,
        header.series_instance_uid,
        header.instance_number if header.instance_number is not None else 1 << 31,
        header.sop_instance_uid,
        instance.instance_id,
    )
