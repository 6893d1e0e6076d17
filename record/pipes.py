"""Length-prefixed frames over pipes, and the client of the warm child that decodes pixels.

Knows how a frame looks on the wire, how the child is started, watched, replaced and blamed. Does not know DICOM, and
never imports the child: it is started by name, as a process of its own. Gateway and worker both hold such children.

A frame is a fixed prefix (`PREFIX`), a JSON header and raw bytes. One question is on its way at a time; a child that
crashes, overruns its time or breaks the form is killed and the next question meets a fresh one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from record.errors import CountersignError, InvalidInstance, Misconfigured, UnsupportedInstance
from record.states import ReasonCode

PREFIX = struct.Struct(">4sIQ")
"""Magic, bytes of the header, bytes of the payload."""
MAGIC = b"csf1"
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 29
START_TIMEOUT_S = 120.0
"""A child imports numpy and the codecs before it says hello: a second at ease, much longer on a crowded machine."""
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR")
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
"""Signals that no decoder raises by itself: the frame is tried once more before it is blamed."""


class _Broken(Exception):  # never leaves this module: the child did not answer
    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def pack(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return PREFIX.pack(MAGIC, len(encoded), len(payload)) + encoded + payload


def unpack_prefix(prefix: bytes) -> tuple[int, int]:
    """How many bytes of header and of payload follow.

    Raises
    ------
    ValueError
        These bytes begin no frame, or one larger than is taken.
    """
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ValueError("not a frame")
    return header_bytes, payload_bytes


def unpack_header(encoded: bytes) -> dict[str, Any]:
    """The header of a frame.

    Raises
    ------
    ValueError
        It is no JSON object.
    """
    header = json.loads(encoded)
    if not isinstance(header, dict):
        raise ValueError("not a frame header")  # noqa: TRY004  # one error for every malformed frame
    return header


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next frame of a blocking stream, or None where the stream ends (before a frame, or within one).

    Raises
    ------
    ValueError
        What came is no frame.
    """
    prefix = stream.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header_bytes, payload_bytes = unpack_prefix(prefix)
    encoded, payload = stream.read(header_bytes), stream.read(payload_bytes)
    if len(encoded) < header_bytes or len(payload) < payload_bytes:
        return None
    return unpack_header(encoded), payload


def write_frame(stream: BinaryIO, header: Mapping[str, Any], payload: bytes = b"") -> None:
    """Write one frame to a blocking stream."""
    stream.write(pack(header, payload))
    stream.flush()


@dataclass(frozen=True, slots=True)
class Rendered:
    """One frame as a picture.

    Attributes
    ----------
    png
        Grey or RGB, 8 bits, `height` × `width`.
    transform
        Every step from stored values to grey levels, as plain values: the picture's provenance.
    pixel_digest
        sha256 of the decoded frame before any display step.
    blank
        The picture shows nothing: one grey level, or nearly.
    """

    png: bytes
    height: int
    width: int
    transform: Mapping[str, Any]
    pixel_digest: str
    blank: bool


class DecodingChild:
    """One warm child that decodes and renders, replaced when it is worn, slow or dead. Safe to share among threads.

    Parameters
    ----------
    memory_bytes
        Address space the child allows itself.
    cpu_s
        CPU seconds the child allows itself in its whole life; it is replaced at half of them, so one frame has at
        least the other half.
    max_frames
        Frames after which it is replaced, so that what leaks does not grow.
    command
        Another child that speaks the same frames; for tests.
    """

    def __init__(
        self, memory_bytes: int, cpu_s: int, max_frames: int = 200, *, command: Sequence[str] | None = None
    ) -> None:
        self._command = command or (
            *(sys.executable, "-P", "-m", "worker.decoding"),
            *("--memory-bytes", str(memory_bytes), "--cpu-s", str(cpu_s), "--parent", str(os.getpid())),
        )
        self._cpu_s = cpu_s
        self._max_frames = max_frames
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._frames = 0
        self._used_cpu_s = 0.0
        self.confinement: Mapping[str, Any] = {}
        """What the running child said it denied itself."""

    @property
    def pid(self) -> int | None:
        """The running child, if there is one."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Start the child now, so that the first question does not wait for it."""
        with self._lock:
            self._running(time.monotonic() + START_TIMEOUT_S)

    def render(
        self,
        path: Path,
        *,
        frame: int = 0,
        window: str | Sequence[str | float] | None = None,
        max_side: int | None = None,
        timeout_s: float = 60.0,
        more: Sequence[tuple[Path, int]] = (),
        columns: int = 1,
        region: Sequence[int] | None = None,
        state: Path | None = None,
    ) -> Rendered:
        """Decode one frame of a stored instance and render it.

        Parameters
        ----------
        frame
            Counted from 0.
        window
            Centre and width in modality values, a window's name (with the greatest value that it shows, of counts), or None
            for the file's own.
        max_side
            Pixels of the longer side; larger pictures are reduced, smaller ones are left.
        more, columns
            Frames that follow on the same picture, so many in a row: a montage.
        region
            Left, top, width and height of a part of a whole slide's level, instead of one frame.
        state
            A presentation state whose transforms take the place of the file's.

        Raises
        ------
        InvalidInstance, UnsupportedInstance
            As `call`.
        """
        request = {
            "op": "render",
            "path": str(path),
            "frame": frame,
            "window": window if window is None or isinstance(window, str) else list(window),
            "max_side": max_side,
            "more": [[str(other), number] for other, number in more],
            "columns": columns,
            "region": list(region) if region is not None else None,
            "state": str(state) if state is not None else None,
        }
        header, png = self.call(request, timeout_s)
        return Rendered(
            png=png,
            height=int(header["height"]),
            width=int(header["width"]),
            transform=header["transform"],
            pixel_digest=str(header["pixel_digest"]),
            blank=bool(header["blank"]),
        )

    def call(self, request: Mapping[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Ask one question.

        A child killed from outside (the kernel out of memory, an operator) is replaced and asked once more: only a
        frame that ends two children is blamed.

        Raises
        ------
        InvalidInstance
            The frame cannot be decoded, or it ended the child: `cause` says how, `reason_code` is `undecodable`.
        UnsupportedInstance
            Well-formed, but nothing here reads it; `reason_code` is `unsupported`.
        Misconfigured
            No child can be started.
        """
        with self._lock:
            for attempt in (1, 2):
                child = self._running(time.monotonic() + START_TIMEOUT_S)
                try:
                    header, payload = self._exchange(child, pack(request), time.monotonic() + timeout_s)
                except _Broken as broken:
                    status = self._discard(ending=broken.cause == "ended")
                    if attempt == 1 and broken.cause == "ended" and -(status or 0) in _FROM_OUTSIDE:
                        continue
                    raise _blamed(broken.cause, status) from None
                self._frames += 1
                self._used_cpu_s = float(header.pop("cpu_s", 0.0))
                if "error" in header:
                    raise _answered(header)
                return header, payload
        raise AssertionError("unreachable")  # pragma: no cover  # the second attempt answers or raises

    def close(self) -> None:
        """End the child; the next question would start another."""
        with self._lock:
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self, deadline: float) -> subprocess.Popen[bytes]:
        worn = self._frames >= self._max_frames or self._used_cpu_s * 2 >= self._cpu_s
        if self._child is not None and (worn or self._child.poll() is not None):
            self._discard()
        if self._child is not None:
            return self._child
        try:
            self._child = child = _starter().submit(_start, self._command).result()
            self.confinement, _ = self._receive(child, deadline)
        except (_Broken, OSError) as error:
            status = self._discard(ending=True)
            message = "The decoding child does not start. Try `python -P -m worker.decoding --check` by hand."
            raise Misconfigured(message, exit_status=status, error_type=type(error).__name__) from None
        return child

    def _discard(self, *, ending: bool = False) -> int | None:
        child, self._child = self._child, None
        self._frames, self._used_cpu_s = 0, 0.0
        if child is None:
            return None
        if ending:  # its pipe is at the end, its exit status a moment away
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1.0)
        if child.poll() is None:
            child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return child.wait()

    def _exchange(self, child: subprocess.Popen[bytes], frame: bytes, deadline: float) -> tuple[dict[str, Any], bytes]:
        assert child.stdin is not None  # noqa: S101  # Popen was given pipes
        unsent = memoryview(frame)
        while unsent:
            _await(child.stdin.fileno(), select.POLLOUT, deadline)
            try:
                unsent = unsent[os.write(child.stdin.fileno(), unsent) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _Broken("ended") from None
        return self._receive(child, deadline)

    def _receive(self, child: subprocess.Popen[bytes], deadline: float) -> tuple[dict[str, Any], bytes]:
        assert child.stdout is not None  # noqa: S101  # Popen was given pipes
        descriptor = child.stdout.fileno()
        try:
            header_bytes, payload_bytes = unpack_prefix(_read(descriptor, PREFIX.size, deadline))
            header = unpack_header(_read(descriptor, header_bytes, deadline))
        except (ValueError, RecursionError):
            raise _Broken("malformed") from None
        return header, _read(descriptor, payload_bytes, deadline)


def _read(descriptor: int, count: int, deadline: float) -> bytes:
    """Exactly `count` bytes, taken as they come: a length that a child merely claims costs nothing."""
    parts, missing = [], count
    while missing:
        _await(descriptor, select.POLLIN, deadline)
        try:
            part = os.read(descriptor, min(missing, 1 << 20))
        except BlockingIOError:
            continue
        if not part:
            raise _Broken("ended")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _await(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    remaining = deadline - time.monotonic()
    if remaining <= 0 or not poll.poll(remaining * 1000):
        raise _Broken("timeout")


def _blamed(cause: str, status: int | None) -> CountersignError:
    if cause == "ended" and status is not None and -status == signal.SIGXCPU:
        cause = "cpu_limit"
    message = "The frame ended the process that decoded it (or overran its limits), so it counts as undecodable."
    return InvalidInstance(message, reason_code=ReasonCode.UNDECODABLE, cause=cause, exit_status=status)


def _answered(header: Mapping[str, Any]) -> CountersignError:
    facts = {"cause": str(header.get("cause", "")), "error_type": str(header.get("error_type", ""))}
    if header["error"] == "unsupported":
        return UnsupportedInstance(str(header["message"]), reason_code=ReasonCode.UNSUPPORTED, **facts)
    return InvalidInstance(str(header["message"]), reason_code=ReasonCode.UNDECODABLE, **facts)


_starters: dict[int, concurrent.futures.ThreadPoolExecutor] = {}


def _starter() -> concurrent.futures.ThreadPoolExecutor:
    """The one long-lived thread of this process that starts children.

    A child asks the kernel to be killed when its parent dies, and to the kernel the parent is the *thread* that
    started it (prctl(2), PR_SET_PDEATHSIG): request threads come and go. Kept by process, so a fork has its own.
    """
    fresh = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")  # no thread before its use
    return _starters.setdefault(os.getpid(), fresh)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a child with pipes of its own, none of our environment's secrets, and nowhere to write words to."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # address space, cores
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a library's complaint quotes the value it dislikes
        env=environment,
        bufsize=0,
    )
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
    return child
