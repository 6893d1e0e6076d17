"""Frames on the wire, and a child that is watched, blamed and replaced."""

import io
import os
import sys
import threading
import time

import pytest

from record.errors import InvalidInstance, Misconfigured, UnsupportedInstance
from record.pipes import MAX_HEADER_BYTES, PREFIX, DecodingChild, pack, read_frame, unpack_prefix, write_frame

FAKE = """
import os, signal, sys, time
from record.pipes import read_frame, write_frame
out = sys.stdout.buffer
write_frame(out, {"hello": 1})
while (asked := read_frame(sys.stdin.buffer)) is not None:
    op, once = asked[0]["op"], asked[0].get("once", "")
    if once and os.path.exists(once):
        op = "echo"
    elif once:
        open(once, "w").close()
    if op == "echo":
        write_frame(out, {"pid": os.getpid(), "env": sorted(os.environ), "cpu_s": asked[0].get("cpu_s", 0)}, b"bytes")
    elif op == "exit":
        os._exit(3)
    elif op == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif op == "hang":
        signal.pause()
    elif op == "babble":
        out.write(b"Segmentation fault, said the library, quite at length"); out.flush()
    elif op == "boast":
        from record.pipes import PREFIX, MAGIC
        out.write(PREFIX.pack(MAGIC, 2, 1 << 60) + b"{}"); out.flush()
    elif op == "half":
        from record.pipes import PREFIX, MAGIC
        out.write(PREFIX.pack(MAGIC, 2, 1000) + b"{}" + b"x"); out.flush()
    elif op == "refuse":
        write_frame(out, {"error": asked[0]["code"], "message": "No.", "cause": "why"})
"""


@pytest.fixture
def child(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    with DecodingChild(1 << 30, 60, 5, command=[sys.executable, "-c", FAKE]) as fake:
        yield fake


def pid(child):
    return child.call({"op": "echo"}, 20)[0]["pid"]


def test_frames_survive_the_wire():
    stream = io.BytesIO()
    write_frame(stream, {"a": 1, "text": "ä"}, b"\x00\xff")
    write_frame(stream, {})
    stream.seek(0)
    assert read_frame(stream) == ({"a": 1, "text": "ä"}, b"\x00\xff")
    assert read_frame(stream) == ({}, b"")
    assert read_frame(stream) is None
    assert read_frame(io.BytesIO(pack({"a": 1}, b"long")[:-1])) is None


@pytest.mark.parametrize(
    "prefix", [b"\x00" * 16, PREFIX.pack(b"csf1", MAX_HEADER_BYTES + 1, 0), PREFIX.pack(b"csf1", 2, 1 << 60)]
)
def test_what_is_no_frame_or_too_large_is_refused(prefix):
    with pytest.raises(ValueError, match="not a frame"):
        unpack_prefix(prefix)
    with pytest.raises(ValueError, match="not a frame header"):
        read_frame(io.BytesIO(PREFIX.pack(b"csf1", 2, 0) + b"[]"))


def test_a_child_answers_and_stays(child):
    header, payload = child.call({"op": "echo"}, 20)
    assert payload == b"bytes"
    assert "cpu_s" not in header
    assert pid(child) == header["pid"] == child.pid
    assert child.confinement == {"hello": 1}


def test_a_child_is_given_no_secret(child, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("COUNTERSIGN_SECRETS", "/secret")
    told = child.call({"op": "echo"}, 20)[0]["env"]
    assert not {"DATABASE_URL", "COUNTERSIGN_SECRETS"} & set(told)


@pytest.mark.parametrize(
    ("op", "cause"), [("exit", "ended"), ("kill", "ended"), ("babble", "malformed"), ("boast", "malformed")]
)
def test_a_frame_that_ends_the_child_is_undecodable_and_the_next_is_answered(child, op, cause):
    first = pid(child)
    with pytest.raises(InvalidInstance) as told:
        child.call({"op": op}, 20)
    assert told.value.facts["cause"] == cause
    assert told.value.facts["reason_code"] == "undecodable"
    assert not isinstance(told.value, UnsupportedInstance)
    assert pid(child) != first


@pytest.mark.parametrize("op", ["hang", "half"])
def test_a_child_that_takes_too_long_is_replaced(child, op):
    first, began = pid(child), time.monotonic()
    with pytest.raises(InvalidInstance) as told:
        child.call({"op": op}, 0.2)
    assert told.value.facts["cause"] == "timeout"
    assert time.monotonic() - began < 5
    assert pid(child) != first


def test_a_child_that_was_killed_from_outside_is_asked_once_more(child, tmp_path):
    first = pid(child)
    header, _ = child.call({"op": "kill", "once": str(tmp_path / "mark")}, 20)
    assert header["pid"] != first


def test_a_child_found_dead_is_replaced_without_a_word(child):
    first = pid(child)
    os.kill(first, 9)
    assert pid(child) != first


@pytest.mark.parametrize(("code", "expected"), [("unsupported", UnsupportedInstance), ("undecodable", InvalidInstance)])
def test_refusals_become_errors_of_the_house(child, code, expected):
    first = pid(child)
    with pytest.raises(expected) as told:
        child.call({"op": "refuse", "code": code}, 20)
    assert type(told.value) is expected
    assert told.value.facts == {"reason_code": code, "cause": "why", "error_type": ""}
    assert pid(child) == first


def test_a_worn_child_is_replaced(child):
    assert len({pid(child) for _ in range(5)}) == 1
    assert len({pid(child) for _ in range(5)}) == 1
    before = pid(child)
    child.call({"op": "echo", "cpu_s": 30}, 20)
    assert pid(child) != before


def test_threads_share_a_child_and_their_end_does_not_end_it(child):
    answers = []
    for _ in range(2):
        threads = [threading.Thread(target=lambda: answers.append(pid(child))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1


@pytest.mark.parametrize("command", [[sys.executable, "-c", "pass"], ["/nonexistent/python"]])
def test_a_child_that_does_not_start_says_what_to_do(command):
    with DecodingChild(1 << 30, 60, command=command) as broken, pytest.raises(Misconfigured, match="--check"):
        broken.start()
