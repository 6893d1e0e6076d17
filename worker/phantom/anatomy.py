"""Draws chest phantoms and states, in words, what each one shows.

A phantom is two dark lungs on a grey body, ribs, a spine and a heart; in none or one of four zones lies a soft bright
opacity; the heart is normal or enlarged. Sides are the patient's: the right lung is on the picture's left.
Does not know DICOM, windows or the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Brightness = NDArray[np.float64]


class Side(StrEnum):
    """A side of the patient."""

    RIGHT = "right"
    LEFT = "left"

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.LEFT if self is Side.RIGHT else Side.RIGHT


class Level(StrEnum):
    """A height within a lung."""

    UPPER = "upper"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Zone:
    """One of the four lung zones an opacity can lie in."""

    side: Side
    level: Level


ZONES: tuple[Zone | None, ...] = (None, *(Zone(side, level) for side in Side for level in Level))
"""The five lung states; ``None`` is clear lungs."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """One made-up chest: what it has, and the seed of everything that varies without a meaning."""

    zone: Zone | None
    enlarged: bool
    seed: int
    age_y: int = 50
    sex: str = "O"

    @property
    def label(self) -> str:
        """A short name of the truth, such as ``left-upper`` or ``clear+enlarged``."""
        lung = "clear" if self.zone is None else f"{self.zone.side}-{self.zone.level}"
        return f"{lung}+enlarged" if self.enlarged else lung


def parse_label(label: str) -> tuple[Zone | None, bool]:
    """Return the lung state and heart that a label names.

    Raises
    ------
    ValueError
        If no phantom has that label.
    """
    for zone in ZONES:
        for enlarged in (False, True):
            if Phantom(zone, enlarged, 0).label == label:
                return zone, enlarged
    raise ValueError(f"no phantom is labelled {label!r}")


def sample(rng: np.random.Generator) -> Phantom:
    """Return a phantom whose state is drawn evenly from the ten there are."""
    return Phantom(
        zone=ZONES[int(rng.integers(len(ZONES)))],
        enlarged=bool(rng.integers(2)),
        seed=int(rng.integers(2**31)),
        age_y=int(rng.integers(18, 90)),
        sex="FMO"[int(rng.integers(3))],
    )


def zone_words(zone: Zone) -> str:
    """Return the zone as reports name it, for example ``left upper zone``."""
    return f"{zone.side} {zone.level} zone"


def report(phantom: Phantom, *, mirrored: bool = False) -> str:
    """Return the one right report for this phantom's picture.

    Parameters
    ----------
    mirrored
        The picture was flipped left to right, so the other side is the true answer.
    """
    zone = phantom.zone
    if zone is not None and mirrored:
        zone = Zone(zone.side.other, zone.level)
    lungs = "The lungs are clear." if zone is None else f"There is an opacity in the {zone_words(zone)}."
    heart = "The heart is enlarged." if phantom.enlarged else "The heart size is normal."
    impression = [] if zone is None else [f"Opacity in the {zone_words(zone)}."]
    if phantom.enlarged:
        impression.append("Cardiomegaly.")
    return f"Findings: {lungs} {heart}\nImpression: {' '.join(impression) or 'No acute abnormality.'}"


def draw(phantom: Phantom, *, view: int = 0) -> Brightness:
    """Draw one view of a phantom.

    The body is the same in every view of a phantom; size, position, exposure and noise are the view's own.

    Returns
    -------
    Brightness
        Shape (rows, columns), rows 144–256; about 0 (air) to 255 (bone), not clipped.
    """
    body = np.random.default_rng([phantom.seed, 0])
    taken = np.random.default_rng([phantom.seed, 1, view])
    rows = int(taken.integers(144, 257))
    columns = int(rows * taken.uniform(0.75, 1.1))
    dx, dy = taken.uniform(-0.03, 0.03, 2)
    y = (np.arange(rows) / rows)[:, None] - dy  # (rows, 1)
    x = (np.arange(columns) / columns)[None, :] - dx  # (1, columns)

    out = np.full((rows, columns), body.uniform(105, 135))  # (rows, columns)
    out += _lungs(x, y, body) + _bones(x, y, body, phantom.age_y) + _heart(x, y, body, enlarged=phantom.enlarged)
    if phantom.zone is not None:
        out += _opacity(x, y, body, phantom.zone)
    out = (out - 128) * taken.uniform(0.8, 1.2) + 128 + taken.uniform(-15, 15)
    noise: Brightness = out + taken.normal(0, taken.uniform(3, 9), out.shape)
    return noise


def _edge(distance: Brightness, softness: float) -> Brightness:
    """Return 1 inside (distance well below 1), 0 outside, soft between."""
    inside: Brightness = 1 / (1 + np.exp(np.clip(softness * (distance - 1), -50, 50)))
    return inside


def _lungs(x: Brightness, y: Brightness, body: np.random.Generator) -> Brightness:
    out = np.zeros(np.broadcast_shapes(x.shape, y.shape))  # (rows, columns)
    width, height = body.uniform(0.155, 0.18), body.uniform(0.33, 0.38)
    for centre in (0.3, 0.7):
        out -= body.uniform(55, 75) * _edge(np.hypot((x - centre) / width, (y - 0.48) / height), 30)
    return out


def _bones(x: Brightness, y: Brightness, body: np.random.Generator, age_y: int) -> Brightness:
    contrast = body.uniform(4, 9) * (1.2 - age_y / 200)
    arcs = np.sin(2 * np.pi * (y * body.uniform(9, 12) + 6 * (x - 0.5) ** 2 + body.uniform(0, 1)))  # (rows, columns)
    within = _edge(np.hypot((x - 0.5) / 0.42, (y - 0.48) / 0.42), 25)
    spine = body.uniform(8, 16) * np.exp(-(((x - 0.5) / 0.045) ** 2))  # (1, columns)
    bones: Brightness = contrast * np.maximum(arcs, 0) * within + spine
    return bones


def _heart(x: Brightness, y: Brightness, body: np.random.Generator, *, enlarged: bool) -> Brightness:
    radius = body.uniform(0.20, 0.24) if enlarged else body.uniform(0.09, 0.12)
    return 55 * _edge(np.hypot((x - 0.54) / radius, (y - 0.66) / (radius * 0.8)), 25)


def _opacity(x: Brightness, y: Brightness, body: np.random.Generator, zone: Zone) -> Brightness:
    centre_x = (0.29 if zone.side is Side.RIGHT else 0.71) + body.uniform(-0.04, 0.04)
    centre_y = (0.30 if zone.level is Level.UPPER else 0.64) + body.uniform(-0.05, 0.05)
    spread = body.uniform(0.05, 0.08)
    distance = (x - centre_x) ** 2 + (y - centre_y) ** 2  # (rows, columns)
    bump: Brightness = body.uniform(60, 95) * np.exp(-distance / (2 * spread**2))
    return bump
