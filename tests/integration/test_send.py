"""Files sent by command to a real listener, and to others that hang up, refuse, or stand still."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from pynetdicom import AE, evt

from gateway.commands.sent import Journal
from gateway.commands.transfer import _chained
from gateway.dicom.calling import Destination, unreachable
from gateway.dicom.outgoing import Found, Outcome, Outgoing, Told, describe, find
from gateway.dicom.send import Retries, deliver
from gateway.launcher.processes import free_port, wait_until
from tests.instances import BIG, CT, EXPLICIT, encoded, instance, saved
from tests.listeners import AET, Running, associate, listening, store_raw

pytestmark = pytest.mark.integration
QUICK = Retries(2, pause_s=0.05)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with listening(tmp_path_factory.mktemp("listener") / "spool") as running:
        yield running


def countersign(*arguments: object, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Run the command as a process that has no terminal."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COUNTERSIGN_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", *map(str, arguments)],
        input=stdin,
        env=kept | environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def told(listener: Running, *arguments: object, **more: object) -> tuple[int, list[dict[str, object]]]:
    code, out, _ = countersign("send", *arguments, "--to", f"127.0.0.1:{listener.port}", "--json", **more)  # type: ignore[arg-type]
    return code, [json.loads(line) for line in out.splitlines()]


def a_cd(folder: Path, images: int = 3) -> Path:
    """Images beside what else a medium holds."""
    folder.mkdir()
    (folder / "IMAGES").mkdir()
    for number in range(images):
        saved(folder / "IMAGES", instance(), f"I{number:03}")
    (folder / "README.TXT").write_text("Insert the disc.")
    (folder / ".DS_Store").write_bytes(b"\0" * 100)
    (folder / "empty").touch()
    (folder / "elsewhere").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    directory = instance(SOPClassUID="1.2.840.10008.1.3.10")
    saved(folder, directory, "DICOMDIR")
    return folder


@pytest.mark.slow
def test_a_folder_is_sent_and_what_is_no_image_is_passed_over(listener: Running, tmp_path: Path) -> None:
    folder = a_cd(tmp_path / "cd")
    code, lines = told(listener, folder)
    assert code == 0, lines
    summary = lines.pop()["summary"]
    assert summary == {
        "accepted": 3,
        "not_dicom": 2,
        "passed_over": 4,
        "interrupted": False,
        **{name: summary[name] for name in ("bytes", "duration_s")},  # type: ignore[index]
    }
    assert {str(line["path"]).rpartition("/")[2] for line in lines if line["outcome"] == "accepted"} == {
        "I000", "I001", "I002"
    }  # fmt: skip
    code, out, err = countersign("send", folder, COUNTERSIGN_DICOM_PORT=str(listener.port))
    assert code == 0
    assert out.count("accepted: ") == 3
    assert "3 accepted" in err
    assert "\x1b" not in out + err, "no bar where there is no terminal"


@pytest.mark.slow
def test_what_cannot_be_sent_or_is_refused_is_told_and_makes_the_command_fail(
    listener: Running, tmp_path: Path
) -> None:
    fine = saved(tmp_path, instance())
    nameless = saved(tmp_path, instance(StudyInstanceUID=None), "nameless.dcm")
    private = saved(tmp_path, instance(SOPClassUID="1.3.46.670589.5.0.1.1"), "private.dcm")
    half = tmp_path / "half.dcm"
    half.write_bytes(fine.read_bytes()[:200])
    text = tmp_path / "\x1b[31mtext.dcm"
    text.write_text("no image")
    bare = tmp_path / "bare.img"
    bare.write_bytes(encoded(instance()))
    big = tmp_path / "big.img"
    big.write_bytes(encoded(instance(), BIG))
    code, lines = told(listener, tmp_path)
    assert code == 1
    ends = {str(line["path"]).rpartition("/")[2]: (line["outcome"], line["status"]) for line in lines[:-1]}
    assert ends == {
        fine.name: ("accepted", "0x0000"),
        "nameless.dcm": ("refused", "0xC000"),
        "private.dcm": ("no_context", None),
        "half.dcm": ("unusable", None),
        text.name: ("unusable", None),
        "bare.img": ("accepted", "0x0000"),
        "big.img": ("no_context", None),
    }
    code, out, err = countersign("send", nameless, private, text, "--to", f"127.0.0.1:{listener.port}")
    assert code == 1
    assert "0xC000 the receiver cannot understand it" in out
    assert "takes no 1.3.46.670589.5.0.1.1 in Explicit VR Little Endian" in out
    assert "\\x1b[31mtext.dcm" in out
    assert "\x1b" not in out + err


@pytest.mark.slow
def test_a_journal_lets_an_interrupted_transfer_go_on_and_a_changed_file_goes_again(
    listener: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    first, second = (saved(folder, instance(), name) for name in ("a.dcm", "b.dcm"))
    journal = tmp_path / "sent"
    code, lines = told(listener, first, "--journal", journal)
    assert (code, lines[0]["outcome"]) == (0, "accepted")
    code, lines = told(listener, folder, "--journal", journal)
    assert (code, [line["outcome"] for line in lines[:-1]]) == (0, ["sent_before", "accepted"])
    code, lines = told(listener, folder, "--journal", journal)
    assert (code, [line["outcome"] for line in lines[:-1]]) == (0, ["sent_before", "sent_before"])
    saved(folder, instance(), second.name)
    code, lines = told(listener, "--list", "-", "--journal", journal, stdin=f"{first}\n{second}\n".encode())
    assert (code, [line["outcome"] for line in lines[:-1]]) == (0, ["sent_before", "accepted"])


@pytest.mark.slow
def test_a_journal_on_a_full_disk_ends_no_transfer_and_says_what_it_lacks(listener: Running, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(3):
        saved(folder, instance(), f"{number}.dcm")
    journal, to = tmp_path / "journal", f"127.0.0.1:{listener.port}"
    line = f"{sys.executable} -P -m gateway send {folder} --to {to} --journal {journal}"

    def full(more: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", "-c", f"ulimit -f 0; exec {line} {more}"], capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    code, out, _ = full("--json")
    lines = [json.loads(each) for each in out.splitlines()]
    assert code == 1
    assert [line.get("outcome") for line in lines] == ["accepted"] * 3 + [None]
    assert lines[-1]["summary"]["not_in_journal"] == 3
    code, out, err = full()
    assert (code, out.count("accepted: ")) == (1, 3)
    assert "3 of the files that were accepted are not in it" in err
    assert "File too large" in err
    code, lines = told(listener, folder, "--journal", journal)
    assert (code, [line.get("outcome") for line in lines[:-1]]) == (0, ["accepted"] * 3)


def test_a_line_of_the_journal_that_was_cut_short_costs_that_one_file_alone(tmp_path: Path) -> None:
    path, where = tmp_path / "journal", Destination("127.0.0.1", 104, AET)
    ones = [describe(Found(saved(tmp_path, instance(), name))) for name in ("a", "b")]
    first, second = (one for one in ones if isinstance(one, Outgoing))

    def note(journal: Journal, one: Outgoing) -> None:
        assert journal.is_new(one)
        journal.note(Told(one.path, Outcome.ACCEPTED))

    note(Journal(path, where), first)
    path.write_bytes(path.read_bytes()[:-9])
    note(Journal(path, where), second)
    again = Journal(path, where)
    assert [again.is_new(one) for one in (first, second)] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"\n", b"\0"], ids=["a line each", "find -print0"])
def test_a_list_may_name_what_no_file_can_be_called_and_the_rest_is_sent(
    listener: Running, tmp_path: Path, end: bytes
) -> None:
    fine, strange = (
        saved(tmp_path, instance(), "a.dcm"),
        saved(tmp_path, instance(), "b\nc.dcm" if end == b"\0" else "b\rc"),
    )
    names = [bytes(fine), b"x" * 5000, bytes(tmp_path / "nowhere"), bytes(strange)]
    if end == b"\n":
        names = [*names[:1], b"y" * (1 << 17), *names[1:], b"nul\0within"]  # behind what is first looked at
    code, lines = told(listener, "--list", "-", stdin=end.join(names))
    ends = Counter(line.get("outcome") for line in lines[:-1])
    assert code == 1
    assert ends == {"accepted": 2, "unreadable": len(names) - 2}


@pytest.mark.slow
def test_a_list_from_a_standard_input_that_is_closed_is_a_mistake_told_in_a_sentence() -> None:
    line = f"{sys.executable} -P -m gateway send --list - --to 127.0.0.1:104 <&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_list_is_sent_while_it_is_written() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as listed, os.fdopen(writing, "wb", buffering=0) as written:
        named = _chained([], listed)
        for name in ("first", "second"):
            written.write(f"{name}\n".encode())
            assert next(named) == Path(name)
        written.write(b"third")
        written.close()
        assert list(named) == [Path("third")]


def test_a_folder_may_be_as_deep_as_a_file_system_lets_it_be() -> None:
    top = tempfile.mkdtemp()  # not pytest's, which removes a folder by recursion
    here = os.open(top, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("file", os.O_CREAT, dir_fd=here))
        (found,) = find([Path(top)])
    finally:
        os.close(here)
        subprocess.run(["rm", "-r", top], check=True)
    assert found.path.name == "file"
    assert len(found.path.parts) > 1500


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else")
def test_what_lies_in_a_folder_that_may_be_listed_and_not_entered_is_unreadable() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "listed"
        folder.mkdir()
        saved(folder, instance(), "a.dcm")
        (folder / "below").mkdir()
        folder.chmod(0o744)
        Path(made).chmod(0o755)
        os.seteuid(65534)
        try:
            ends = [each if isinstance(each, Told) else describe(each) for each in find([folder])]
        finally:
            os.seteuid(0)
    assert [(each.path.name, getattr(each, "outcome", None)) for each in ends] == [
        ("a.dcm", Outcome.UNREADABLE), ("below", Outcome.UNREADABLE)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_look_at_the_files_connects_to_nobody(tmp_path: Path) -> None:
    code, out, err = countersign("send", a_cd(tmp_path / "cd"), "--dry-run", "--to", "127.0.0.1:1")
    assert code == 0
    assert out.count("would be sent: ") == 3
    assert "CT Image Storage in Explicit VR Little Endian" in err
    code, _, err = countersign("send", tmp_path / "cd" / "IMAGES" / "..", "--to", "127.0.0.1:1", "--retries", "0")
    assert code == 1
    assert "3 not sent (nothing answers at 127.0.0.1 port 1)" in err


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_quietly(listener: Running, tmp_path: Path) -> None:
    folder = a_cd(tmp_path / "cd", images=30)
    line = f"{sys.executable} -P -m gateway send {folder} --to 127.0.0.1:{listener.port} | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr


@pytest.mark.slow
def test_echo_says_whether_a_listener_is_there_and_why_not(listener: Running) -> None:
    at = f"127.0.0.1:{listener.port}"
    assert countersign("echo", at)[0] == 0
    assert countersign("echo", COUNTERSIGN_DICOM_PORT=str(listener.port))[0] == 0
    code, _, err = countersign("echo", at, "--aet", "OTHER")
    assert code == 1
    assert "it is not called OTHER" in err
    code, _, err = countersign("echo", "127.0.0.1:1")
    assert (code, err) == (1, "countersign: nothing answers at 127.0.0.1 port 1\n")
    for nonsense in ("127.0.0.1", "127.0.0.1:0", ":104", "a:b"):
        assert countersign("echo", nonsense)[0] == 2


@pytest.mark.slow
def test_echo_is_no_better_than_send(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", open_peers=0) as strict:
        at = f"127.0.0.1:{strict.port}"
        assert unreachable(Destination("127.0.0.1", strict.port, AET)) == "", "the door answers its own machine"
        code, _, err = countersign("echo", at)
        assert (code, "does not know the calling AE title COUNTERSIGN" in err) == (1, True), err
        code, _, err = countersign("send", str(a_cd(tmp_path / "cd", images=1)), "--to", at)
        assert (code, "does not know the calling AE title COUNTERSIGN" in err) == (1, True), err


def test_a_request_that_names_no_known_class_is_answered_and_the_association_goes_on(listener: Running) -> None:
    association = associate(listener)
    ds = instance()
    assert store_raw(association, encoded(ds), sop_class_uid="31", sop_instance_uid=ds.SOPInstanceUID) in {
        0xA900,
        0xC000,
    }
    assert store_raw(association, encoded(ds), sop_instance_uid=ds.SOPInstanceUID) == 0
    association.release()


def test_a_sender_the_listener_does_not_know_is_told_so_at_once(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", open_peers=0) as strict:
        path = saved(tmp_path, instance())
        (told,) = deliver(find([path]), Destination("127.0.0.1", strict.port, AET, "STRANGER"), Retries(3, pause_s=60))
        code, out, err = countersign("send", path, "--to", f"127.0.0.1:{strict.port}", "--calling-aet", "STRANGER")
    assert told.outcome is Outcome.UNSENT
    assert "does not know the calling AE title STRANGER" in told.why
    assert told.permanent
    assert code == 1
    assert "does not know the calling AE title STRANGER" in out
    assert "refused every time until the reason above is changed" in err
    assert "send the same again" not in err


@pytest.mark.slow
def test_on_a_terminal_a_bar_runs_and_only_what_went_wrong_is_listed(listener: Running, tmp_path: Path) -> None:
    folder = a_cd(tmp_path / "cd")
    saved(folder, instance(StudyInstanceUID=None), "nameless.dcm")
    shown = bytearray()

    def show(descriptor: int) -> bytes:
        shown.extend(piece := os.read(descriptor, 1 << 16))
        return piece

    to = f"127.0.0.1:{listener.port}"
    status = pty.spawn([sys.executable, "-P", "-m", "gateway", "send", str(folder), "--to", to], show)
    text = shown.decode()
    assert os.waitstatus_to_exitcode(status) == 1
    assert "sending  [" in text
    assert "accepted: " not in text
    assert "refused: " in text
    assert "3 accepted" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"


# --- peers that are not ours --------------------------------------------------------------------------------------------


class Peer:
    """A peer that answers each C-STORE as told; None hangs up instead."""

    def __init__(
        self, *answers: int | None, contexts: tuple[tuple[str, str], ...] = ((CT, EXPLICIT),), hold: bool = False
    ) -> None:
        self._answers, self.asked, self.associations = list(answers), 0, 0
        self._hold, self.held = hold, threading.Event()
        ae = AE(AET)
        for class_uid, syntax in contexts:
            ae.add_supported_context(class_uid, syntax)
        self._server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ESTABLISHED, self._opened)],
        )
        assert self._server is not None
        self.port = self._server.server_address[1]

    def _opened(self, _event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        self.asked += 1
        if self._hold and not self._answers:  # nothing more is answered
            self.held.wait(30)
        answer = self._answers.pop(0) if self._answers else 0
        if answer is None:
            event.assoc.abort()
            return 0xC000
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def take(self, *paths: Path, retries: Retries = QUICK) -> list[Told]:
        return list(deliver(find(paths), Destination("127.0.0.1", self.port, AET, timeout_s=5), retries))


def files(folder: Path, number: int = 2) -> list[Path]:
    return [saved(folder, instance(), f"{n:03}.dcm") for n in range(number)]


def test_a_file_whose_connection_falls_is_sent_again_and_the_others_follow(tmp_path: Path) -> None:
    with Peer(0, None, None, 0) as peer:
        ends = peer.take(*files(tmp_path, 3))
    assert [t.outcome for t in ends] == [Outcome.ACCEPTED] * 3
    assert peer.asked == 5


def test_a_file_that_always_makes_the_peer_hang_up_is_given_up_and_the_others_are_sent(tmp_path: Path) -> None:
    with Peer(None, None, None, 0) as peer:
        ends = peer.take(*files(tmp_path))
    assert [t.outcome for t in ends] == [Outcome.LOST, Outcome.ACCEPTED]


def test_a_peer_without_room_is_asked_again_but_not_for_ever(tmp_path: Path) -> None:
    with Peer(0xA700, 0) as peer:
        assert [t.outcome for t in peer.take(*files(tmp_path, 1))] == [Outcome.ACCEPTED]
    with Peer(*[0xA701] * 5) as peer:
        ends = peer.take(*files(tmp_path, 4))
        assert [(t.outcome, t.status) for t in ends] == [
            (Outcome.REFUSED, 0xA701),
            (Outcome.REFUSED, 0xA701),
            (Outcome.REFUSED, 0xA701),
            (Outcome.ACCEPTED, 0),
        ]
        assert peer.asked == 6, "once it stayed full nobody waits again"
    assert "no room" in ends[0].why


def test_a_warning_counts_as_stored_and_says_what_it_means(tmp_path: Path) -> None:
    with Peer(0xB000, 0x0117) as peer:
        stored, refused = peer.take(*files(tmp_path))
    assert (stored.outcome, stored.status, stored.why) == (Outcome.ACCEPTED, 0xB000, "stored, some values were changed")
    assert refused.outcome is Outcome.REFUSED
    assert "UID is not valid" in refused.why


def test_a_peer_that_accepts_no_context_at_all_is_asked_once(tmp_path: Path) -> None:
    with Peer(contexts=((CT, "1.2.840.10008.1.2.4.50"),)) as peer:
        ends = peer.take(*files(tmp_path, 3))
    assert [t.outcome for t in ends] == [Outcome.NO_CONTEXT] * 3
    assert peer.associations == 1


@pytest.mark.slow
def test_files_of_one_kind_share_an_association_and_a_new_kind_opens_one(tmp_path: Path) -> None:
    other = "1.2.840.10008.5.1.4.1.1.4"
    with Peer(contexts=((CT, EXPLICIT), (other, EXPLICIT))) as peer:
        same = files(tmp_path, 300)
        last = saved(tmp_path, instance(SOPClassUID=other), "mr.dcm")
        ends = peer.take(*same, last)
    assert Counter(t.outcome for t in ends) == {Outcome.ACCEPTED: 301}
    assert peer.associations == 2


def test_the_first_file_is_sent_before_the_last_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (one,) = files(folder, 1)
    for number in range(1, 400):
        (folder / f"{number:03}.dcm").hardlink_to(one)
    seen: list[Path] = []

    def watched() -> Iterator[object]:
        for each in find([folder]):
            seen.append(each.path)
            yield each

    with Peer() as peer:
        results = deliver(watched(), Destination("127.0.0.1", peer.port, AET))  # type: ignore[arg-type]
        assert next(results).outcome is Outcome.ACCEPTED
        assert len(seen) < 200
        results.close()


@pytest.mark.slow
def test_an_interrupted_transfer_says_what_was_sent(tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    with Peer(0, hold=True) as peer:
        argv = [sys.executable, "-P", "-m", "gateway", "send", *map(str, paths), "--to", f"127.0.0.1:{peer.port}"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert wait_until(lambda: peer.asked == 2, within_s=30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        peer.held.set()
    assert process.returncode == 130
    assert out.count("accepted: ") == 1
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_peer_that_stops_reading_holds_nobody_for_ever(tmp_path: Path) -> None:
    big = saved(tmp_path, instance(side=3000), "big.dcm")
    with Peer() as peer, socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()
        threading.Thread(target=_stall, args=(server, peer.port, stop), daemon=True).start()
        to = Destination("127.0.0.1", server.getsockname()[1], AET, timeout_s=1)
        (told,) = deliver(find([big]), to, Retries(0))
        stop.set()
    assert (told.outcome, peer.asked) == (Outcome.LOST, 0)


def _stall(server: socket.socket, port: int, stop: threading.Event) -> None:
    """Let the association be opened, and read no more."""
    client, _ = server.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as upstream:
        upstream.sendall(client.recv(1 << 16))
        client.sendall(upstream.recv(1 << 16))
        stop.wait(30)


def test_nobody_there_is_said_with_the_address() -> None:
    port = free_port()
    assert unreachable(Destination("127.0.0.1", port, AET)) == f"nothing answers at 127.0.0.1 port {port}"
    assert unreachable(Destination("nowhere.invalid", 104, AET)) == "the name nowhere.invalid leads nowhere"
