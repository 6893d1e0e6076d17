"""The part of a protocol that says which pictures are made: roles, budget, windows, and how frames are chosen.

Knows their form and which parts contradict each other. Does not know how any of it is done (`worker.selection`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from record.instances import InstanceHeader
from worker.protocols.values import Code, Name, Strict, Word
from worker.protocols.words import says
from worker.views import laterality_of, view_of
from worker.windows import WINDOWS


class Role(Strict):
    """A kind of picture that a study of this sort should have: a view, a plane, a sequence. Every condition must hold."""

    name: Name
    views: tuple[Code, ...] = ()
    laterality: Literal["R", "L", ""] = ""
    words: tuple[Word, ...] = ()
    """Of the series: its description or its acquisition protocol has a word that begins so."""
    not_words: tuple[Word, ...] = ()
    planes: tuple[Literal["axial", "coronal", "sagittal", "oblique"], ...] = ()
    image_types: tuple[Code, ...] = ()
    """Image Type has one of these values."""
    pictures: Annotated[int, Field(ge=1, le=64)] | None = None
    """At most so many frames of this role."""
    windows: tuple[str, ...] = ()
    """Take the place of the protocol's windows."""
    optional: bool = False
    """Its absence is nothing to speak of."""

    def accepts(self, header: InstanceHeader, plane: str = "") -> bool:
        """Whether a unit whose first instance has this header, in this plane, plays the role."""
        series = f"{header.series_description} / {header.protocol_name}"
        return (
            (not self.views or view_of(header) in self.views)
            and (not self.laterality or laterality_of(header) == self.laterality)
            and (not self.words or says(series, self.words))
            and not says(series, self.not_words)
            and (not self.planes or plane in self.planes)
            and (not self.image_types or not {v.upper() for v in header.image_type}.isdisjoint(self.image_types))
        )


class Montage(Strict):
    """Several slices on one picture, for models that take few pictures."""

    rows: Annotated[int, Field(ge=1, le=8)] = 3
    columns: Annotated[int, Field(ge=1, le=8)] = 3


class Tiles(Strict):
    """How a whole slide is shown: an overview, and details at a magnification (10× is about 1 µm a pixel)."""

    magnification: Annotated[float, Field(gt=0, le=80)] = 10.0
    side: Annotated[int, Field(ge=128, le=4096)] = 1024
    """Pixels of a detail's side."""
    min_tissue: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Least part of a detail that is tissue."""


class Pictures(Strict):
    """How many pictures are made, of what, and how."""

    max: Annotated[int, Field(ge=1, le=64)] = 8
    max_side: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Pixels of the longer side."""
    roles: tuple[Role, ...] = ()
    """In order of importance: each gets one frame before any gets a second."""
    others: bool = True
    """Whether what plays none of the roles is shown too, where there is room."""
    max_series: Annotated[int, Field(ge=1, le=64)] = 8
    """Of so many stacks at most: those with a role first, then originals before reformatted ones, then the longer."""
    slices: Literal["key", "even"] = "key"
    """`key`: spread evenly over the part with content, and within each stretch the one that shows most."""
    frames: Literal["key", "even"] = "key"
    """Of a film. `key`: spread over what moves, and of each stretch the clearest."""
    windows: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Named windows by modality; without an entry, the file's own."""
    montage: Montage | None = None
    tiles: Tiles = Tiles()
    key_objects: bool = True
    """Frames that a key object selection names are shown before others."""
    presentation_states: bool = False
    """Apply the newest presentation state that names a frame."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = [*self.windows.values(), *(role.windows for role in self.roles)]
        if unknown := {name for names in wanted for name in names} - {*WINDOWS}:
            raise ValueError(f"no such windows: {', '.join(sorted(unknown))}; there are {', '.join(sorted(WINDOWS))}")
        if any(len(names) > self.max for names in wanted):
            raise ValueError("max is too small to show one frame in all its windows")
        if len({role.name for role in self.roles}) < len(self.roles):
            raise ValueError("two roles have the same name")
        return self
