"""Every frame of every real file: our picture beside dcmtk's, or the reason why there is none to compare.

dcmtk reads neither functional groups nor JPEG 2000: such frames are written as plain ones for it first, decoded by pydicom.
It truncates where we round, so pictures are equal when they differ by a grey level at most.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from record.instances import NOT_IMAGES, RT_IMAGE
from tests.acceptance.test_real_studies import DATA
from worker.codecs import LOSSY
from worker.decoding import answer, warm_up

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(600)]

EQUAL, LOSSY_EQUAL = 1.0, 5.0
MOST_FRAMES = 3
EXCEPTIONS: dict[str, str] = {
    "nm_sm_vl/example.dcm": "its header says RGB over a JFIF stream; dcmtk leaves the chroma unconverted",
    "nm_sm_vl/example-mg.dcm": "as example.dcm",
}
"""Files whose pictures differ by more, and why ours is the right one."""


def test_no_picture_differs_from_dcmtks_without_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not DATA.exists():
        pytest.skip("the folder of real DICOM files is not beside the project")
    if _tool("dcm2pnm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("dcmtk is not installed")
        pytest.skip("dcmtk is not installed")
    warm_up()
    rows: dict[str, list[str]] = defaultdict(list)
    wrong: list[str] = []
    paths = sorted(path for path in DATA.rglob("*") if path.is_file() and path.suffix not in {".md", ".csv"})
    with ThreadPoolExecutor(2) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, seen in zip(paths, pool.map(lambda p: _compared(p, tmp_path), paths), strict=True):
            name = path.relative_to(DATA).as_posix()
            for frame, row, apart in seen:
                if row != "compared":
                    rows[row].append(name)
                elif apart <= EQUAL:
                    rows["equal within a grey level"].append(name)
                elif apart <= LOSSY_EQUAL and _is_lossy(path):
                    rows["lossy, within five"].append(name)
                elif name in EXCEPTIONS:
                    rows[f"excepted: {EXCEPTIONS[name]}"].append(name)
                else:
                    wrong.append(f"{name} frame {frame + 1}: {apart:.1f}")
    with capsys.disabled():
        sys.stdout.write("\npictures beside dcmtk's\n")
        for row, names in sorted(rows.items(), key=lambda item: -len(item[1])):
            sys.stdout.write(
                f"  {len(names):4}  {row}{'' if len(set(names)) > 4 else ': ' + ', '.join(sorted(set(names)))}\n"
            )
        sys.stdout.write("".join(f"  WRONG {each}\n" for each in wrong))
    assert wrong == []
    assert len(rows["equal within a grey level"]) > 200
    assert {name for names in rows.values() for name in names} == {p.relative_to(DATA).as_posix() for p in paths}


def _compared(path: Path, folder: Path) -> list[tuple[int, str, float]]:
    """For each frame that is looked at: its number, what became of it, and how far the two are apart."""
    try:
        ds = pydicom.dcmread(path, force=True)
        frames = int(ds.get("NumberOfFrames") or 1)
    except Exception as error:  # noqa: BLE001  broken on purpose
        return [(0, f"pydicom cannot read it ({type(error).__name__})", 0.0)]
    if "Rows" not in ds:
        return [(0, "no pixels", 0.0)]
    uid = str(ds.get("SOPClassUID", ""))
    if uid.startswith(NOT_IMAGES) and uid != RT_IMAGE:
        return [(0, "not an image object", 0.0)]
    step = max(1, frames // MOST_FRAMES)
    return [(n, *_frame(path, ds, n, folder)) for n in range(0, frames, step)][: max(8, MOST_FRAMES)]


def _frame(path: Path, ds: Dataset, frame: int, folder: Path) -> tuple[str, float]:
    said, png = answer({"op": "render", "path": str(path), "frame": frame})
    if "error" in said:
        assert said["cause"], path
        return f"refused: {said['error']}, {said['cause']}", 0.0
    ours = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)  # (H, W, 3)
    theirs = _dcmtk(path, ds, frame, folder, said["transform"])
    if isinstance(theirs, str):
        return theirs, 0.0
    if theirs.shape[:2] != ours.shape[:2]:  # pixels that are not square: dcmtk leaves them so
        size = (ours.shape[1], ours.shape[0])
        theirs = np.asarray(Image.fromarray(theirs.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)).astype(int)
    return "compared", float(np.abs(ours - theirs).mean())


def _dcmtk(path: Path, ds: Dataset, frame: int, folder: Path, transform: dict[str, object]) -> NDArray[np.int_] | str:
    """dcmtk's picture, int (rows, columns, 3), or why there is none."""
    syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
    number = int(syntax.rsplit(".", 1)[1]) if syntax.startswith("1.2.840.10008.1.2.4.") else 0
    source, index = path, frame
    if number >= 90 or syntax.startswith("1.2.840.10008.1.2.8") or "SharedFunctionalGroupsSequence" in ds or not syntax:
        source, index = folder / f"{path.name}.{frame}.{abs(hash(str(path)))}", 0
        try:
            _plain(path, ds, frame).save_as(source, enforce_file_format=True)
        except Exception as error:  # noqa: BLE001  what pydicom cannot decode, dcmtk cannot be shown
            return f"nobody else decodes it ({type(error).__name__})"
    tool = _tool("dcml2pnm" if number in {80, 81} else "dcmj2pnm" if 50 <= number <= 70 else "dcm2pnm")
    target = folder / f"{path.name}.{frame}.{abs(hash(str(path)))}.pnm"
    command = [tool, "-q", "-O", "+F", str(index + 1), "+op", *_window(ds, frame, transform), str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # type: ignore[arg-type]
    if done.returncode or not target.exists() or not target.stat().st_size:
        return "dcmtk cannot show it"
    return np.asarray(Image.open(target).convert("RGB")).astype(int)


def _window(ds: Dataset, frame: int, transform: dict[str, object]) -> list[str]:
    """The option of dcm2pnm that shows what the file says; where it says nothing, what we took."""
    voi = transform.get("voi")
    if not isinstance(voi, dict):
        return []
    if voi["source"] == "file":
        return ["+Wl" if voi["kind"] == "lut" else "+Wi", "1"]
    if "center" in voi:
        return ["+Ww", str(voi["center"]), str(voi["width"])]
    if transform.get("padding") is None:
        return ["+Wm"]
    low, high = float(voi["low"]), float(voi["high"])  # dcmtk counts padding in
    return ["+Ww", str((low + high) / 2 + 0.5), str(high - low + 1)]


def _plain(path: Path, ds: Dataset, frame: int) -> Dataset:
    """One frame as an ordinary uncompressed image, its transforms at the top level."""
    plain = Dataset()
    plain.file_meta = pydicom.dataset.FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.SOPClassUID = plain.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    plain.SOPInstanceUID = plain.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    wanted = {
        *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
        *(
            "ModalityLUTSequence",
            "PresentationLUTShape",
            "PhotometricInterpretation",
            "BitsStored",
            "HighBit",
            "Modality",
        ),
        *("PixelRepresentation", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    }
    groups = [
        *ds.get("SharedFunctionalGroupsSequence", [])[:1],
        *ds.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1],
    ]
    nested = [
        i for g in groups for k in ("PixelValueTransformationSequence", "FrameVOILUTSequence") for i in g.get(k, [])[:1]
    ]
    for holder in (ds, *nested):
        for element in holder:
            if element.keyword in wanted:
                plain[element.tag] = element
    options = (
        {"decoding_plugin": "pylibjpeg"}
        if ds.file_meta.get("TransferSyntaxUID", "").startswith("1.2.840.10008.1.2.4.9")
        else {}
    )
    pixels = pixel_array(path if "TransferSyntaxUID" in ds.file_meta else ds, index=frame, **options)
    if pixels.ndim == 3:
        plain.PhotometricInterpretation, plain.PlanarConfiguration = "RGB", 0
    plain.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + b"\0" * (pixels.nbytes % 2)
    plain["PixelData"].VR = "OW"
    if "WindowWidth" in plain and not plain.WindowWidth:
        del plain.WindowWidth
    return plain


def _is_lossy(path: Path) -> bool:
    return str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", "")) in LOSSY


def _tool(name: str) -> str | None:
    outside = (p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join(outside))
