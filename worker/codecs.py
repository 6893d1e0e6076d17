"""Which transfer syntaxes are decoded, by whom, and our JPEG plugin for pydicom on imagecodecs (BSD-3).

Knows codecs and their traps. Does not know grey levels or pictures. pydicom's own plugins leave 12-bit JPEG Extended
undecoded, and the one other package that fills the gap is GPL-3; libjpeg-turbo, inside imagecodecs, does 8, 12 and
16 bits, lossy and lossless. Every syntax has exactly one decoder, so that the same bytes are always the same pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

if TYPE_CHECKING:
    from worker.attributes import FrameAttributes

PLUGIN = "countersign-imagecodecs"
NATIVE: tuple[UID, ...] = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian),
    DeflatedExplicitVRLittleEndian,
)
JPEG: tuple[UID, ...] = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION, JPEG_XL = (f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112))
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
OWN: tuple[str, ...] = (JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION, JPEG_XL, DEFLATED_FRAME)
"""Younger than pydicom: frame by frame decoded here (PS3.5 A.4.13, A.4.14)."""
DECODERS: Mapping[str, str] = {
    **dict.fromkeys(NATIVE, ""),
    **dict.fromkeys(JPEG, PLUGIN),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), "pylibjpeg"),
    RLELossless: "pydicom",
    **dict.fromkeys(OWN, ""),
}
"""Transfer syntax to pydicom plugin (PS3.5 section 10 and annex A). Not here, so refused: video, JPIP, JPEG 2000 part 2,
SMPTE streams and private ones."""

LOSSY: tuple[str, ...] = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K, JPEG_XL)
"""Syntaxes that may have cost detail; the header can still say that they did not (PS3.3 C.7.6.1.1.5)."""

DECODER_DEPENDENCIES: Mapping[str, tuple[str, ...]] = dict.fromkeys(JPEG, ("numpy", "imagecodecs"))
"""Asked for by pydicom of the module that holds a plugin."""

_APP0, _APP14, _SOS = 0xE0, 0xEE, 0xDA


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the syntax; asked by pydicom."""
    return uid in JPEG


def register() -> None:
    """Make the plugin known to pydicom; repeating it is harmless."""
    for uid in JPEG:
        decoder = get_decoder(uid)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode"))


def decode(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one JPEG frame; called by pydicom.

    Three components leave as RGB, whatever colour model they had, and the runner is told so.

    Raises
    ------
    ValueError
        The stream's size or number of components is not what the header says.
    """
    import imagecodecs
    import numpy as np

    samples = runner.samples_per_pixel
    options: dict[str, Any] = {}
    if samples == 3:
        options = {"colorspace": colour_model(source, runner.photometric_interpretation), "outcolorspace": "RGB"}
    pixels = imagecodecs.jpeg8_decode(source, **options)  # (rows, columns) or (rows, columns, samples)
    shape = (runner.rows, runner.columns) if samples == 1 else (runner.rows, runner.columns, samples)
    if pixels.shape != shape:
        raise ValueError("The JPEG stream has another size than the header says")
    if samples == 3:
        runner.set_option("photometric_interpretation", "RGB")
        runner.set_option("planar_configuration", 0)
    width = runner.bits_allocated // 8
    if pixels.dtype.itemsize != width:
        pixels = pixels.astype(f"<u{width}")
    return bytearray(np.ascontiguousarray(pixels).tobytes())


def decode_own(syntax: str, source: bytes, attributes: FrameAttributes, rows: int, columns: int) -> NDArray[Any]:
    """Decode one frame of a syntax that pydicom does not know: (rows, columns) or (rows, columns, 3).

    Raises
    ------
    ValueError
        The stream is not what the header says.
    """
    import imagecodecs
    import numpy as np

    samples, width = attributes.samples_per_pixel, attributes.bits_allocated // 8
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    if syntax == DEFLATED_FRAME:
        size = rows * columns * samples * width
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(source, size + 2)
        if len(content) > size + size % 2:
            raise ValueError("The deflated frame is larger than the header says")
        kind = "i" if attributes.signed else "u"
        return np.frombuffer(content, f"<{kind}{width}", rows * columns * samples).reshape(shape)
    pixels: NDArray[Any] = imagecodecs.jpegxl_decode(source)
    if pixels.shape != shape:
        raise ValueError("The JPEG XL stream has another shape than the header says")
    return pixels.view(f"i{pixels.dtype.itemsize}") if attributes.signed else pixels


def colour_model(source: bytes, photometric_interpretation: str) -> str:
    """Return ``RGB`` or ``YCBCR``: what the three components of a JPEG stream are.

    Photometric Interpretation says it (PS3.5 8.2.1), but encoders transform without changing it. An Adobe marker
    states the transform; a JFIF marker means YCbCr by its own standard. Markers go before the header.
    """
    for marker, segment in _segments(source):
        if marker == _APP14 and segment[:5] == b"Adobe" and len(segment) >= 12:
            return "YCBCR" if segment[11] else "RGB"
        if marker == _APP0 and segment[:4] == b"JFIF":
            return "YCBCR"
    return "RGB" if photometric_interpretation == "RGB" else "YCBCR"


def _segments(source: bytes) -> list[tuple[int, bytes]]:
    """The marker segments before the first scan (ITU-T T.81 B.1.1.4)."""
    found, position = [], 2
    while position + 4 <= len(source) and source[position] == 0xFF and source[position + 1] != _SOS:
        length = int.from_bytes(source[position + 2 : position + 4], "big")
        found.append((source[position + 1], source[position + 4 : position + 2 + length]))
        position += 2 + max(length, 2)
    return found
