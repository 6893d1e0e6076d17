"""Which frames the model is shown, and why; and why the others are not.

Top to bottom: what is no picture is sifted out; what belongs together becomes a unit (a stack, a film, an image, a slide);
units are cast for the protocol's roles and share its budget; within each, frames are chosen by geometry and by what a
glance shows. Deterministic: the same instances, in whatever order they come, give the same selection. Looks into files
through `Eyes` alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from record.instances import StoredInstance
from worker.kinds import WHOLE_SLIDE
from worker.protocols import Protocol, Role
from worker.references import KEY_OBJECTS, POINTING_TITLES, PRESENTATION_STATES
from worker.selection.captions import caption
from worker.selection.chosen import Chosen, Omitted, Selection
from worker.selection.eyes import Eyes, HeadersOnly, Region
from worker.selection.moments import candidates, evenly, key_moments, key_slices, nearest, with_named
from worker.selection.shares import Claimant, share
from worker.selection.sifting import sift
from worker.selection.slides import Slide, choose_regions, slides_of
from worker.selection.units import Unit, order, units_of
from worker.views import FRONTAL, view_of
from worker.windows import WINDOWS

__all__ = ["Chosen", "Eyes", "HeadersOnly", "Omitted", "Region", "Selection", "select"]

_MAX_TURNS = 3
"""Time points of one stack that are shown: the first, one between, the last."""
_REFORMATTED = frozenset({"REFORMATTED", "MPR", "MIP", "MINIP", "PROJECTION IMAGE", "VOLUME", "3D"})


def select(
    protocol: Protocol,
    instances: Sequence[StoredInstance],
    eyes: Eyes | None = None,
    *,
    beside: Sequence[StoredInstance] = (),
    site: str = "",
) -> Selection:
    """Choose the pictures a protocol asks for.

    Parameters
    ----------
    instances
        The images of the study's revision.
    eyes
        Who looks into files; without any, header rows must do.
    beside
        The study's key object selections and presentation states.
    site
        The site's name, for protocols that are for some alone.
    """
    eyes = eyes or HeadersOnly()
    kept, omitted = sift(protocol, sorted(instances, key=order), site)
    slides = slides_of([i for i in kept if i.header.sop_class_uid == WHOLE_SLIDE], eyes)
    units = _kept_turns(units_of([i for i in kept if i.header.sop_class_uid != WHOLE_SLIDE], eyes), omitted)
    claimants = _cast(
        protocol, units, _named(kept, beside, eyes) if protocol.pictures.key_objects else frozenset(), omitted
    )
    chosen = _slide_pictures(protocol, slides, eyes, omitted)
    budget = protocol.pictures.max - len(chosen)
    shares = share(claimants, budget)
    shown = [(claimant, granted) for claimant, granted in zip(claimants, shares, strict=True) if granted]
    is_all = (
        not omitted and all(granted == claimant.frames for claimant, granted in shown) and len(shown) == len(claimants)
    )
    numbers = _numbers([claimant.unit for claimant, _ in shown])
    for (claimant, granted), which in zip(shown, numbers, strict=True):
        chosen += _pictures(protocol, claimant, granted, eyes, which=which, is_all=is_all)
    taken = {i.instance_id for c in chosen for i in (c.instance, *(other for other, _ in c.more))}
    for claimant in claimants:
        ids = claimant.unit.instance_ids
        why = _why_not(claimant, len(taken.intersection(ids)), protocol)
        omitted += [Omitted(instance_id, why) for instance_id in ids if instance_id not in taken]
    if protocol.pictures.presentation_states:
        chosen = _presented(chosen, beside, eyes)
    parts = {claimant.role.name for claimant in claimants if claimant.role}
    missing = tuple(role.name for role in protocol.pictures.roles if not role.optional and role.name not in parts)
    once = {o.instance_id: o for o in reversed(omitted) if o.instance_id not in taken}
    return Selection(tuple(chosen), tuple(reversed(once.values())), missing)


def _slide_pictures(protocol: Protocol, slides: Sequence[Slide], eyes: Eyes, omitted: list[Omitted]) -> list[Chosen]:
    """The pictures of whole slides, which share the budget evenly; their other levels are left out."""
    chosen: list[Chosen] = []
    for number, slide in enumerate(slides):
        count = -(-(protocol.pictures.max - len(chosen)) // (len(slides) - number))
        regions = (
            choose_regions(slide, protocol.pictures.tiles, count, protocol.pictures.max_side, eyes) if count else []
        )
        chosen += regions
        why, taken = _why_no_level(shown=bool(regions)), {c.instance.instance_id for c in regions}
        omitted += [Omitted(i.instance_id, why) for i in slide.members if i.instance_id not in taken]
    return chosen


def _kept_turns(units: Sequence[Unit], omitted: list[Omitted]) -> list[Unit]:
    """Of many time points of one stack, the first, the last and what lies evenly between."""
    kept = []
    for unit in units:
        shown = {1, unit.turns, *(1 + t * (unit.turns - 1) // (_MAX_TURNS - 1) for t in range(_MAX_TURNS))}
        if unit.turn in shown:
            kept.append(unit)
        else:
            why = _why_no_turn(unit, len(shown))
            omitted += [Omitted(i, why) for i in unit.instance_ids]
    return kept


def _cast(
    protocol: Protocol, units: Sequence[Unit], named: frozenset[tuple[str, int]], omitted: list[Omitted]
) -> list[Claimant]:
    """The units that may be shown, in order of importance, each under the first role that accepts it."""
    claimants: list[Claimant] = []
    montage = protocol.pictures.montage
    full: Counter[str] = Counter()  # frames by role, of those whose role takes only so many
    for unit in units:
        fitting = (r for r in protocol.pictures.roles if r.accepts(unit.header, unit.plane))
        role = next((r for r in fitting if not r.pictures or full[r.name] < r.pictures), None)
        if role:
            full[role.name] += len(unit.spots)
        if role is None and not protocol.pictures.others and protocol.pictures.roles:
            omitted += [Omitted(i, _why_no_role(protocol)) for i in unit.instance_ids]
            continue
        per = montage.rows * montage.columns if montage and unit.kind == "slice" else 1
        frames = -(-len(unit.spots) // per)
        pointed = frozenset(n for n, s in enumerate(unit.spots) if (s.instance.instance_id, s.frame) in named)
        claimants.append(Claimant(unit, role, _windows(protocol, role, unit), frames, per, pointed))
    ranks = {role.name: n for n, role in enumerate(protocol.pictures.roles)}
    claimants.sort(key=lambda c: _rank(c, ranks))
    stacks = [c for c in claimants if c.unit.kind == "slice"]
    for claimant in stacks[protocol.pictures.max_series :]:
        claimants.remove(claimant)
        why = _why_no_series(protocol)
        omitted += [Omitted(i, why) for i in claimant.unit.instance_ids]
    return claimants


def _rank(claimant: Claimant, ranks: Mapping[str, int]) -> tuple[int, ...]:
    """Named frames first, then the roles' order, originals, stacks before single images, the longer, frontal views."""
    unit = claimant.unit
    values = {v.upper() for v in unit.header.image_type}
    return (
        0 if claimant.named else 1,
        ranks.get(claimant.role.name, len(ranks)) if claimant.role else len(ranks),
        0 if unit.kind == "slice" else 1,
        1 if values & _REFORMATTED else 0,
        -len(unit.spots) if unit.kind == "slice" else 0,
        FRONTAL.index(view_of(unit.header)) if view_of(unit.header) in FRONTAL else len(FRONTAL),
    )


def _windows(protocol: Protocol, role: Role | None, unit: Unit) -> tuple[str | None, ...]:
    """The windows of a role, or of the modality; of those, the ones that are for such values."""
    modality = unit.header.modality
    wanted = (role.windows if role else ()) or protocol.pictures.windows.get(modality, ())
    fitting = tuple(w for w in wanted if not WINDOWS[w].modalities or modality in WINDOWS[w].modalities)
    return fitting if fitting and unit.header.samples_per_pixel <= 1 else (None,)


def _named(kept: Sequence[StoredInstance], beside: Sequence[StoredInstance], eyes: Eyes) -> frozenset[tuple[str, int]]:
    """Frames (our id, frame) that key object selections point at; a film or stack named as a whole is not pointed at."""
    known = {i.header.sop_instance_uid: i for i in kept}
    found: set[tuple[str, int]] = set()
    for document in beside:
        if document.header.sop_class_uid != KEY_OBJECTS:
            continue
        reference = eyes.refer(document)
        if reference is None or reference.title not in POINTING_TITLES:
            continue
        for uid, frames in reference.frames:
            instance = known.get(uid)
            if instance is None:
                continue
            whole = (0,) if instance.header.number_of_frames <= 1 else ()
            real = [frame for frame in frames if frame < max(1, instance.header.number_of_frames)]
            found |= {(instance.instance_id, frame) for frame in real or whole}
    points_at_all = len(found) >= sum(max(1, i.header.number_of_frames) for i in kept)
    return frozenset() if points_at_all else frozenset(found)


def _numbers(units: Sequence[Unit]) -> list[int]:
    """Tell apart what a caption would not: each stack's number among those of its plane, each film's among the films.

    0 where there is only one, and for single images; time points of one series share a number.
    """
    alike: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    found = []
    for unit in units:
        own = unit.header.series_instance_uid if unit.kind == "slice" else unit.spots[0].instance.instance_id
        group = alike[unit.kind, unit.plane] if len(unit.spots) > 1 else alike["", ""]
        found.append((group, group.setdefault(own, len(group) + 1)))
    single = alike["", ""]
    return [number if len(group) > 1 and group is not single else 0 for group, number in found]


def _pictures(
    protocol: Protocol, claimant: Claimant, granted: int, eyes: Eyes, *, which: int, is_all: bool
) -> Iterator[Chosen]:
    unit, pictures = claimant.unit, protocol.pictures
    role = _told_role(claimant.role)
    if pictures.montage and unit.kind == "slice" and len(unit.spots) > 1:
        yield from _montages(protocol, claimant, granted, eyes, role, which)
        return
    places = _places(protocol, claimant, granted, eyes)
    for place in places:
        spot = unit.spots[place]
        for window in claimant.windows:
            yield Chosen(
                instance=spot.instance,
                frame=spot.frame,
                window=window,
                caption=caption(unit, place, window, role=role, which=which),
                reason=_why(claimant, place, len(places), protocol, is_all=is_all),
                edges=unit.edges,
            )


def _told_role(role: Role | None) -> str:
    """What of a role is worth a word in a caption: not a view or side, which stand there anyway."""
    return role.name if role and not role.views and not role.planes else ""


def _montages(
    protocol: Protocol, claimant: Claimant, granted: int, eyes: Eyes, role: str, which: int
) -> Iterator[Chosen]:
    montage, unit = protocol.pictures.montage, claimant.unit
    assert montage is not None  # noqa: S101  the caller saw it
    size = claimant.per
    most = (claimant.role.pictures if claimant.role else None) or len(unit.spots)
    places = _places(protocol, claimant, min(len(unit.spots), most, granted * size), eyes)
    for first in range(0, len(places), size):
        part = places[first : first + size]
        spots = [unit.spots[place] for place in part]
        for window in claimant.windows:
            yield Chosen(
                instance=spots[0].instance,
                frame=spots[0].frame,
                window=window,
                caption=caption(unit, part[0], window, role=role, which=which, slices=tuple(p + 1 for p in part)),
                reason=_why_montage(unit, len(places)),
                edges=unit.edges,
                more=tuple((spot.instance, spot.frame) for spot in spots[1:]),
                columns=montage.columns,
            )


def _places(protocol: Protocol, claimant: Claimant, count: int, eyes: Eyes) -> list[int]:
    """The places of a unit that are shown."""
    unit, total = claimant.unit, len(claimant.unit.spots)
    if total <= count and (unit.kind != "frame" or protocol.pictures.frames == "even"):
        return list(range(total))
    chosen = _slices(protocol, claimant, count, eyes) if unit.kind == "slice" else _moments(protocol, unit, count, eyes)
    named = claimant.named or frozenset({unit.representative} if unit.representative is not None else ())
    return with_named(chosen, named, count) if named else chosen


def _slices(protocol: Protocol, claimant: Claimant, count: int, eyes: Eyes) -> list[int]:
    unit = claimant.unit
    if protocol.pictures.slices == "even":
        return nearest(unit, count)
    looked = candidates(unit)
    if len(looked) < count:
        return nearest(unit, count)
    looks = eyes.look([(unit.spots[n].instance, unit.spots[n].frame) for n in looked], claimant.windows[0])
    return key_slices(unit, count, looked, looks)


def _moments(protocol: Protocol, unit: Unit, count: int, eyes: Eyes) -> list[int]:
    if protocol.pictures.frames == "even" or len(unit.spots) == 1:
        return evenly(len(unit.spots), min(count, len(unit.spots)))
    looked = candidates(unit)
    looks = eyes.look([(unit.spots[n].instance, unit.spots[n].frame) for n in looked], None)
    return key_moments(unit, count, looked, looks)


def _presented(chosen: Sequence[Chosen], beside: Sequence[StoredInstance], eyes: Eyes) -> list[Chosen]:
    """The same pictures, each with the newest presentation state that names its frame."""
    states: dict[str, list[tuple[str, str, tuple[int, ...], StoredInstance]]] = defaultdict(list)
    for document in beside:
        if document.header.sop_class_uid in PRESENTATION_STATES and (reference := eyes.refer(document)):
            for uid, frames in reference.frames:
                states[uid].append((reference.made, document.instance_id, frames, document))
    presented: list[Chosen] = []
    already: set[tuple[str, int]] = set()
    for one in chosen:
        fitting = [s for s in states.get(one.instance.header.sop_instance_uid, ()) if not s[2] or one.frame in s[2]]
        newest = max(fitting, key=lambda s: s[:2], default=None)
        usable = newest is not None and not one.more and one.region is None
        if newest is None or not usable:
            presented.append(one)
        elif (one.instance.instance_id, one.frame) not in already:  # the state takes the place of all its windows
            already.add((one.instance.instance_id, one.frame))
            words = one.caption.removesuffix(f", {WINDOWS[one.window].words}") if one.window else one.caption
            presented.append(replace(one, state=newest[3], window=None, caption=words))
    return presented


def _why(claimant: Claimant, place: int, count: int, protocol: Protocol, *, is_all: bool) -> str:
    unit, total = claimant.unit, len(claimant.unit.spots)
    if place in claimant.named:
        return "named in a key object selection"
    if total == 1:
        if unit.kind == "slice":
            return "the only frame of its kind"
        if claimant.role:
            return f"plays the role {claimant.role.name} of the protocol"
        if is_all:
            return "no image of the study was left out"
        return "one of the chosen images, frontal views first"
    kind, number = unit.kind, place + 1
    if place == unit.representative and count < total:
        return f"{kind} {number} of {total}, which the file calls its best"
    if count == total:
        return f"{kind} {number} of {total}, all of them are shown"
    if unit.kind == "frame" and protocol.pictures.frames == "key":
        return f"{kind} {number} of {total}, {count} of them chosen by motion and sharpness"
    if unit.kind == "slice" and protocol.pictures.slices == "key":
        return f"{kind} {number} of {total}, {count} of them spread evenly over what has content, by what shows most"
    return f"{kind} {number} of {total}, {count} of them spread evenly"


def _why_montage(unit: Unit, count: int) -> str:
    total = len(unit.spots)
    return f"{count} of {total} slices of this series are shown, several on a picture"


def _why_not(claimant: Claimant, count: int, protocol: Protocol) -> str:
    total = len(claimant.unit.spots)
    if count and claimant.unit.kind == "slice":
        return f"{count} of {total} slices of this series are shown"
    limit = protocol.pictures.max
    return f"over the protocol's limit of {limit} pictures"


def _why_no_turn(unit: Unit, shown: int) -> str:
    turn, turns = unit.turn, unit.turns
    return f"time point {turn} of {turns} of the same slices, of which {shown} are shown"


def _why_no_series(protocol: Protocol) -> str:
    limit = protocol.pictures.max_series
    return f"over the protocol's limit of {limit} series"


def _why_no_role(protocol: Protocol) -> str:
    return f"plays none of the roles of the protocol {protocol.name}"


def _why_no_level(*, shown: bool) -> str:
    if shown:
        return "another level of a slide that is shown"
    return "over the protocol's limit of pictures"
