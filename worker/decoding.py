"""The limited child that decodes and renders: `python -P -m worker.decoding`. Only pictures cross its pipe.

Knows how to deny itself what it does not need, before it reads the first byte, and how to turn a stored instance into a
picture or a refusal. Does not know the database, the store's layout or any secret (its environment holds none). What it
says of a failure are codes and sizes, never a value of the instance.

Covered: address space, CPU seconds, open files, files written (none), core dumps, a parent's death, new privileges.
Covered where the kernel lets an ordinary user have it (the greeting says whether): no network, by an empty network
namespace. Not covered: system calls as such (no seccomp filter), and files that our own user may read.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import io
import os
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from record.pipes import read_frame, write_frame

if TYPE_CHECKING:  # numpy and pydicom start threads or take time: they load after the child has left the network
    from numpy.typing import NDArray
    from pydicom.dataset import FileDataset

    from worker.attributes import FrameAttributes, Lut, Window
    from worker.rendering import Span

MAX_FRAME_SAMPLES = 64_000_000
"""Samples of one frame: a mammogram has 30 million."""
MAX_FRAMES = 100_000
MAX_FILE_DESCRIPTORS = 64
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def leave_network() -> str:
    """Move into an empty network namespace; return ``none`` where that worked and ``open`` where it is not allowed.

    Must come first: the kernel refuses a new user namespace to a process with threads (unshare(2)).
    """
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        return "open"
    # A new user namespace is what lets an ordinary user do it; root would lose the right to read others' files by it.
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
    return "none" if unshare(flags) == 0 else "open"


def limit(*, memory_bytes: int, cpu_s: int, parent: int) -> None:
    """Deny this process more than it needs; it cannot be taken back."""
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # core patterns with a pipe ignore RLIMIT_CORE
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # after the namespace: a change of credentials clears it
    if parent and os.getppid() != parent:
        sys.exit(0)  # it died before the kernel was asked to tell
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write to a file fails instead of killing
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    for what, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, MAX_FILE_DESCRIPTORS, MAX_FILE_DESCRIPTORS),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 5),  # SIGXCPU, then SIGKILL
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
    ):
        _, most = resource.getrlimit(what)
        bound = [v if most == resource.RLIM_INFINITY else min(v, most) for v in (soft, hard)]
        resource.setrlimit(what, (bound[0], bound[1]))


def warm_up() -> None:
    """Import everything a frame may need while there is still room and time."""
    import imagecodecs
    import jpeg_ls  # noqa: F401
    import openjpeg  # noqa: F401
    import PIL.PngImagePlugin  # noqa: F401
    import pydicom.pixels  # noqa: F401

    import worker.codecs
    import worker.rendering

    worker.codecs.register()
    imagecodecs.jpeg8_version()  # its codecs load on first use
    warnings.simplefilter("ignore")  # pydicom's warnings quote the value


def answer(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Answer one request, with a picture or a refusal."""
    from record.errors import CountersignError, UnsupportedInstance

    try:
        operation = {"render": render_file, "show": show_file, "describe": describe_file}.get(str(request.get("op")))
        if operation is None:
            return _refusal("unsupported", "The decoding child knows render, show and describe.", "operation")
        return operation(request)
    except UnsupportedInstance as error:
        return _refusal("unsupported", error.message, str(error.facts.get("cause", "")))
    except CountersignError as error:
        return _refusal("undecodable", error.message, str(error.facts.get("cause", "")))
    except MemoryError:
        return _refusal("undecodable", "Decoding this frame needs more memory than a child may take.", "memory")
    except Exception as error:  # noqa: BLE001  # the child's door: any decoder's complaint is an answer
        message = "The frame cannot be decoded: its header and its pixel data do not fit together."
        return _refusal("undecodable", message, "decoder", type(error).__name__)


def render_file(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Decode and render one frame of a file for the model: the header of the answer and the PNG."""
    import numpy as np
    from PIL import Image

    from worker.rendering import render

    opened = _open(request)
    frame = _decode(opened)
    plain = np.ascontiguousarray(frame, frame.dtype.newbyteorder("<"))  # (rows, columns) or (rows, columns, 3)
    digest = hashlib.sha256(plain.data).hexdigest()
    rendering = render(
        frame,
        opened.attributes,
        window=_window(request.get("window")),
        max_side=request.get("max_side"),
        native=opened.is_native,
    )
    png = io.BytesIO()
    Image.fromarray(rendering.pixels).save(png, "PNG", compress_level=4)
    height, width, _ = rendering.pixels.shape
    header = {
        "height": height,
        "width": width,
        "blank": rendering.blank,
        "pixel_digest": digest,
        "transform": {"transfer_syntax_uid": opened.syntax, "frame": opened.index, **rendering.transform},
    }
    return header, png.getvalue()


def show_file(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Decode and render one frame of a file for a person: the header of the answer and the PNG.

    A view that does not fit the frame is an answer too: `refused` says why, and there is no PNG.
    """
    import imagecodecs

    from worker.rendering import show

    opened = _open(request)
    asked = request.get("view") or {}
    refused = _misfit(asked, opened.attributes) or (
        "colour" if request.get("invert") and not opened.attributes.is_grey else None
    )
    if refused:
        return {"refused": refused}, b""
    rendering = show(
        _decode(opened),
        opened.attributes,
        view=_view(asked, opened.attributes),
        max_side=request.get("max_side"),
        invert=bool(request.get("invert")),
        native=opened.is_native,
    )
    height, width = rendering.pixels.shape[:2]
    return {"height": height, "width": width}, bytes(imagecodecs.png_encode(rendering.pixels, level=1))


def describe_file(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What can be asked of one frame, and what a person should know of it; no pixel is decoded."""
    from worker.attributes import Window
    from worker.codecs import LOSSY

    opened = _open(request)
    attributes = opened.attributes
    stated = str(opened.ds.get("LossyImageCompression") or "").strip()
    sent = [
        {
            "explanation": explanation,
            "center": view.center if isinstance(view, Window) else None,
            "width": view.width if isinstance(view, Window) else None,
        }
        for view, explanation in zip(attributes.sent, attributes.explanations, strict=True)
    ]
    header = {
        "grey": attributes.is_grey,
        "hounsfield": attributes.hounsfield,
        "sent": sent if attributes.is_grey else [],
        "lossy": stated == "01" or (opened.syntax in LOSSY and stated != "00"),
    }
    return header, b""


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    path: Path
    index: int
    syntax: str
    ds: FileDataset
    attributes: FrameAttributes

    @property
    def is_native(self) -> bool:
        from worker.codecs import NATIVE

        return self.syntax in NATIVE


def _open(request: Mapping[str, Any]) -> _Opened:
    """The header of the file that is asked about, once it is known to cost little."""
    from pydicom import dcmread

    from worker.attributes import TAGS, frame_attributes

    path, index = Path(request["path"]), int(request.get("frame", 0))
    syntax = _transfer_syntax(path)
    ds = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
    _check_geometry(ds, index)
    attributes = frame_attributes(ds, index, little_endian=not syntax.endswith("1.2.2"))
    return _Opened(path, index, syntax, ds, attributes)


def _decode(opened: _Opened) -> NDArray[Any]:
    """The stored values, (rows, columns) or (rows, columns, 3)."""
    from pydicom.pixels import pixel_array

    from worker.codecs import DECODERS

    options: dict[str, Any] = {}
    if opened.is_native and opened.attributes.shift and opened.attributes.samples_per_pixel == 1:
        # pydicom knows no High Bit: take all bits, shift here
        options["bits_stored"] = opened.attributes.bits_allocated
    return pixel_array(opened.path, index=opened.index, decoding_plugin=DECODERS[opened.syntax], **options)


def _misfit(asked: Mapping[str, Any], attributes: FrameAttributes) -> str | None:
    """Why a view does not fit a frame."""
    kind = asked.get("kind")
    if kind == "window" and not attributes.is_grey:
        return "colour"
    if kind == "window" and asked.get("hounsfield") and not attributes.hounsfield:
        return "not_hounsfield"
    if kind == "sent" and not 1 <= int(asked["number"]) <= max(1, len(attributes.sent)):
        return "not_sent"
    return None


def _view(asked: Mapping[str, Any], attributes: FrameAttributes) -> Window | Lut | Span | None:
    from worker.attributes import Window
    from worker.rendering import Span

    kind = asked.get("kind")
    if kind == "span":
        return Span(float(asked["low"]), float(asked["high"]))
    if kind == "window":
        center, width = float(asked["center"]), float(asked["width"])
        # LINEAR needs a width of 1 or more (PS3.3 C.11.2.1.2.1)
        return Window(center, width, "LINEAR" if width >= 1 else "LINEAR_EXACT", source="request")
    if kind == "sent" and attributes.sent:
        return attributes.sent[int(asked["number"]) - 1]
    return None


def _transfer_syntax(path: Path) -> str:
    """The transfer syntax, asked of the file meta alone: a deflated data set must not be inflated to find out."""
    from pydicom.filereader import read_file_meta_info

    from worker.codecs import DECODERS

    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax not in DECODERS:
        raise _unsupported("No decoder here reads this transfer syntax.", "transfer_syntax")
    return syntax


def _check_geometry(ds: FileDataset, index: int) -> None:
    """Refuse by the header what would cost too much, or is no picture, before a byte of it is decoded."""
    from record.errors import InvalidInstance

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
        raise _unsupported("Pictures have 1 or 3 samples of 8, 16, 32 or 64 bits.", "sample")
    if rows * columns * samples > MAX_FRAME_SAMPLES or not 0 < frames <= MAX_FRAMES:
        raise _unsupported(f"A frame may have {MAX_FRAME_SAMPLES} samples at most.", "geometry")
    if not 0 <= index < frames:
        raise InvalidInstance("The instance has no frame of this number.", cause="frame")


def _unsupported(message: str, cause: str) -> Exception:
    from record.errors import UnsupportedInstance

    return UnsupportedInstance(message, cause=cause)


def _window(asked: Any) -> Any:
    from worker.attributes import Window
    from worker.rendering import named_window

    if asked is None or isinstance(asked, str):
        return None if asked is None else named_window(asked)
    center, width = (float(v) for v in asked)
    return Window(center, max(width, 1.0), source="request")


def _refusal(code: str, message: str, cause: str, error_type: str = "") -> tuple[dict[str, Any], bytes]:
    return {"error": code, "message": message, "cause": cause, "error_type": error_type}, b""


def main(arguments: list[str] | None = None) -> None:
    """Confine this process, greet, then answer until the pipe ends."""
    parser = argparse.ArgumentParser(prog="python -P -m worker.decoding", description="Decodes frames for its parent.")
    parser.add_argument("--memory-bytes", type=int, default=3 * 1024**3)
    parser.add_argument("--cpu-s", type=int, default=120)
    parser.add_argument("--parent", type=int, default=0, help="end if this is not the parent process")
    parser.add_argument("--check", action="store_true", help="confine, print what is covered, and end")
    given = parser.parse_args(arguments)
    greeting = {"network": leave_network(), "memory_bytes": given.memory_bytes, "cpu_s": given.cpu_s}
    warm_up()
    if given.check:
        sys.stdout.write(f"{greeting}\n")
        sys.stdout.flush()  # once limited, not even a redirected output can be written
    limit(memory_bytes=given.memory_bytes, cpu_s=given.cpu_s, parent=given.parent)
    if given.check:
        return
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # what a library prints must not fall between two frames
    with contextlib.suppress(BrokenPipeError, ValueError):  # the parent is gone, or talks nonsense
        write_frame(answers, greeting)
        while (asked := read_frame(questions)) is not None:
            header, payload = answer(asked[0])
            write_frame(answers, {**header, "cpu_s": round(sum(os.times()[:2]), 2)}, payload)
    os._exit(0)  # no finalizer of a codec is worth waiting for


if __name__ == "__main__":
    main()
