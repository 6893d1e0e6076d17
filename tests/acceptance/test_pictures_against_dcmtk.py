"""Our pictures of every real file beside those of dcmtk: they differ by a grey level at most, on the mean, or a reason is known.

Ours are what the decoding child's own operation answers; dcmtk's come from dcm2pnm, dcmj2pnm and dcml2pnm. What dcmtk cannot
read is prepared for it by pydicom, which decides samples but no grey level: JPEG 2000 is decoded, and frames of enhanced
multi-frame objects get the attributes of their functional groups. Oblong pixels, which dcmtk leaves, are made square here.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from record.instances import InstanceHeader
from record.states import InstanceKind
from tests.acceptance.test_real_studies import DATA
from tests.line import dcmtk
from worker.codecs import LOSSY
from worker.decoding import answer, warm_up

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]

EXCEPTIONS = {
    "syntax/SC_rgb_32bit.dcm": "dcmtk 3.6.7 reads no colour of 32 bits",
    "syntax/SC_rgb_expb_32bit.dcm": "dcmtk 3.6.7 reads no colour of 32 bits",
    "us/gdcm-US-ALOKA-16.dcm": "dcmtk 3.6.7 reads no segmented palette (pydicom's expansion gives our picture)",
}
"""Files that dcmtk makes no picture of, or a wrong one, each with the reason that was found."""
OPTIONS = {
    "nm_sm_vl/example.dcm": ("+cg", "header RGB, stream JFIF: dcmj2pnm told to look at the stream"),
    "nm_sm_vl/example-mg.dcm": ("+cg", "header RGB, stream JFIF: dcmj2pnm told to look at the stream"),
}
"""Files whose header and stream contradict one another, with dcmj2pnm's option to believe the stream as we do."""
DECODED = {"syntax/JLSL_08_07_0_1F.dcm": "JPEG-LS of 7 bits decoded by pydicom"}
"""Files whose stream dcmtk refuses, though its pixels and its header are sound."""
JPEG, JPEG_LS = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.7"), ("1.2.840.10008.1.2.4.8",)
JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TOLD = (
    *("PhotometricInterpretation", "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("Modality", "SOPClassUID", "SOPInstanceUID", "PlanarConfiguration"),
)
"""What dcm2pnm needs of a frame that is prepared for it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its row in the table, and the largest mean difference among its frames."""

    path: str
    row: str
    frames: int = 0
    apart: float = 0.0
    fault: str = ""


def test_every_picture_is_dcmtk_s_too_or_the_reason_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not DATA.exists():
        pytest.skip("the folder of real DICOM files is not beside the project")
    for tool in ("dcm2pnm", "dcmj2pnm", "dcml2pnm"):
        dcmtk(tool)
    warm_up()
    paths = sorted(path for path in DATA.rglob("*") if path.is_file())
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda n: _compare(paths[n], tmp_path / str(n)), range(len(paths))))
    rows = Counter(outcome.row for outcome in outcomes)
    frames = Counter({row: sum(o.frames for o in outcomes if o.row == row) for row in rows})
    with capsys.disabled():
        sys.stdout.write(f"\n{'files':>7}{'frames':>8}\n")
        for row, count in sorted(rows.items()):
            sys.stdout.write(f"{count:7}{frames[row]:8}  {row}\n")
        sys.stdout.write(f"{len(outcomes):7}{frames.total():8}  all\n")
    assert rows.total() == len(paths)
    faults = "\n".join(f"{o.path}: {o.fault}" for o in outcomes if o.fault)
    assert not faults, faults
    assert {o.path for o in outcomes if o.row.startswith("excepted")} == set(EXCEPTIONS), "an exception is out of date"
    assert sum(count for row, count in rows.items() if row.startswith("equal")) > 160


def _compare(path: Path, folder: Path) -> Outcome:
    """Every frame of a file, or its first, middle and last, by us and by dcmtk."""
    folder.mkdir()
    name = path.relative_to(DATA).as_posix()
    first, first_png = answer({"op": "render", "path": str(path), "frame": 0})
    if "error" in first:
        fault = "" if first["error"] and first["cause"] and not first_png else f"an unnamed refusal: {first}"
    else:
        fault = "" if first_png else "a picture without bytes"
    try:
        ds = dcmread(path, force=True)
        kind = _kind(ds)
    except Exception as error:  # noqa: BLE001  # whatever pydicom says of a broken file is a reason
        return Outcome(name, f"not compared: pydicom cannot read it ({type(error).__name__})", fault=fault)
    if kind is not InstanceKind.IMAGE:
        return Outcome(name, "not compared: no image for us (no pixels, or the SOP class is none)", fault=fault)
    if "error" in first:
        return Outcome(name, f"not compared: we refuse it ({first['error']}, {first['cause']})", fault=fault)
    count = int(ds.get("NumberOfFrames") or 1)
    shown = range(count) if count <= 8 else (0, count // 2, count - 1)
    apart, prepared = 0.0, ""
    for frame in shown:
        theirs, prepared, complaint = _by_dcmtk(path, ds, frame, folder)
        said, png = answer({"op": "render", "path": str(path), "frame": frame}) if frame else (first, first_png)
        if "error" in said:
            return Outcome(name, "refused in one frame only", fault=f"frame {frame}: {said}")
        if theirs is None:
            if name in EXCEPTIONS:
                return Outcome(name, f"excepted: {EXCEPTIONS[name]}", len(shown), fault=fault)
            return Outcome(name, "dcmtk makes no picture", fault=f"dcmtk makes no picture: {complaint}")
        ours = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))  # (H, W, 3)
        if said["transform"]["resize"]:
            prepared += f"{', ' if prepared else ''}made square"
            theirs = theirs.resize((ours.shape[1], ours.shape[0]), Image.Resampling.LANCZOS)
        other = np.asarray(theirs.convert("RGB"))  # (H, W, 3)
        if other.shape != ours.shape:
            return Outcome(name, "of another size", fault=f"{ours.shape} is not {other.shape}")
        apart = max(apart, float(np.abs(ours.astype(int) - other.astype(int)).mean()))
    lossy = str(ds.file_meta.TransferSyntaxUID) in LOSSY
    if name in EXCEPTIONS:
        row = f"excepted: {EXCEPTIONS[name]}"
    elif apart <= 1:
        row = f"equal within 1 grey level{f' ({prepared})' if prepared else ''}"
    else:
        row = "lossy, equal within 5 grey levels"
        if not (lossy and apart <= 5):
            fault = fault or f"differs by {apart:.2f} grey levels"
    return Outcome(name, row, len(shown), apart, fault)


def _kind(ds: Dataset) -> InstanceKind:
    return InstanceHeader(
        study_instance_uid="",
        series_instance_uid="",
        sop_instance_uid="",
        sop_class_uid=str(ds.get("SOPClassUID", "")),
        transfer_syntax_uid="",
        has_pixels=any(keyword in ds for keyword in PIXELS),
    ).kind


def _by_dcmtk(path: Path, ds: Dataset, frame: int, folder: Path) -> tuple[Image.Image | None, str, str]:
    """Dcmtk's picture; how the frame was prepared for it; its complaint."""
    syntax = str(ds.file_meta.TransferSyntaxUID)
    file, told = path.relative_to(DATA).as_posix(), _told(ds, frame)
    source, number, prepared = path, frame + 1, OPTIONS.get(file, ("", ""))[1]
    enhanced = "SharedFunctionalGroupsSequence" in ds or "PerFrameFunctionalGroupsSequence" in ds
    if enhanced or file in DECODED or syntax.startswith(JPEG_2000):
        source, number = folder / "prepared.dcm", 1
        prepared = "frames taken apart by pydicom" if enhanced else DECODED.get(file, "JPEG 2000 decoded by pydicom")
        _write(path, told, frame, source)
        syntax = ExplicitVRLittleEndian
    name = "dcmj2pnm" if syntax.startswith(JPEG) else "dcml2pnm" if syntax.startswith(JPEG_LS) else "dcm2pnm"
    target = folder / "theirs.pnm"
    target.unlink(missing_ok=True)
    command = [dcmtk(name), "-q", "-O", "+F", str(number), "+op", *_view(path, told, frame)]
    command += [*OPTIONS.get(file, ())[:1], str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode or not target.exists():
        return None, prepared, done.stderr.strip()[-200:] or str(done.returncode)
    with Image.open(target) as picture:
        picture.load()
        return picture, prepared, ""


def _told(ds: Dataset, frame: int) -> Dataset:
    """A flat copy of what holds for one frame: top level, then shared, then per-frame functional groups."""
    told = Dataset()
    shared, each = ds.get("SharedFunctionalGroupsSequence") or [], ds.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*shared[:1], *each[frame : frame + 1]]
    for source in [ds, *(group.get(n)[0] for group in groups for n in _GROUPS if group.get(n))]:
        for keyword in TOLD:
            if keyword in source:
                told[keyword] = source[keyword]
    return told


_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def _write(path: Path, told: Dataset, frame: int, target: Path) -> None:
    samples = pixel_array(path, index=frame)  # (rows, columns) or (rows, columns, 3)
    plain = Dataset()
    plain.update(told)
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.file_meta.MediaStorageSOPClassUID = plain.SOPClassUID
    plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID
    if samples.ndim == 3:
        plain.PhotometricInterpretation, plain.PlanarConfiguration = "RGB", 0
    plain.PixelData = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    plain["PixelData"].VR = "OB" if samples.dtype.itemsize == 1 else "OW"
    plain.save_as(target, enforce_file_format=True)


def _view(path: Path, told: Dataset, frame: int) -> tuple[str, ...]:
    """Dcm2pnm's options for the VOI transform: the file's first, else what is known of a frame that has none."""
    if not str(told.PhotometricInterpretation).startswith("MONOCHROME"):
        return ()
    if told.get("VOILUTSequence"):
        return ("+Wl", "1")
    width, slope = _first(told.get("WindowWidth")), _first(told.get("RescaleSlope"))
    if width is not None and width >= 1:
        return ("+Wi", "1")
    if told.get("Modality") == "CT" and slope:
        return ("+Ww", "40", "400")
    padding = _first(told.get("PixelPaddingValue"))
    if padding is None:
        return ("+Wm",)
    # dcmtk's extremes count padding: tell it those of the other pixels
    stored = pixel_array(path, index=frame)  # (rows, columns)
    limit = _first(told.get("PixelPaddingRangeLimit"))
    ends = sorted((padding, padding if limit is None else limit))
    kept = stored[(stored < ends[0]) | (stored > ends[1])]  # (N,)
    low, high = sorted(
        float(v) * (slope or 1) + (_first(told.get("RescaleIntercept")) or 0) for v in (kept.min(), kept.max())
    )
    return ("+Ww", str((low + high) / 2 + 0.5), str(high - low + 1))


def _first(value: Any) -> float | None:
    """A number, or the first of several."""
    if value is None or value == "" or (not isinstance(value, str | int | float) and not len(value)):
        return None
    return float(value) if isinstance(value, str | int | float) else float(value[0])
