"""Frame → picture: stored values become the grey levels or colours that model (`render`) and physician (`show`) see.

Knows the grey scale pipeline of PS3.3 C.11 and PS3.4 N.2 in its order: stored sample, modality transform, VOI transform,
presentation shape, 8 bits; colour and palettes apart (PS3.3 C.7.6.3.1.2); square pixels last. Pure functions: does not
read files, decode streams or choose frames. Every step taken is written into the transform, the picture's provenance.

Not done, on purpose: overlays (60xx), ICC profiles, supplemental palettes, rotation by Patient Orientation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from record.errors import InvalidRequest, UnsupportedInstance
from record.states import ReasonCode
from worker.attributes import FrameAttributes, Window
from worker.presentation import Presentation
from worker.tables import Lut
from worker.windows import WINDOWS, NamedWindow

LARGEST_SIDE = 16_384
"""Pixels; no picture is larger, however it is asked for."""
_TABLE_SIZE = 1 << 17
"""Whole values spread over fewer steps than this are rendered through a table: exact, and a byte a pixel."""
_BLANK_DEVIATION = 1.0
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Span:
    """From one percentile of the values in the frame (without padding) to another: 0 and 100 are the extremes."""

    low: float
    high: float


View = Window | Lut | Span | NamedWindow
"""How grey values are looked at, in the place of what the file says."""
_SOFT_TISSUE = Window(40.0, 400.0, source="named:soft_tissue")
"""Of a CT that brings no window."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """One picture.

    Attributes
    ----------
    levels
        uint8 (H, W) of a grey frame, (H, W, 3) of colour.
    transform
        Plain values, fit for JSON.
    blank
        The grey levels deviate by less than one level: nothing can be seen on it.
    """

    levels: NDArray[np.uint8]
    transform: dict[str, Any]
    blank: bool

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """What the model is given: uint8 (H, W, 3)."""
        return self.levels if self.levels.ndim == 3 else np.repeat(self.levels[:, :, None], 3, axis=2)


def named_window(name: str) -> NamedWindow:
    """Return the window of a name.

    Raises
    ------
    InvalidRequest
        There is no such window.
    """
    if name not in WINDOWS:
        raise InvalidRequest("There is no window of this name: " + ", ".join(WINDOWS) + ".")
    return WINDOWS[name]


def render(
    frame: Array,
    attributes: FrameAttributes,
    *,
    window: Window | NamedWindow | None = None,
    max_side: int | None = None,
    native: bool = True,
    state: Presentation | None = None,
) -> Rendering:
    """Render one decoded frame.

    Parameters
    ----------
    frame
        Stored values, (rows, columns) or (rows, columns, 3); three samples are RGB already.
    window
        Takes the place of the file's own VOI transform; colour is never windowed.
    max_side
        Pixels of the longer side; larger pictures are reduced, smaller ones are left.
    native
        The values lay as they are in the file, or came back so, and bits beside the sample are still in them.
    state
        A presentation state: its transforms take the place of the file's.

    Raises
    ------
    UnsupportedInstance
        A colour model that is not rendered.
    """
    levels, steps = levels_of(frame, state.attributes if state else attributes, window, native=native)
    if state is not None:
        levels, steps["spatial"] = state.laid_out(levels), state.as_dict()
    is_turned = state is not None and state.rotation in {90, 270}
    aspect = 1 / attributes.aspect if is_turned else attributes.aspect
    levels, steps["resize"] = fitted(levels, aspect, min(max_side or LARGEST_SIDE, LARGEST_SIDE))
    return Rendering(np.ascontiguousarray(levels), steps, is_blank(levels))


def show(
    frame: Array,
    attributes: FrameAttributes,
    *,
    view: View | None = None,
    max_side: int | None = None,
    invert: bool = False,
    native: bool = True,
) -> Rendering:
    """Render one decoded frame for a person: as `render` does, in the view that was asked for.

    Parameters
    ----------
    view
        A window in modality values, a table or a span of values; None for what the file says. Colour has none.
    invert
        Black for white; colour is never inverted, since its hues mean something.

    Raises
    ------
    UnsupportedInstance
        A colour model that is not rendered.
    """
    levels, steps = levels_of(frame, attributes, view, native=native)
    side = min(max_side or LARGEST_SIDE, LARGEST_SIDE)
    levels, steps["resize"] = fitted(levels, attributes.aspect, side, reducing_gap=3.0)
    if invert and levels.ndim == 2:
        levels = 255 - levels  # (H, W)
    return Rendering(np.ascontiguousarray(levels), steps, blank=False)


def levels_of(
    frame: Array, attributes: FrameAttributes, view: View | None, *, native: bool
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Return the frame in 8 bits, (rows, columns) or (rows, columns, 3), before its shape is changed; and the steps taken.

    Raises
    ------
    UnsupportedInstance
        A colour model that is not rendered.
    """
    model = attributes.photometric_interpretation
    if model == "PALETTE COLOR" and frame.ndim == 2:
        levels, steps = _palette(frame, attributes)
    elif model in _COLOUR and frame.ndim == 3 and frame.shape[2] == 3:
        levels, steps = _colour(frame, attributes)
    elif model in _GREY and frame.ndim == 2:
        levels, steps = _grey(_samples(frame, attributes, native=native), attributes, view)
    else:
        message = "Pictures are rendered from MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB and YBR_FULL only."
        raise UnsupportedInstance(message, reason_code=ReasonCode.UNSUPPORTED, cause="photometric_interpretation")
    return levels, {
        "photometric_interpretation": model,
        "source_height": frame.shape[0],
        "source_width": frame.shape[1],
        "bits_stored": attributes.bits_stored,
        **steps,
    }


def _samples(frame: Array, attributes: FrameAttributes, *, native: bool) -> Array:
    """The sample alone: High Bit honoured, overlay bits dropped, sign extended (PS3.5 8.1.1)."""
    allocated, stored = attributes.bits_allocated, attributes.bits_stored
    if not native:
        return _extended(frame, stored) if attributes.signed else frame
    if frame.dtype.kind not in "iu" or (stored == allocated and not attributes.shift):
        return frame
    width = frame.dtype.itemsize
    stored = min(stored, 8 * width)
    bits = np.ascontiguousarray(frame, f"=u{width}")  # (rows, columns)
    bits = (bits >> attributes.shift) & ((1 << stored) - 1)
    if not attributes.signed:
        return bits
    above = 8 * width - stored
    return (bits << above).view(f"=i{width}") >> above  # an arithmetic shift extends the sign


def _extended(frame: Array, stored: int) -> Array:
    """Samples whose decoder left out the sign: none is negative, and some are too large to be positive."""
    half = 1 << (stored - 1)
    if frame.dtype.kind not in "iu" or stored >= 8 * frame.dtype.itemsize or frame.min() < 0:
        return frame
    return (
        np.where(frame >= half, frame.astype(np.int64) - 2 * half, frame) if half <= frame.max() < 2 * half else frame
    )


def _grey(stored: Array, attributes: FrameAttributes, view: View | None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Grey levels of stored samples, uint8 (rows, columns), and the steps taken."""
    whole = stored.dtype.kind in "iu"
    low = int(stored.min()) if whole else 0
    tabled = whole and int(stored.max()) - low < _TABLE_SIZE
    if tabled:
        index = stored.astype(np.int64) - low  # (rows, columns)
        counts: NDArray[np.integer[Any]] = np.bincount(index.ravel())  # (N,)
        domain = np.arange(low, low + len(counts))  # (N,)
    else:
        domain = stored  # (rows, columns)
        counts = np.isfinite(stored).view(np.uint8)  # as domain
    seen = np.where(_is_padding(domain, attributes.padding), 0, counts)  # as domain
    values, modality = _modality(domain, attributes)
    view, named, values = _resolved(view, values, attributes)
    unit, voi = _voi(values, attributes, view, seen if seen.any() else counts)
    if (table := attributes.presentation_lut) is not None:
        unit = np.clip(table(unit * (len(table.entries) - 1) + table.first_mapped) / (2.0**table.bits - 1), 0, 1)
    inverted = attributes.presentation_lut_shape == "INVERSE" or (
        attributes.presentation_lut_shape == "" and attributes.photometric_interpretation == "MONOCHROME1"
    )  # one or the other, never both (PS3.3 C.11.6, C.7.6.3.1.2)
    if named.get("inverted"):
        inverted = True  # of uptake: dark is high, whatever the file would do
    levels = np.rint((1.0 - unit if inverted else unit) * 255).astype(np.uint8)  # as domain
    steps = {
        "modality": modality,
        "voi": voi | named,
        "inverted": inverted,
        "padding": list(attributes.padding) if attributes.padding else None,
        "shift": attributes.shift,
    }
    return (levels[index] if tabled else levels), steps


def _is_padding(stored: Array, padding: tuple[float, float] | None) -> NDArray[np.bool_]:
    if padding is None:
        return np.zeros(stored.shape, dtype=bool)  # as stored
    return (stored >= padding[0]) & (stored <= padding[1])


def _modality(stored: Array, attributes: FrameAttributes) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Stored values to modality values, Hounsfield units for instance (PS3.3 C.11.1)."""
    if attributes.modality_lut is not None:
        return attributes.modality_lut(stored).astype(np.float64), {"kind": "lut"}
    if attributes.rescale is not None:
        slope, intercept = attributes.rescale
        return stored * slope + intercept, {"kind": "rescale", "slope": slope, "intercept": intercept}
    return stored.astype(np.float64), {"kind": "identity"}


def _resolved(
    view: View | None, values: NDArray[np.float64], attributes: FrameAttributes
) -> tuple[Window | Lut | Span | None, dict[str, Any], NDArray[np.float64]]:
    """What a named window means for this frame: a window or a span, what is noted of it, and the values it is for."""
    if not isinstance(view, NamedWindow):
        return view, {}, values
    if view.unit == "HU" and not attributes.hounsfield:
        return None, {"instead_of": view.name}, values  # such a window on other values shows nothing
    noted: dict[str, Any] = {"source": f"named:{view.name}", "inverted": view.inverted}
    if view.unit == "SUV":
        if attributes.suv_factor is None:
            shown, _, _ = _resolved(WINDOWS["counts"], values, attributes)
            return shown, {**noted, "source": "named:counts", "instead_of": view.name}, values
        noted |= {"suv_factor": attributes.suv_factor}
        values = values * attributes.suv_factor  # as values
    if view.percentiles is not None:
        return Span(*view.percentiles), noted, values
    assert view.center is not None  # noqa: S101  a named window has one or the other
    assert view.width is not None  # noqa: S101
    return (
        Window(view.center, view.width, "LINEAR" if view.unit == "HU" else "LINEAR_EXACT", noted["source"]),
        noted,
        values,
    )


def _voi(
    values: NDArray[np.float64],
    attributes: FrameAttributes,
    view: Window | Lut | Span | None,
    counts: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Modality values to 0..1 (PS3.3 C.11.2); `counts` tells how often the picture really has each of the values."""
    if view is None:
        view = next(iter(attributes.sent), None)
    if view is None and attributes.hounsfield:
        view = _SOFT_TISSUE
    if isinstance(view, Lut):
        return np.clip(view(values) / (2.0**view.bits - 1), 0, 1), {"kind": "lut", "source": "file"}
    if isinstance(view, Window):
        return window_values(values, view), {"kind": view.function.lower(), **asdict(view)}
    low, high = _ends(values, counts, view)
    kind = "percentiles" if view and (view.low, view.high) != (0, 100) else "min_max"
    record = {"kind": kind, "source": "frame", "low": low, "high": high}
    if high <= low:
        return np.zeros(values.shape), record  # as values
    return np.nan_to_num(np.clip((values - low) / (high - low), 0, 1)), record


def _ends(values: NDArray[np.float64], counts: NDArray[np.integer[Any]], span: Span | None) -> tuple[float, float]:
    """The values that a span begins and ends with; the extremes where that leaves nothing."""
    seen = counts > 0  # as values
    if not seen.any():
        return 0.0, 0.0
    if span is not None:
        order = np.argsort(values[seen], kind="stable")  # (M,)
        ordered, upto = values[seen][order], np.cumsum(counts[seen][order])  # each (M,)
        places = np.searchsorted(upto, [upto[-1] * span.low / 100, upto[-1] * span.high / 100])  # (2,)
        low, high = (float(v) for v in ordered[np.minimum(places, len(ordered) - 1)])
        if high > low:
            return low, high
    return float(np.min(values[seen])), float(np.max(values[seen]))


def window_values(values: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Apply a window.

    Parameters
    ----------
    values
        Modality values, any shape.

    Returns
    -------
    NDArray
        0 (black) to 1, as `values`: LINEAR by PS3.3 C.11.2.1.2.1, LINEAR_EXACT by C.11.2.1.3.2, SIGMOID by C.11.2.1.3.1.
    """
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (np.nan_to_num(values) - center) / width, -700, 700)))
    if window.function == "LINEAR_EXACT":
        return np.nan_to_num(np.clip((values - center) / width + 0.5, 0, 1))
    if width <= 1:
        return (values > center - 0.5).astype(np.float64)
    return np.nan_to_num(np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1))


def _colour(frame: Array, attributes: FrameAttributes) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    spare = max(attributes.bits_stored - 8, 0)
    return (frame >> spare).astype(np.uint8), {"colour": {"kind": "rgb", "dropped_bits": spare}}


def _palette(frame: Array, attributes: FrameAttributes) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    if attributes.palette is None:
        message = "A PALETTE COLOR frame without a palette cannot be shown."
        raise UnsupportedInstance(message, reason_code=ReasonCode.UNSUPPORTED, cause="palette")
    colours, first_mapped = attributes.palette
    index = np.clip(frame.astype(np.int64) - first_mapped, 0, len(colours) - 1)  # (rows, columns)
    return colours[index], {"colour": {"kind": "palette", "entries": len(colours)}}


def fitted(
    levels: NDArray[np.uint8], aspect: float, max_side: int, *, reducing_gap: float | None = None
) -> tuple[NDArray[np.uint8], dict[str, Any] | None]:
    """Make pixels square by enlarging the coarser direction, then bring the longer side within bounds, in one step."""
    height, width = float(levels.shape[0]), float(levels.shape[1])
    if abs(aspect - 1) > 0.01:
        height, width = (height * aspect, width) if aspect > 1 else (height, width / aspect)
    scale = min(1.0, max_side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (levels.shape[1], levels.shape[0]):
        return levels, None
    resized = Image.fromarray(levels).resize(size, Image.Resampling.LANCZOS, reducing_gap=reducing_gap)
    record = {"height": size[1], "width": size[0], "filter": "lanczos", "aspect": aspect}
    return np.asarray(resized), record


def is_blank(levels: NDArray[np.uint8]) -> bool:
    """Whether nothing can be seen: the levels deviate by less than one, over all channels."""
    return _deviation(levels) < _BLANK_DEVIATION


def _deviation(levels: NDArray[np.uint8]) -> float:
    """Standard deviation of the grey levels, over all channels."""
    counts = np.array(Image.fromarray(levels).histogram(), np.int64).reshape(-1, 256).sum(axis=0)  # (256,)
    grey = np.arange(256)  # (256,)
    mean = (counts * grey).sum() / counts.sum()
    return float(np.sqrt((counts * (grey - mean) ** 2).sum() / counts.sum()))
