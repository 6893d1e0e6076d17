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
import os
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from record.pipes import read_frame, write_frame

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
    import worker.operations

    worker.codecs.register()
    imagecodecs.jpeg8_version()  # its codecs load on first use
    warnings.simplefilter("ignore")  # pydicom's warnings quote the value


def answer(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Answer one request, with a picture or a refusal."""
    from record.errors import CountersignError, UnsupportedInstance
    from worker.operations import OPERATIONS

    try:
        operation = OPERATIONS.get(str(request.get("op")))
        if operation is None:
            return _refusal("unsupported", "The decoding child has no such operation.", "operation")
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
