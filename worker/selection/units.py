"""Frames that belong together and their order: a stack of slices, a film, a single image.

Knows true geometry (PS3.3 C.7.6.2.1.1): slices are ordered along their normal, tilted gantry or not; other directions are
other stacks; what lies twice at one place is another time point, echo or b-value. Does not know protocols or pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from record.instances import InstanceHeader, StoredInstance
from record.orientation import edges
from worker.kinds import SECTIONS, WHOLE_SLIDE
from worker.selection.eyes import Eyes
from worker.surveys import Survey

FILMS = (
    *("1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.6.2"),  # ultrasound multi-frame, enhanced US volume
    *(
        "1.2.840.10008.5.1.4.1.1.12.",
        "1.2.840.10008.5.1.4.1.1.77.1.1.1",
        "1.2.840.10008.5.1.4.1.1.77.1.2.1",
    ),  # XA, RF; video
    *("1.2.840.10008.5.1.4.1.1.77.1.4.1", "1.2.840.10008.5.1.4.1.1.7."),  # video photographs; multi-frame captures
)
"""SOP classes whose frames follow each other in time; other multi-frame objects are stacks (tomosynthesis, OCT, NM)."""
_SAME_DIRECTION = 0.05
"""Largest difference of a cosine within one stack (3°): a scanner's rounding, not another plane."""
_MAX_DIRECTIONS = 64
_SAME_PLACE_MM = 0.01
_OBLIQUE = 0.8
"""A normal whose largest component is below this lies in no principal plane."""
_FEW = 0.5
"""Less than this part of the slices lying twice is an overlap, not a second time point."""
Kind = Literal["slice", "frame", "image", "slide"]


@dataclass(frozen=True, slots=True)
class Spot:
    """One frame; `position_mm` along the stack's normal, where it is told."""

    instance: StoredInstance
    frame: int
    position_mm: float | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """Frames that belong together, in order.

    Attributes
    ----------
    plane
        axial, coronal, sagittal, oblique or empty.
    turn, turns
        Which of how many time points (echoes, b-values) of one place.
    representative
        The place in `spots` that the file itself calls its best.
    """

    spots: tuple[Spot, ...]
    kind: Kind
    plane: str = ""
    edges: tuple[str, ...] = ()
    turn: int = 1
    turns: int = 1
    representative: int | None = None

    @property
    def header(self) -> InstanceHeader:
        """Of the first frame's instance: it speaks for the unit."""
        return self.spots[0].instance.header

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Our ids of its instances, in order, each once."""
        return tuple(dict.fromkeys(spot.instance.instance_id for spot in self.spots))


def units_of(instances: Sequence[StoredInstance], eyes: Eyes) -> list[Unit]:
    """Group instances, given in their order; stacks first, the longer before the shorter."""
    stacks: list[Unit] = []
    singles: list[Unit] = []
    series: dict[str, list[StoredInstance]] = defaultdict(list)
    for instance in instances:
        header = instance.header
        if header.modality in SECTIONS and header.number_of_frames <= 1:
            series[header.series_instance_uid].append(instance)
        elif header.number_of_frames > 1:
            found = _of_many_frames(instance, eyes.survey(instance))
            (stacks if found[0].kind == "slice" else singles).extend(found)
        else:
            singles.append(Unit((Spot(instance, 0),), "image", edges=_edges_of(header)))
    for members in series.values():
        stacks += _of_series(members)
    stacks.sort(key=lambda u: -len(u.spots))  # stable: among equals, the order of the instances
    return stacks + singles


def order(instance: StoredInstance) -> tuple[int, str, int, str, str]:
    """The order of instances: series number, instance number, and UIDs where those are not told."""
    header = instance.header
    return (
        header.series_number if header.series_number is not None else 1 << 31,
        header.series_instance_uid,
        header.instance_number if header.instance_number is not None else 1 << 31,
        header.sop_instance_uid,
        instance.instance_id,
    )


@dataclass(frozen=True, slots=True)
class _Slice:
    spot: Spot
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    volume: tuple[object, ...]
    """What tells frames at one place apart, whatever their order."""
    taken: tuple[object, ...]
    """When it was taken: orders what lies at one place and is told apart by nothing else."""


def _of_series(members: Sequence[StoredInstance]) -> Iterable[Unit]:
    slices = []
    for number, instance in enumerate(members):
        h = instance.header
        volume = (h.echo_numbers or 0, h.diffusion_b_value or 0.0, h.temporal_position_identifier or 0)
        taken = (h.acquisition_number or 0, h.acquisition_time, h.trigger_time or 0.0, h.content_time, number)
        slices.append(_Slice(Spot(instance, 0), h.image_position_patient, h.image_orientation_patient, volume, taken))
    return _stacked(slices)


def _of_many_frames(instance: StoredInstance, survey: Survey) -> list[Unit]:
    header = instance.header
    spots = tuple(Spot(instance, n) for n in range(header.number_of_frames))
    if header.sop_class_uid == WHOLE_SLIDE:
        return [Unit(spots, "slide")]
    if len(survey.places) == len(spots) and any(p.position and p.orientation for p in survey.places):
        slices = [
            _Slice(spot, place.position, place.orientation, place.volume, (spot.frame,))
            for spot, place in zip(spots, survey.places, strict=True)
        ]
        return list(_stacked(slices))
    is_film = header.sop_class_uid.startswith(FILMS)
    kind: Kind = "frame" if is_film or header.modality not in SECTIONS else "slice"
    return [Unit(spots, kind, edges=_edges_of(header), representative=survey.representative)]


def _stacked(slices: Sequence[_Slice]) -> Iterable[Unit]:
    for parallel in _by_direction(slices):
        turns = _by_turn(parallel)
        for turn, members in enumerate(turns, start=1):
            first = members[0]
            is_placed = bool(first.orientation)
            yield Unit(
                tuple(m.spot for m in members),
                "slice",
                plane=_plane(first.orientation) if is_placed else "",
                edges=_edges(first.orientation) if is_placed else _edges_of(first.spot.instance.header),
                turn=turn,
                turns=len(turns),
            )


def _by_direction(slices: Sequence[_Slice]) -> list[list[_Slice]]:
    """Slices that lie in one direction, within a scanner's rounding; those that tell none are together."""
    groups: list[tuple[tuple[float, ...], list[_Slice]]] = []
    for one in slices:
        told = one.orientation if len(one.orientation) == 6 and len(one.position) == 3 else ()
        if len(groups) >= _MAX_DIRECTIONS:
            told = ()  # no scanner makes so many: what is left is one heap
        for direction, members in groups:
            if len(direction) == len(told) and all(
                abs(a - b) < _SAME_DIRECTION for a, b in zip(direction, told, strict=True)
            ):
                members.append(one)
                break
        else:
            groups.append((told, [one]))
    return [members for _, members in groups]


def _by_turn(parallel: Sequence[_Slice]) -> list[list[_Slice]]:
    """Time points, echoes and b-values apart, each in order along the normal."""
    placed = [_placed(one, parallel[0].orientation) for one in parallel]
    if any(one.spot.position_mm is None for one in placed):
        return [placed]
    by_volume: dict[tuple[object, ...], list[_Slice]] = defaultdict(list)
    for one in placed:
        by_volume[one.volume].append(one)
    if len(by_volume) > 1 and len(_places(placed)) == len(placed):  # each lies alone: what differs is no time point
        by_volume = {(): placed}
    turns: list[list[_Slice]] = []
    for _, members in sorted(by_volume.items(), key=lambda item: tuple(map(_sortable, item[0]))):
        turns += _apart(members)
    return turns


def _apart(members: Sequence[_Slice]) -> list[list[_Slice]]:
    """The first of what lies at each place, the second, and so on, in the order in which they were taken."""
    places = _places(members)
    most = max(map(len, places))
    twice = sum(len(place) > 1 for place in places)
    if most == 1 or twice < _FEW * len(places):  # an overlap is part of one stack
        return [[one for place in places for one in place]]
    return [[place[n] for place in places if len(place) > n] for n in range(most)]


def _places(members: Sequence[_Slice]) -> list[list[_Slice]]:
    """Slices by place along the normal, in order; at one place in the order in which they were taken."""
    places: list[list[_Slice]] = []
    last = None
    for one in sorted(members, key=lambda m: (m.spot.position_mm or 0.0, tuple(map(_sortable, m.taken)))):
        here = one.spot.position_mm or 0.0
        if last is not None and here - last <= _SAME_PLACE_MM:
            places[-1].append(one)
        else:
            places.append([one])
            last = here
    return [sorted(place, key=lambda m: tuple(map(_sortable, m.taken))) for place in places]


def _placed(one: _Slice, orientation: tuple[float, ...]) -> _Slice:
    if len(one.position) != 3 or len(orientation) != 6:
        return one
    a, b = np.reshape(orientation, (2, 3))  # (3,), (3,)
    position_mm = float(np.cross(a, b) @ np.array(one.position))
    return _Slice(
        Spot(one.spot.instance, one.spot.frame, round(position_mm, 3)),
        one.position,
        one.orientation,
        one.volume,
        one.taken,
    )


def _sortable(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _plane(orientation: Sequence[float]) -> str:
    a, b = np.reshape(orientation, (2, 3))  # (3,), (3,)
    normal = np.abs(np.cross(a, b))  # (3,)
    axis = int(normal.argmax())
    return ("sagittal", "coronal", "axial")[axis] if normal[axis] >= _OBLIQUE else "oblique"


def _edges(orientation: Sequence[float]) -> tuple[str, ...]:
    found = edges({"image_orientation_patient": list(orientation)})
    return (found.left, found.right, found.top, found.bottom) if found else ()


def _edges_of(header: InstanceHeader) -> tuple[str, ...]:
    told = {
        "image_orientation_patient": header.image_orientation_patient,
        "patient_orientation": header.patient_orientation,
    }
    found = edges(told)
    return (found.left, found.right, found.top, found.bottom) if found else ()
