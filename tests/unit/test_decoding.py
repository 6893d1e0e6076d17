"""The real child: what it renders, what it refuses, what it survives, and what it denies itself."""

import hashlib
import io
import os
import select
import socket
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from record.errors import InvalidInstance, UnsupportedInstance
from record.pipes import DecodingChild
from worker.codecs import DECODERS, DEFLATED_FRAME, JPEG, JPEG_XL_LOSSLESS, NATIVE, OWN
from worker.phantom.anatomy import Level, Phantom, Side, Zone, draw
from worker.phantom.exposure import displayed, expose

MEMORY = 2 * 1024**3
SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "dicom"
RAMP = np.arange(64 * 48, dtype="<u2").reshape(64, 48)


def instance(path, pixels=RAMP, *, syntax=ExplicitVRLittleEndian, **values):
    """Write an instance with these attributes and return its path."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = syntax
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, "1.2.3", "DX"
    ds.PatientName = "CANARY^Jane"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = *pixels.shape[:2], 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelData = pixels.tobytes()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds["PixelData"].VR = "OW"
    if syntax == RLELossless:
        ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def child():
    with DecodingChild(MEMORY, 60) as decoder:
        decoder.start()
        yield decoder


def gone(pid, within_s=10):
    """Whether a process ends within a time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


def pixels_of(rendered):
    return np.asarray(Image.open(io.BytesIO(rendered.png)).convert("RGB"))


def test_a_phantom_comes_out_as_the_model_learned_it(child, tmp_path):
    exposure = expose(draw(Phantom(Zone(Side.LEFT, Level.UPPER), enlarged=False, seed=3)), np.random.default_rng(1))
    path = instance(
        tmp_path / "p.dcm",
        exposure.stored,
        BitsStored=12,
        HighBit=11,
        WindowCenter=exposure.centre,
        WindowWidth=exposure.width,
    )
    rendered = child.render(path)
    assert (pixels_of(rendered) == displayed(exposure)).all()
    assert (rendered.height, rendered.width) == exposure.stored.shape
    assert rendered.pixel_digest == hashlib.sha256(exposure.stored.astype("<u2").tobytes()).hexdigest()
    assert rendered.transform["transfer_syntax_uid"] == ExplicitVRLittleEndian
    assert not rendered.blank
    assert child.render(path).png == rendered.png


def test_frames_windows_and_sizes_are_as_asked(child, tmp_path):
    two = np.concatenate([RAMP, RAMP[::-1]])
    path = instance(tmp_path / "m.dcm", two, NumberOfFrames=2, Rows=64, Columns=48)
    first, second = (pixels_of(child.render(path, frame=f)) for f in (0, 1))
    assert (first[::-1] == second).all()
    windowed = child.render(path, window=(100, 10), max_side=32)
    assert (windowed.height, windowed.width) == (32, 24)
    assert windowed.transform["voi"]["source"] == "request"
    named = child.render(path, window="lung").transform["voi"]
    assert (named["source"], named["instead_of"]) == ("frame", "lung"), (
        "no Hounsfield units: a CT's window shows nothing"
    )
    ct = instance(tmp_path / "ct.dcm", two, Rows=128, Columns=48, **CT)
    assert child.render(ct, window="lung").transform["voi"]["source"] == "named:lung"


CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


def test_a_person_s_picture_is_grey_alone_and_of_the_asked_size(child, tmp_path):
    path = str(instance(tmp_path / "c.dcm", **CT))
    said, png = child.call({"op": "show", "path": path, "frame": 0, "view": {"kind": "sent", "number": 1}}, 60)
    assert said == {"height": 64, "width": 48}
    assert Image.open(io.BytesIO(png)).mode == "L"
    said, png = child.call({"op": "show", "path": path, "frame": 0, "max_side": 32}, 60)
    assert Image.open(io.BytesIO(png)).size == (24, 32) == (said["width"], said["height"])


def test_a_narrow_window_is_taken_as_it_is_meant(child, tmp_path):
    path = str(instance(tmp_path / "c.dcm", np.arange(16, dtype="<u2").reshape(4, 4)))
    view = {"kind": "window", "center": 7.5, "width": 0.5}  # LINEAR knows no width under 1 (PS3.3 C.11.2.1.2.1)
    _, png = child.call({"op": "show", "path": path, "frame": 0, "view": view}, 60)
    assert np.asarray(Image.open(io.BytesIO(png))).ravel().tolist() == [0] * 8 + [255] * 8


@pytest.mark.parametrize(
    ("values", "request_", "refused"),
    [
        ({}, {"view": {"kind": "window", "center": 40, "width": 400, "hounsfield": True}}, "not_hounsfield"),
        ({}, {"view": {"kind": "sent", "number": 2}}, "not_sent"),
        ({}, {"view": {"kind": "window", "center": 40, "width": 400}}, None),
        (CT, {"view": {"kind": "window", "center": 40, "width": 400, "hounsfield": True}}, None),
        ({"WindowCenter": [1, 2], "WindowWidth": [5, 5]}, {"view": {"kind": "sent", "number": 2}}, None),
        ({"PhotometricInterpretation": "RGB"}, {"view": {"kind": "window", "center": 1, "width": 2}}, "colour"),
        ({"PhotometricInterpretation": "RGB"}, {"invert": True}, "colour"),
    ],
)
def test_a_view_that_does_not_fit_is_refused_by_name(child, tmp_path, values, request_, refused):
    said, png = child.call({"op": "show", "path": str(instance(tmp_path / "v.dcm", **values)), **request_}, 60)
    assert said.get("refused") == refused
    assert bool(png) is not bool(refused)


def test_what_can_be_asked_of_a_frame_is_told_without_decoding_it(child, tmp_path):
    said = {"WindowCenter": [40, 50], "WindowWidth": [400, 80], "WindowCenterWidthExplanation": ["WINDOW1", "BRAIN"]}
    path = instance(tmp_path / "d.dcm", np.zeros((0, 48), "<u2"), Rows=64, **CT, **said)  # no pixel is there
    described, rest = child.call({"op": "describe", "path": str(path), "frame": 0}, 60)
    assert described == {
        "grey": True,
        "hounsfield": True,
        "sent": [
            {"explanation": "WINDOW1", "center": 40.0, "width": 400.0},
            {"explanation": "BRAIN", "center": 50.0, "width": 80.0},
        ],
        "lossy": False,
    }
    assert rest == b""
    lossy = instance(tmp_path / "l.dcm", LossyImageCompression="01")
    assert child.call({"op": "describe", "path": str(lossy), "frame": 0}, 60)[0]["lossy"]
    with pytest.raises(UnsupportedInstance, match="no such operation"):
        child.call({"op": "else", "path": str(path)}, 60)


def test_byte_order_makes_no_difference(child, tmp_path):
    little = child.render(instance(tmp_path / "l.dcm"))
    big = child.render(instance(tmp_path / "b.dcm", RAMP.astype(">u2"), syntax=ExplicitVRBigEndian))
    assert (big.png, big.pixel_digest) == (little.png, little.pixel_digest)


def test_a_constant_frame_is_blank(child, tmp_path):
    assert child.render(instance(tmp_path / "c.dcm", np.full((8, 8), 5, "<u2"))).blank


@pytest.mark.parametrize(
    ("values", "syntax", "error", "cause"),
    [
        (
            {"Rows": 60000, "Columns": 60000, "PixelData": encapsulate([b"\x01" * 64])},
            RLELossless,
            UnsupportedInstance,
            "geometry",
        ),
        ({"Rows": 60000, "Columns": 60000}, ExplicitVRLittleEndian, UnsupportedInstance, "geometry"),
        (
            {"Rows": 7000, "Columns": 7000, "PixelData": encapsulate([b"\x01" * 64])},
            RLELossless,
            InvalidInstance,
            "decoder",
        ),
        ({"Rows": 0}, ExplicitVRLittleEndian, InvalidInstance, "geometry"),
        ({"Rows": 1000}, ExplicitVRLittleEndian, InvalidInstance, "decoder"),
        ({"BitsAllocated": 1}, ExplicitVRLittleEndian, UnsupportedInstance, "sample"),
        ({"NumberOfFrames": 2_000_000_000}, ExplicitVRLittleEndian, UnsupportedInstance, "geometry"),
        (
            {"PhotometricInterpretation": "CMYK"},
            ExplicitVRLittleEndian,
            UnsupportedInstance,
            "photometric_interpretation",
        ),
    ],
)
def test_forged_headers_cost_nothing_and_are_refused(child, tmp_path, values, syntax, error, cause):
    path = instance(tmp_path / "f.dcm", syntax=syntax, **values)
    first, began = child.pid, time.monotonic()
    with pytest.raises(error) as told:
        child.render(path)
    assert type(told.value) is error
    assert told.value.facts["cause"] == cause
    assert "CANARY" not in f"{told.value} {told.value.facts}"
    assert child.pid == first
    assert peak_bytes(first) < 600 * 1024**2
    assert time.monotonic() - began < 10


def peak_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_garbage_and_truncated_files_are_refused_and_the_child_goes_on(child, tmp_path):
    whole = instance(tmp_path / "w.dcm").read_bytes()
    rng, first = np.random.default_rng(0), child.pid
    for n in range(20):
        path = tmp_path / f"g{n}.dcm"
        cut = int(rng.integers(0, len(whole)))
        path.write_bytes(rng.bytes(500) if n % 4 == 0 else whole[:cut] + (rng.bytes(50) if n % 2 else b""))
        with pytest.raises(InvalidInstance):
            child.render(path)
    with pytest.raises(InvalidInstance):
        child.render(tmp_path / "absent.dcm")
    with pytest.raises(InvalidInstance):
        child.render(tmp_path / "w.dcm", frame=1)
    child.render(tmp_path / "w.dcm")
    assert child.pid == first


def wear_out(child, path):
    """Ask until it ends, and keep the parent from replacing it in time."""
    for _ in range(20):
        child.render(path)
        child._used_cpu_s = 0.0


def test_too_little_memory_is_an_answer_and_too_little_cpu_an_end(tmp_path):
    large = instance(tmp_path / "large.dcm", np.zeros((5000, 5000), "<u2"))
    small = instance(tmp_path / "small.dcm")
    with DecodingChild(400 * 1024**2, 60) as poor:
        with pytest.raises(InvalidInstance) as told:
            poor.render(large)
        assert told.value.facts["cause"] == "memory"
        poor.render(small)
    with DecodingChild(MEMORY, 1) as hasty:  # its imports take half of it
        with pytest.raises(InvalidInstance) as told:
            wear_out(hasty, large)
        assert told.value.facts["cause"] == "cpu_limit"


def test_a_child_killed_between_or_within_frames_is_replaced(child, tmp_path):
    path = instance(tmp_path / "k.dcm")
    first = child.pid
    os.kill(first, 9)
    child.render(path)
    assert child.pid != first


def test_a_child_dies_with_its_parent():
    script = "import os; from record.pipes import DecodingChild; c = DecodingChild(2**31, 60); c.start(); print(c.pid, flush=True); os.kill(os.getpid(), 9)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert gone(int(told.stdout))


def confined(script, **options):
    body = "from worker.decoding import *\n" + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False, **options)


def test_a_confined_process_reaches_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = confined(
            f"""
            import socket
            print(leave_network())
            try:
                socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2)
                print("reached")
            except OSError:
                print("cut off")
            """
        )
    if told.stdout.startswith("open"):
        pytest.skip("this kernel lets no ordinary process have a network namespace")
    assert told.stdout.split("\n")[:2] == ["none", "cut off"]


def test_a_confined_process_writes_nothing_and_takes_no_memory(tmp_path):
    target = tmp_path / "written"
    told = confined(
        f"""
        import sys
        limit(memory_bytes=300 * 1024**2, cpu_s=5, parent=0)
        try:
            with open({str(target)!r}, "wb") as out:
                out.write(b"x")
            failed = "nothing"
        except OSError:
            failed = "write"
        try:
            bytearray(400 * 1024**2)
        except MemoryError:
            failed += " memory"
        os.write(2, failed.encode())
        """
    )
    assert told.stderr == "write memory"
    assert target.stat().st_size == 0


def test_importing_the_child_loads_no_torch_and_the_check_says_what_is_covered():
    told = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "worker.decoding", "--check"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'network'" in told.stdout
    assert not any(line.endswith((" torch", " transformers", " sqlalchemy")) for line in told.stderr.splitlines())


def test_every_syntax_has_one_decoder_and_it_is_here():
    from pydicom.pixels import get_decoder

    from worker.codecs import PLUGIN, register

    register()
    for uid in set(DECODERS) - set(NATIVE) - set(OWN):
        assert DECODERS[uid] in get_decoder(uid).available_plugins, uid
    assert {DECODERS[uid] for uid in JPEG} == {PLUGIN}


@pytest.mark.slow
def test_every_sample_is_rendered_or_refused_and_no_child_dies():
    if not SAMPLES.is_dir():
        pytest.skip("the sample files are not at hand")
    rendered = 0
    with DecodingChild(MEMORY, 600, 1000) as decoder:
        decoder.start()
        first = decoder.pid
        for path in sorted(SAMPLES.rglob("*.dcm")):
            try:
                decoder.render(path, max_side=1024)
                rendered += 1
            except InvalidInstance:
                continue
        assert decoder.pid == first
    assert rendered > 170


def deflated(path, plain):
    """The same instance as Deflated Explicit VR Little Endian (PS3.5 A.5): what follows the file meta, without a zlib header."""
    content = plain.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    meta = content[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta[:140] + (len(meta) - 144).to_bytes(4, "little") + meta[144:]
    meta = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(wbits=-15)
    path.write_bytes(meta + packer.compress(content[start:]) + packer.flush())
    return path


def test_a_deflated_data_set_is_the_same_picture(child, tmp_path):
    plain = instance(tmp_path / "p.dcm", np.concatenate([RAMP, RAMP[::-1]]), NumberOfFrames=2, Rows=64)
    packed = deflated(tmp_path / "d.dcm", plain)
    for frame in (0, 1):
        assert child.render(packed, frame=frame).png == child.render(plain, frame=frame).png
    assert child.render(packed).transform["transfer_syntax_uid"] == DeflatedExplicitVRLittleEndian


def packed_with_zeros(path, plain, zeros_bytes):
    """The instance deflated, and so many zeros behind it in the same stream."""
    content = deflated(path, plain).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    with path.open("wb") as out:
        out.write(content[:start])
        out.write(packer.compress(zlib.decompress(content[start:], wbits=-15)))
        for _ in range(zeros_bytes >> 20):
            out.write(packer.compress(bytes(1 << 20)))
        out.write(packer.flush())
    return path


@pytest.fixture
def fresh_child():
    with DecodingChild(MEMORY, 60) as decoder:
        decoder.start()
        yield decoder


def test_a_deflate_bomb_is_refused_before_it_fills_memory(fresh_child, tmp_path):
    """300 MiB that never come to pixels; that claim more pixels than may be; that follow the pixels."""
    plain = instance(tmp_path / "p.dcm", Rows=8000, Columns=8000, NumberOfFrames=3)
    bare = instance(tmp_path / "e.dcm").read_bytes()
    pixels = bare.index(b"\xe0\x7f\x10\x00")
    (tmp_path / "e.dcm").write_bytes(bare[:pixels])
    for n, source in enumerate((tmp_path / "e.dcm", plain)):
        bomb = packed_with_zeros(tmp_path / f"b{n}.dcm", source, 300 << 20)
        assert bomb.stat().st_size < 1 << 20
        with pytest.raises(UnsupportedInstance) as told:
            fresh_child.render(bomb)
        assert told.value.facts["cause"] == "deflated"
    whole = instance(tmp_path / "n.dcm")
    trailing = packed_with_zeros(tmp_path / "t.dcm", whole, 300 << 20)
    assert fresh_child.render(trailing).png == fresh_child.render(whole).png
    assert peak_bytes(fresh_child.pid) < 200 * 1024**2


def coded(path, stream, syntax, **values):
    """An instance with one encapsulated frame, in a syntax that pydicom may not know."""
    content = instance(path, syntax=RLELossless, PixelData=encapsulate([stream]), **values).read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI") + 6
    end = at + 2 + int.from_bytes(content[at : at + 2], "little")
    even = (syntax + "\0" * (len(syntax) % 2)).encode()
    whole = content[:at] + len(even).to_bytes(2, "little") + even + content[end:]
    length = int.from_bytes(content[140:144], "little") + len(whole) - len(content)
    path.write_bytes(whole[:140] + length.to_bytes(4, "little") + whole[144:])
    return path


@pytest.mark.parametrize("signed", [0, 1])
def test_deflated_frames_and_jpeg_xl_are_the_same_picture(child, tmp_path, signed):
    plain = child.render(instance(tmp_path / "p.dcm", PixelRepresentation=signed)).png
    packer = zlib.compressobj(wbits=-15)
    frame = packer.compress(RAMP.astype("<u2").tobytes()) + packer.flush()
    more = {"PixelRepresentation": signed}
    assert child.render(coded(tmp_path / "d.dcm", frame, DEFLATED_FRAME, **more)).png == plain
    import imagecodecs

    stream = imagecodecs.jpegxl_encode(RAMP.astype("u2"), lossless=True)
    assert child.render(coded(tmp_path / "x.dcm", stream, JPEG_XL_LOSSLESS, **more)).png == plain


def test_jpeg_xl_in_colour_and_of_another_size_than_the_header(child, tmp_path):
    import imagecodecs

    colours = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype("u1")
    said = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    said |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 64, "Columns": 48}
    stream = imagecodecs.jpegxl_encode(colours, lossless=True)
    assert (pixels_of(child.render(coded(tmp_path / "c.dcm", stream, JPEG_XL_LOSSLESS, **said))) == colours).all()
    for broken in (stream[: len(stream) // 2], b"xx", imagecodecs.jpegxl_encode(colours[:10], lossless=True)):
        with pytest.raises(InvalidInstance):
            child.render(coded(tmp_path / "b.dcm", broken, JPEG_XL_LOSSLESS, **said))
    assert child.render(instance(tmp_path / "n.dcm")).height == RAMP.shape[0]


def streams():
    """The ramp in every encapsulated syntax that states its own size, and where that stands in the stream."""
    import imagecodecs

    uid, wide = "1.2.840.10008.1.2.", RAMP.astype("u2")
    j2k = bytes(imagecodecs.jpeg2k_encode(wide, codecformat="j2k", reversible=True, bitspersample=16))
    ht = bytes(imagecodecs.htj2k_encode(wide, reversible=True))
    jpeg, jls = bytes(imagecodecs.ljpeg_encode(wide, bitspersample=16)), bytes(imagecodecs.jpegls_encode(wide))
    xl = bytes(imagecodecs.jpegxl_encode(wide, lossless=True))
    return [
        (uid + "4.90", j2k, j2k.index(b"\xff\x51") + 6, struct.pack(">2I", 20_000, 20_000)),
        (uid + "4.201", ht, ht.index(b"\xff\x51") + 6, struct.pack(">2I", 20_000, 20_000)),
        (uid + "4.70", jpeg, jpeg.index(b"\xff\xc3") + 5, struct.pack(">2H", 20_000, 20_000)),
        (uid + "4.80", jls, jls.index(b"\xff\xf7") + 5, struct.pack(">2H", 20_000, 20_000)),
        (JPEG_XL_LOSSLESS, xl, 2, (0b0_11 << 1 | (1 << 28) << 3).to_bytes(5, "little")),
    ]


@pytest.mark.parametrize(("syntax", "stream", "at", "size"), streams(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_stream_larger_than_its_header_costs_nothing(fresh_child, tmp_path, syntax, stream, at, size):
    plain = fresh_child.render(instance(tmp_path / "n.dcm"))
    before = peak_bytes(fresh_child.pid)
    assert fresh_child.render(coded(tmp_path / "s.dcm", stream, syntax)).png == plain.png
    forged = stream[:at] + size + stream[at + len(size) :]
    with pytest.raises(InvalidInstance) as told:
        fresh_child.render(coded(tmp_path / "f.dcm", forged, syntax))
    assert told.value.facts["cause"] == "decoder"
    whole = (tmp_path / "s.dcm").read_bytes()
    (tmp_path / "c.dcm").write_bytes(whole[: -len(stream) // 2])
    with pytest.raises(InvalidInstance):
        fresh_child.render(tmp_path / "c.dcm")
    assert peak_bytes(fresh_child.pid) < before + 32 * 1024**2
    assert fresh_child.render(tmp_path / "n.dcm").png == plain.png


def test_frames_that_inflate_too_far_and_fragments_without_end_are_refused(fresh_child, tmp_path):
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    endless = coded(tmp_path / "e.dcm", b"xx", RLELossless)
    with endless.open("r+b") as out:
        out.seek(-8, os.SEEK_END)  # over the delimiter
        out.write(b"\xfe\xff\x00\xe0\0\0\0\0" * 1_500_000)
    began = time.monotonic()
    for path in (coded(tmp_path / "b.dcm", bomb, DEFLATED_FRAME), endless):
        with pytest.raises(InvalidInstance) as told:
            fresh_child.render(path)
        assert told.value.facts["cause"] == "decoder"
    assert peak_bytes(fresh_child.pid) < 400 * 1024**2
    assert time.monotonic() - began < 20
    fresh_child.render(instance(tmp_path / "n.dcm"))


def test_any_window_and_frame_of_a_film_without_an_offset_table(child, tmp_path):
    packed = [zlib.compress(np.roll(RAMP, n, axis=0).tobytes(), wbits=-15) for n in range(7)]
    path = coded(tmp_path / "film.dcm", b"xx", DEFLATED_FRAME, NumberOfFrames=7)
    head = path.read_bytes()
    whole = head[: head.rindex(b"\xe0\x7f\x10\x00") + 12] + encapsulate(packed, has_bot=False)
    path.write_bytes(whole)
    for frame in (6, 0, 3):
        plain = instance(tmp_path / f"{frame}.dcm", np.roll(RAMP, frame, axis=0))
        for window in (None, (500, 300)):
            assert child.render(path, frame=frame, window=window).png == child.render(plain, window=window).png


def test_what_nothing_decodes_is_refused_by_its_name(child, tmp_path):
    for uid, words in {
        "1.2.840.10008.1.2.4.102": "MPEG-4 AVC/H.264 High Profile / Level 4.1 (1.2.840.10008.1.2.4.102)",
        "1.2.840.10008.1.2.4.92": "JPEG 2000 Part 2",
        "1.2.3.4": "the transfer syntax 1.2.3.4.",
        "../../evil": "which is no UID",
    }.items():
        with pytest.raises(UnsupportedInstance) as told:
            child.render(coded(tmp_path / "u.dcm", b"xx", uid))
        assert words in told.value.message
        assert told.value.facts["cause"] == "transfer_syntax"


@pytest.mark.slow
def test_plain_frames_are_read_as_pydicom_reads_them():
    if not SAMPLES.is_dir():
        pytest.skip("the sample files are not at hand")
    from pydicom.pixels import pixel_array

    from worker.opened import open_instance
    from worker.rendering import levels_of

    compared = 0
    for path in sorted(p for p in SAMPLES.rglob("*") if p.is_file()):
        try:
            opened = open_instance(path)
            theirs = pixel_array(path, index=0)
        except Exception:  # noqa: BLE001  of broken files: another test's subject
            continue
        if (frame := opened._native(0)) is None:
            continue
        ours, _ = levels_of(frame, opened.attributes(0), None, native=True)
        if not opened.attributes(0).shift:
            assert (ours == levels_of(theirs, opened.attributes(0), None, native=True)[0]).all(), path
            compared += 1
    assert compared > 60
