"""One stored instance, opened: its header, checked before anything is decoded, and its frames.

Knows how a file is parsed once and its frames are decoded one by one, within what the header says they cost. Runs in the
decoding child. Does not know pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import pixel_array

from record.errors import InvalidInstance, UnsupportedInstance
from worker import attributes, surveys
from worker.attributes import FrameAttributes, frame_attributes
from worker.codecs import DECODERS, NATIVE

MAX_FRAME_SAMPLES = 64_000_000
"""Samples of one frame: a mammogram has 30 million."""
MAX_FRAMES = 100_000
_KEPT = 4
"""Files whose headers are kept: the next question is often about the same one."""
_TAGS = [*attributes.TAGS, *surveys.TAGS, "SOPInstanceUID"]


@dataclass(slots=True, eq=False)
class Opened:
    """A file whose header is read and whose geometry is known to cost little."""

    path: Path
    syntax: str
    ds: FileDataset
    _attributes: dict[int, FrameAttributes] = field(default_factory=dict)
    _last: tuple[int, NDArray[Any]] | None = None

    @property
    def is_native(self) -> bool:
        """The values lie uncompressed in the file."""
        return self.syntax in NATIVE

    def attributes(self, index: int) -> FrameAttributes:
        """What the display of a frame needs to know."""
        if index not in self._attributes:
            is_little = not self.syntax.endswith("1.2.2")
            self._attributes[index] = frame_attributes(self.ds, index, little_endian=is_little)
        return self._attributes[index]

    def frame(self, index: int) -> NDArray[Any]:
        """Stored values, (rows, columns) or (rows, columns, 3); three samples come as RGB."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._decoded(index)
        return self._last[1]

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Several frames, in the order asked for."""
        for index in indices:
            yield self._decoded(index)

    def _decoded(self, index: int) -> NDArray[Any]:
        options: dict[str, Any] = {}
        found = self.attributes(index)
        if self.is_native and found.shift and found.samples_per_pixel == 1:
            options["bits_stored"] = found.bits_allocated  # pydicom knows no High Bit: take all bits, shift later
        return pixel_array(self.path, index=index, decoding_plugin=DECODERS[self.syntax], **options)


def open_instance(path: Path, index: int = 0) -> Opened:
    """Open a file that is asked about, once it is known to cost little.

    Raises
    ------
    InvalidInstance
        It has no such frame, or no rows and columns.
    UnsupportedInstance
        Nothing here decodes its transfer syntax, or its frames are too large.
    """
    stat = os.stat(path)
    opened = _opened(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))
    _check_geometry(opened.ds, index)
    return opened


@lru_cache(maxsize=_KEPT)
def _opened(path: Path, _identity: tuple[int, int, int]) -> Opened:
    syntax = _transfer_syntax(path)
    return Opened(path, syntax, dcmread(path, stop_before_pixels=True, specific_tags=_TAGS))


def _transfer_syntax(path: Path) -> str:
    """The transfer syntax, asked of the file meta alone: a deflated data set must not be inflated to find out."""
    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax not in DECODERS:
        raise UnsupportedInstance("No decoder here reads this transfer syntax.", cause="transfer_syntax")
    return syntax


def _check_geometry(ds: FileDataset, index: int) -> None:
    """Refuse by the header what would cost too much, or is no picture, before a byte of it is decoded."""
    rows, columns, samples, bits, frames = (
        int(ds.get(keyword) or default)
        for keyword, default in (
            *(("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1)),
            *(("BitsAllocated", 0), ("NumberOfFrames", 1)),
        )
    )
    if rows <= 0 or columns <= 0:
        raise InvalidInstance("The instance has no rows or columns.", cause="geometry")
    if samples not in {1, 3} or bits not in {8, 16, 32, 64}:
        raise UnsupportedInstance("Pictures have 1 or 3 samples of 8, 16, 32 or 64 bits.", cause="sample")
    if rows * columns * samples > MAX_FRAME_SAMPLES or not 0 < frames <= MAX_FRAMES:
        raise UnsupportedInstance(f"A frame may have {MAX_FRAME_SAMPLES} samples at most.", cause="geometry")
    if not 0 <= index < frames:
        raise InvalidInstance("The instance has no frame of this number.", cause="frame")
