"""How long a picture takes: ours beside dcmtk's converters and pydicom, by syntax and size; whole studies; more children.

    python benchmarks/pictures.py [--rounds 5] [--data FOLDER] [--skip studies]

One synthetic chest-like image is encoded in each syntax, so that no data folder is needed. *ours*: decode, render and
encode a PNG in the warm child, over its pipe. *dcmtk*: dcm2pnm, dcmj2pnm or dcml2pnm as a process, to a PNM (its start is
part of it, as it would be for a worker that calls it). *pydicom*: `pixel_array` alone, in this process, no picture.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

sys.path.insert(0, str(Path(__file__).parents[1]))
from record.instances import InstanceHeader, StoredInstance
from record.pipes import DecodingChild
from record.store import Kind, Store
from worker.codecs import register
from worker.protocols import load
from worker.seeing import ChildEyes
from worker.selection import select

MEMORY, CPU_S = 3 * 1024**3, 3600
PROTOCOL = """
name: bench
version: 1
title: Bench
match: {modalities: [CT, DX, US]}
pictures: {max: 32, windows: {CT: [soft_tissue]}}
steps: [{name: draft, user: Describe.}]
sections: [findings]
"""


def scene(side: int, seed: int = 0) -> np.ndarray:
    """Something like a body in air with structure and noise: uint16 (side, side), 12 bits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = (x**2 / 0.75 + y**2 / 0.55 < 1) * 900.0
    for _ in range(24):
        cx, cy, r, v = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5), rng.uniform(0.04, 0.25), rng.uniform(-300, 300)
        body += ((x - cx) ** 2 + (y - cy) ** 2 < r * r) * (body > 0) * v
    body += rng.normal(0, 12, body.shape)
    return np.clip(body + 100, 0, 4095).astype("<u2")


def instance(path: Path, pixels: np.ndarray, syntax: str, stream: list[bytes] | None = None, **values: object) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = str(values.pop("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.3.{abs(hash(path.name)) % 10**9}"
    ds.file_meta.TransferSyntaxUID = syntax
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    ds.Modality, ds.SamplesPerPixel = "CT", 3 if colour else 1
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = 8 if pixels.dtype.itemsize == 1 else 12
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.WindowCenter, ds.WindowWidth, ds.RescaleSlope, ds.RescaleIntercept = 40, 400, 1, -1024
    if colour:
        ds.PlanarConfiguration = 0
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.PixelData = encapsulate(stream) if stream else pixels.tobytes()
    ds["PixelData"].VR = "OB" if stream else "OW"
    ds.save_as(path, enforce_file_format=True)
    return path


def syntaxes(folder: Path) -> dict[str, Path]:
    """One file a syntax and size."""
    ct, dx = scene(512), scene(2048)
    eight = (ct >> 4).astype("u1")
    uid = "1.2.840.10008.1.2."
    made = {
        "native, CT 512": instance(folder / "native", ct, uid + "1"),
        "native, DX 2048": instance(folder / "native2k", dx, uid + "1"),
        "JPEG baseline 8 bit, 512": instance(
            folder / "jpeg", eight, uid + "4.50", [imagecodecs.jpeg8_encode(eight, level=90)]
        ),
        "JPEG lossless SV1, CT 512": instance(
            folder / "sv1", ct, uid + "4.70", [imagecodecs.ljpeg_encode(ct, bitspersample=12)]
        ),
        "JPEG-LS, CT 512": instance(folder / "jls", ct, uid + "4.80", [imagecodecs.jpegls_encode(ct)]),
        "JPEG 2000, CT 512": instance(folder / "j2k", ct, uid + "4.90", [_j2k(ct)]),
        "JPEG 2000, DX 2048": instance(folder / "j2k2k", dx, uid + "4.90", [_j2k(dx)]),
        "HTJ2K, CT 512": instance(folder / "ht", ct, uid + "4.201", [_ht(ct)]),
        "HTJ2K, DX 2048": instance(folder / "ht2k", dx, uid + "4.201", [_ht(dx)]),
        "JPEG lossless SV1, DX 2048": instance(
            folder / "sv12k", dx, uid + "4.70", [imagecodecs.ljpeg_encode(dx, bitspersample=12)]
        ),
        "JPEG-LS, DX 2048": instance(folder / "jls2k", dx, uid + "4.80", [imagecodecs.jpegls_encode(dx)]),
    }
    rle = dcmread(made["native, CT 512"])
    rle.compress(uid + "5", generate_instance_uid=False)
    rle.save_as(folder / "rle", enforce_file_format=True)
    return made | {"RLE, CT 512": folder / "rle"}


def _j2k(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, bitspersample=12))


def _ht(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, reversible=True))


def timed(action: Callable[[], object], rounds: int) -> float:
    """Median milliseconds."""
    action()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def dcmtk(path: Path) -> list[str] | None:
    """The converter's command, or None where dcmtk has no codec."""
    syntax = str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    name = "dcm2pnm"
    if syntax.startswith("1.2.840.10008.1.2.4."):
        number = int(syntax.rsplit(".", 1)[1])
        if number >= 90:
            return None
        name = "dcml2pnm" if number in {80, 81} else "dcmj2pnm"
    outside = [p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != Path(sys.executable).parent]
    tool = shutil.which(name, path=os.pathsep.join(outside))
    return [tool, "-q", "-O", "+F", "1", "+op", "+Wi", "1", str(path), os.devnull] if tool else None


def frames(rounds: int, files: dict[str, Path]) -> None:
    print(f"{'ms a frame (median)':34}{'ours':>9}{'dcmtk':>9}{'pydicom':>9}{'ours/dcmtk':>12}{'ours/pydicom':>14}")
    with DecodingChild(MEMORY, CPU_S, 100_000) as child:
        child.start()
        for name, path in files.items():
            copies = _copies(path)
            turn = iter(range(10**9))
            ours = timed(lambda: child.render(copies[next(turn) % 6]), rounds)  # noqa: B023
            command = dcmtk(path)
            theirs = (
                timed(partial(subprocess.run, command, check=True, capture_output=True), rounds) if command else None
            )
            alone = timed(partial(pixel_array, path), rounds)
            told = f"{theirs:9.1f}" if theirs else f"{'-':>9}"
            ratio = f"{ours / theirs:12.2f}" if theirs else f"{'-':>12}"
            print(f"{name:34}{ours:9.1f}{told}{alone:9.1f}{ratio}{ours / alone:14.2f}")


def _copies(path: Path) -> list[Path]:
    """More copies of a file than a child keeps opened: each question meets one that it has forgotten."""
    return [Path(shutil.copy(path, path.with_name(f"{path.name}.{n}"))) for n in range(6)]


def growth(rounds: int, files: dict[str, Path]) -> None:
    """Frames a second with more children, each asked by a thread of its own."""
    print(f"\n{'frames/s':34}{'1 child':>9}{'2':>9}{'2 of 1':>9}")
    for name in ("native, CT 512", "JPEG lossless SV1, CT 512", "JPEG 2000, CT 512"):
        rates, copies = [], _copies(files[name])
        for number in (1, 2):
            children = [DecodingChild(MEMORY, CPU_S, 100_000) for _ in range(number)]
            for child in children:
                child.start()
                child.render(files[name])
            with ThreadPoolExecutor(number) as pool:
                began = time.perf_counter()
                list(pool.map(lambda c: [c.render(copies[n % 6]) for n in range(10 * rounds)], children))  # noqa: B023
                rates.append(number * 10 * rounds / (time.perf_counter() - began))
            for child in children:
                child.close()
        print(f"{name:34}{rates[0]:9.0f}{rates[1]:9.0f}{rates[1] / rates[0]:9.2f}")


def study(store: Store, kind: str, folder: Path) -> list[StoredInstance]:
    """A CT of 300 slices, a radiograph, or a film of 100 frames, in a store."""
    shared = {"study_instance_uid": "1.1", "series_instance_uid": "1.2", "has_pixels": True, "transfer_syntax_uid": ""}
    made = []
    if kind == "CT, 300 slices":
        base = dcmread(instance(folder / "slice", scene(512), "1.2.840.10008.1.2.1"))
        for n in range(300):
            ds = copy.deepcopy(base)
            ds.PixelData = np.roll(scene_cached(n % 12), n, axis=1).tobytes()
            key = f"{n + 1:032x}"
            path = folder / "one"
            ds.save_as(path, enforce_file_format=True)
            store.put(Kind.INSTANCE, key, path.read_bytes())
            header = InstanceHeader(
                **shared, sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid=f"1.3.{n}", modality="CT",
                bits_allocated=16, samples_per_pixel=1, image_position_patient=(0.0, 0.0, float(n)),
                image_orientation_patient=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), instance_number=n,
            )  # fmt: skip
            made.append(StoredInstance(key, "0" * 64, header))
        return made
    if kind == "radiograph, 2048²":
        path = instance(folder / "dx", scene(2048), "1.2.840.10008.1.2.1", Modality="DX")
        values = {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1", "modality": "DX", "number_of_frames": 1}
    else:
        pictures = [
            np.repeat((np.roll(scene_cached(0), 4 * n, axis=0) >> 4).astype("u1")[:, :, None], 3, 2)[:480, :]
            for n in range(100)
        ]
        streams = [imagecodecs.jpeg8_encode(p, level=85) for p in pictures]
        path = instance(
            folder / "us", pictures[0], "1.2.840.10008.1.2.4.50", streams, NumberOfFrames=100, Modality="US",
            PhotometricInterpretation="YBR_FULL_422", SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
        )  # fmt: skip
        values = {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.3.1", "modality": "US", "number_of_frames": 100}
    key = f"{abs(hash(kind)) % 16**8:032x}"
    store.put(Kind.INSTANCE, key, path.read_bytes())
    header = InstanceHeader(**shared, sop_instance_uid="1.3.1", bits_allocated=8, **values)  # type: ignore[arg-type]
    return [StoredInstance(key, "0" * 64, header)]


_SCENES: dict[int, np.ndarray] = {}


def scene_cached(seed: int) -> np.ndarray:
    if seed not in _SCENES:
        _SCENES[seed] = scene(512, seed)
    return _SCENES[seed]


def prepare(child: DecodingChild, store: Store, instances: list[StoredInstance]) -> int:
    eyes = ChildEyes(store, child, 60)
    protocol = load(PROTOCOL)
    chosen = select(protocol, instances, eyes).chosen
    for one in chosen:
        eyes.render(one, 1024)
    return len(chosen)


def studies(rounds: int, folder: Path) -> None:
    store = Store(folder / "store")
    print(f"\n{'whole studies, one child':34}{'s':>9}{'pictures':>9}{'studies/s':>12}")
    made = {kind: study(store, kind, folder) for kind in ("CT, 300 slices", "radiograph, 2048²", "film, 100 frames")}
    with DecodingChild(MEMORY, CPU_S, 100_000) as child:
        child.start()
        for kind, instances in made.items():
            count = prepare(child, store, instances)
            took = timed(lambda: prepare(child, store, instances), rounds) / 1000  # noqa: B023
            print(f"{kind:34}{took:9.2f}{count:9d}{1 / took:12.2f}")
        print(f"\n{'CT by slices, one child':34}{'s':>9}")
        for count in (30, 100, 300):
            took = timed(lambda: prepare(child, store, made["CT, 300 slices"][:count]), rounds) / 1000  # noqa: B023
            print(f"{count:<34d}{took:9.2f}")
    print(f"\n{'CT of 300, several children':34}{'studies/s':>9}{'of one':>9}")
    alone = 0.0
    for number in (1, 2, 4):
        children = [DecodingChild(MEMORY, CPU_S, 100_000) for _ in range(number)]
        for one in children:
            one.start()
        with ThreadPoolExecutor(number) as pool:
            began = time.perf_counter()
            list(pool.map(lambda c: [prepare(c, store, made["CT, 300 slices"]) for _ in range(rounds)], children))
            rate = number * rounds / (time.perf_counter() - began)
        for one in children:
            one.close()
        alone = alone or rate
        print(f"{number:<34d}{rate:9.2f}{rate / alone:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, help="a folder of real files, rendered as well")
    parser.add_argument("--skip", choices=["frames", "studies"], action="append", default=[])
    given = parser.parse_args()
    register()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "frames" not in given.skip:
            files = syntaxes(folder)
            if given.data:
                for path in sorted(given.data.rglob("*.dcm"))[:40]:
                    shutil.copy(path, folder / path.name)
                    files[path.name[:32]] = folder / path.name
            frames(given.rounds, files)
            growth(given.rounds, files)
        if "studies" not in given.skip:
            studies(max(2, given.rounds // 3), folder)


if __name__ == "__main__":
    main()
