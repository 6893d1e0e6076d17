"""The listener as a process of its own: real senders, hostile ones, and what is on the disk when it dies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.dicom import wire
from gateway.dicom.calling import answer_of
from gateway.dicom.listener import listen_at
from gateway.dicom.peers import KnownPeer, write_peers
from gateway.dicom.send import send
from gateway.indexer import arrival_of
from gateway.launcher.processes import wait_until
from record.errors import Misconfigured
from record.settings import ListenerSettings
from tests.conftest import missing
from tests.instances import CT, EXPLICIT, encoded, instance, saved, uid
from tests.listeners import AET, associate, listening, peak_bytes, raw_connection, store_raw
from tests.pdus import ECHO, ECHOES, RELEASE, asking, context, fragment, part, pdu, talk

STORESCU = Path("/usr/bin/storescu")  # dcmtk's; the one on the path may be pynetdicom's


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A listener that many tests may use, one after the other."""
    root = tmp_path_factory.mktemp("listener") / "spool"
    with listening(root, open_timeout_s=2, idle_timeout_s=4) as running:
        yield running


@pytest.fixture
def listener(shared):
    """The shared listener with an empty spool; whatever the test did to it, it answers afterwards."""
    for room in ("ready", "quarantine"):
        for path in shared.files(room):
            path.unlink()
    yield shared
    assert shared.answers()
    assert wait_until(lambda: shared.files("incoming") == [], within_s=8)


# --- who sends what it should ----------------------------------------------------------------------------------------


def test_dcmtk_sends_and_every_byte_is_there(listener, tmp_path):
    if not STORESCU.exists():
        missing("dcmtk is not installed")
    sent = [instance(side=64) for _ in range(5)]
    paths = [saved(tmp_path, ds) for ds in sent]
    subprocess.run([STORESCU, "-aec", AET, "127.0.0.1", str(listener.port), *paths], check=True, timeout=60)
    arrivals = {arrival_of(path).header.sop_instance_uid: arrival_of(path) for path in listener.files()}
    assert set(arrivals) == {ds.SOPInstanceUID for ds in sent}
    for ds in sent:
        assert arrivals[ds.SOPInstanceUID].sha256 == hashlib.sha256(encoded(ds)).hexdigest()
        assert arrivals[ds.SOPInstanceUID].peer_ae_title == "STORESCU"
        assert arrivals[ds.SOPInstanceUID].peer_address == "127.0.0.1"


def test_files_of_many_kinds_are_stored_as_sent(listener):
    from pydicom.data import get_testdata_file

    names = [
        "CT_small.dcm",
        "MR_small_RLE.dcm",
        "JPEG2000.dcm",
        "JPEG-lossy.dcm",
        "rtplan.dcm",
        "MR_small_jp2klossless.dcm",
    ]
    paths = [Path(path) for name in names if (path := get_testdata_file(name, download=False))]
    statuses = listener.send(*paths)
    assert set(statuses.values()) == {0}
    stored = {arrival_of(path).sha256 for path in listener.files()}
    from record.part10 import data_set_digest

    for path in paths:
        with path.open("rb") as stream:
            assert data_set_digest(stream)[0] in stored


def test_a_large_instance_costs_no_memory(listener, tmp_path):
    path = saved(tmp_path, instance(side=8000))  # 128 MB
    before = peak_bytes(listener.process.pid)
    assert listener.send(path) == {path: 0}
    assert peak_bytes(listener.process.pid) - before < 40_000_000


def test_fragments_of_any_size_are_put_together(listener):
    for pdu_bytes in (20, 100, 65536):
        association = associate(listener)
        status = store_raw(
            association, encoded(ds := instance(side=90)), sop_instance_uid=ds.SOPInstanceUID, pdu_bytes=pdu_bytes
        )
        association.release()
        assert status == 0, pdu_bytes
        assert hashlib.sha256(encoded(ds)).hexdigest() in {arrival_of(path).sha256 for path in listener.files()}


def test_lossless_and_plain_are_chosen_before_lossy(listener):
    lossy, plain = "1.2.840.10008.1.2.4.50", EXPLICIT
    association = associate(listener, contexts=((CT, [lossy, plain]), (CT, [lossy]), (CT, ["1.2.840.10008.1.2.1.99"])))
    chosen = [cx.transfer_syntax[0] for cx in association.accepted_contexts]
    refused = [cx.transfer_syntax[0] for cx in association.rejected_contexts]
    association.release()
    assert chosen == [plain, lossy]
    assert refused == ["1.2.840.10008.1.2.1.99"]


# --- what is refused, and how it is told -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("bad", ["../../../../evil", "1.2.840.10008.1.1/x", "1.2.3;rm"])
def test_what_is_no_uid_is_refused_and_becomes_no_path(listener, bad):
    association = associate(listener)
    status = store_raw(association, encoded(instance()), sop_instance_uid=bad)
    association.abort()
    assert status == 0xC000
    assert listener.files() == listener.files("quarantine") == []


def test_another_instance_than_announced_is_a_mismatch_and_kept_aside(listener):
    association = associate(listener)
    status = store_raw(association, encoded(instance()), sop_instance_uid=uid())
    other_class = store_raw(
        association, encoded(ds := instance()), sop_class_uid=CT + ".1", sop_instance_uid=ds.SOPInstanceUID
    )
    association.release()
    assert status == 0xA900
    assert other_class in {0xA900, None}  # pynetdicom knows no such class: it aborts before we could answer
    assert [path.name.split(".")[1] for path in listener.files("quarantine")][:1] == ["mismatched_sop_instance_uid"]


def test_what_cannot_be_read_or_filed_is_told_so_and_kept_aside(listener):
    association = associate(listener)
    nonsense = store_raw(association, b"\x00\x01 this is no data set" * 100)
    nameless = store_raw(
        association, encoded(ds := instance(StudyInstanceUID=None)), sop_instance_uid=ds.SOPInstanceUID
    )
    fine = store_raw(association, encoded(ds := instance()), sop_instance_uid=ds.SOPInstanceUID)
    association.release()
    assert (nonsense, nameless, fine) == (0xC000, 0xC000, 0)
    assert len(listener.files("quarantine")) == 2
    assert len(listener.files()) == 1


def test_too_little_space_is_a_passing_refusal(tmp_path):
    with listening(tmp_path / "spool", min_free_bytes=1 << 60) as listener:
        refused = associate(listener)
        assert refused.is_rejected
        answer = answer_of(refused)
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 1), "a passing state"
        assert wait_until(lambda: b"no_room" in listener.log.read_bytes(), within_s=5)
        assert listener.files() == listener.files("incoming") == []
        assert listener.answers()


def test_a_full_disk_refuses_and_recovers(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        with listening(disk / "spool", min_free_bytes=0) as listener:
            small, large = saved(tmp_path, instance(side=64)), saved(tmp_path, instance(side=1500))
            statuses = [listener.send(path)[path] for path in (small, large, small)]
            assert statuses == [0, 0xA700, 0]
            assert listener.files("incoming") == []
            assert len(listener.files()) == 2
        with listening(disk / "spool", min_free_bytes=1 << 20) as listener:
            standing = associate(listener)
            (disk / "somebody").write_bytes(bytes(1 << 20))
            assert store_raw(standing, encoded(instance(side=16))) == 0xA700
            assert associate(listener).is_rejected, "who comes now is turned away at once"
            (disk / "somebody").unlink()
            assert listener.send(small) == {small: 0}, "it goes on by itself"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_wrong_called_title_is_rejected(listener):
    assert associate(listener, called="NOBODY").is_rejected
    assert associate(listener).is_established


def test_unknown_senders_are_rejected_and_known_ones_taken_without_a_restart(tmp_path):
    with listening(tmp_path / "spool", open_peers=0) as listener:
        path = saved(tmp_path, instance())
        assert listener.send(path, calling_aet="STRANGER") == {path: None}
        assert listener.answers()  # our own question is always answered
        write_peers(listener.root, [KnownPeer("FRIEND", "127.0.0.1", "north"), KnownPeer("ELSEWHERE", "10.1.1.1", "n")])
        assert listener.send(path, calling_aet="STRANGER") == {path: None}
        assert listener.send(path, calling_aet="ELSEWHERE") == {path: None}
        assert listener.send(path, calling_aet="FRIEND") == {path: 0}
        assert arrival_of(listener.files()[0]).site_name == "north"
        (listener.root / "peers.json").write_text("{broken")
        assert listener.send(path, calling_aet="FRIEND") == {path: 0}  # what was known stays known


def test_a_rejection_says_who_was_rejected_and_what_to_do(tmp_path):
    with listening(tmp_path / "spool", open_peers=0) as listener:
        assert associate(listener, calling="STRANGER").is_rejected
        assert associate(listener, calling="STRANGER", called="NOBODY").is_rejected
        lines = [json.loads(line) for line in listener.log.read_text().splitlines()]
    unknown, misnamed = [line for line in lines if line["event"] == "association_rejected"]
    assert (unknown["reason_code"], misnamed["reason_code"]) == ("peer_unknown", "called_ae_title_unknown")
    assert (unknown["calling_ae_title"], unknown["peer_address"]) == ("STRANGER", "127.0.0.1")
    assert "countersign peers add AE ADDRESS" in unknown["hint"]
    assert misnamed["called_ae_title"] == "NOBODY"


def test_open_peers_and_an_address_beyond_loopback_do_not_go_together(tmp_path):
    with pytest.raises(Misconfigured):
        listen_at(ListenerSettings(spool=tmp_path, dicom_host="0.0.0.0", dicom_port=0, open_peers=True))


def test_a_taken_port_is_told(listener, tmp_path):
    with pytest.raises(Misconfigured, match=str(listener.port)):
        listen_at(ListenerSettings(spool=tmp_path, dicom_port=listener.port))
    assert list(tmp_path.iterdir()) == [], "and no spool is left that nobody would empty"


def test_one_association_too_many_is_rejected_until_one_ends(tmp_path):
    with listening(tmp_path / "spool", max_associations=2) as listener:
        first, second = associate(listener), associate(listener)
        assert first.is_established
        assert second.is_established
        assert associate(listener).is_rejected
        first.release()
        assert wait_until(listener.answers, within_s=5)
        second.release()


# --- the hostile and the broken --------------------------------------------------------------------------------------


def test_twelve_peers_of_a_byte_a_second_lock_nobody_out(listener):
    slow = [raw_connection(listener) for _ in range(12)]
    for connection in slow:
        connection.sendall(b"\x01")
    assert listener.answers()
    for connection in slow:  # each is cut off after the time it may take to ask, however often it sends
        with suppress(OSError):
            while connection.recv(1) == b"":
                break
        connection.close()


def test_two_hundred_idle_associations_hold_up_nobody(tmp_path):
    with listening(tmp_path / "spool", max_associations=300, receivers=2) as listener, contextlib.ExitStack() as held:
        for _ in range(200):
            connection = held.enter_context(raw_connection(listener))
            connection.sendall(asking())
            assert connection.recv(1) == b"\2"
        path = saved(tmp_path, instance(side=64))
        assert listener.send(path) == {path: 0}
        assert peak_bytes(listener.process.pid) < 200 << 20


def test_idle_connections_without_end_push_each_other_out(listener):
    idle = [raw_connection(listener) for _ in range(200)]
    assert listener.answers()
    for connection in idle:
        connection.close()


def test_garbage_ends_one_connection(listener):
    chance = random.Random(7)
    for _ in range(20):
        with raw_connection(listener) as connection, suppress(OSError):
            connection.sendall(chance.randbytes(4000))
    with raw_connection(listener) as connection, suppress(OSError):
        connection.sendall(struct.pack(">BBI", 1, 0, 68) + bytes(68))
        connection.recv(100)


def test_a_context_without_a_transfer_syntax_is_aborted_before_anybody_is_counted_in(listener):
    application = part(0x10, b"1.2.840.10008.3.1.1.1")
    answers = talk(listener.port, [asking(application, context(1, CT))])
    assert answers.kinds == [wire.ABORT]
    assert b"association_failed" not in listener.log.read_bytes()


def test_a_request_that_does_not_wait_for_the_answer_is_aborted_not_lost(listener):
    echo = pdu(wire.DATA_TF, fragment(3, ECHO, ECHOES))
    assert talk(listener.port, [echo + RELEASE], opening=asking()).statuses == [0]
    answers = talk(listener.port, [asking() + echo + RELEASE])
    assert answers.kinds == [wire.ABORT]


def test_a_pdu_of_two_gigabytes_is_refused_by_its_header(listener):
    before, sent = peak_bytes(listener.process.pid), 0
    with raw_connection(listener) as connection, suppress(OSError):  # reset or broken pipe
        connection.sendall(struct.pack(">BBI", 1, 0, 0x7FFFFFFF))
        for _ in range(300):
            connection.sendall(bytes(1 << 20))
            sent += 1
    assert sent < 20  # what the system's own buffers hold
    assert peak_bytes(listener.process.pid) - before < 20_000_000


def test_a_long_pdu_within_an_association_is_refused(listener):
    association = associate(listener)
    connection = association.dul.socket.socket
    with suppress(OSError):
        connection.sendall(struct.pack(">BBI", 4, 0, 0x7FFFFFFF) + bytes(1 << 16))
    assert wait_until(lambda: not association.is_established, within_s=8)


def test_a_command_without_end_is_refused(listener):
    association = associate(listener)
    from pynetdicom.pdu_primitives import P_DATA

    for _ in range(10):
        fragment = P_DATA()
        fragment.presentation_data_value_list.append((1, b"\x01" + bytes(4000)))
        association.dul.send_pdu(fragment)
    assert wait_until(lambda: not association.is_established, within_s=8)


def test_a_data_set_out_of_the_blue_is_refused(listener):
    association = associate(listener)
    from pynetdicom.pdu_primitives import P_DATA

    fragment = P_DATA()
    fragment.presentation_data_value_list.append((1, b"\x02" + bytes(4000)))
    association.dul.send_pdu(fragment)
    assert wait_until(lambda: not association.is_established, within_s=8)


def test_a_sender_cut_off_in_the_middle_leaves_nothing(listener):
    association = associate(listener)
    store_raw(association, encoded(ds := instance(side=500)), sop_instance_uid=ds.SOPInstanceUID, part=0.5)
    assert wait_until(lambda: len(listener.files("incoming")) == 1, within_s=5)
    association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    assert wait_until(lambda: listener.files("incoming") == [], within_s=5)
    assert listener.files() == []


@pytest.mark.slow
def test_a_sender_that_falls_silent_in_the_middle_is_cut_off(listener):
    association = associate(listener)
    store_raw(association, encoded(ds := instance(side=500)), sop_instance_uid=ds.SOPInstanceUID, part=0.5)
    assert wait_until(lambda: len(listener.files("incoming")) == 1, within_s=5)
    assert wait_until(lambda: listener.files("incoming") == [], within_s=15)
    association.abort()


# --- its end ---------------------------------------------------------------------------------------------------------


def test_it_stops_cleanly_while_a_sender_is_in_the_middle(tmp_path):
    with listening(tmp_path / "spool") as listener:
        association = associate(listener)
        store_raw(association, encoded(ds := instance(side=500)), sop_instance_uid=ds.SOPInstanceUID, part=0.5)
        listener.process.send_signal(signal.SIGTERM)
        assert listener.process.wait(10) == 0
        assert listener.files() == []


def test_nothing_it_says_names_anybody(tmp_path):
    with listening(tmp_path / "spool") as listener:
        good, bad = instance(), instance(StudyInstanceUID=None)
        listener.send(saved(tmp_path, good), saved(tmp_path, bad))
        association = associate(listener)
        store_raw(association, b"Canary^Yellow" * 500, sop_instance_uid="1.2.3.4.5.6.7")
        association.abort()
        listener.process.send_signal(signal.SIGTERM)
        listener.process.wait(10)
        told = listener.log.read_text()
        assert "instance_refused" in told
        for secret in ("Canary", good.SOPInstanceUID, good.StudyInstanceUID, bad.SOPInstanceUID, "1.2.3.4.5.6.7", "P1"):
            assert secret not in told


@pytest.mark.kill
def test_whatever_was_acknowledged_survives_kill_9(tmp_path):
    chance, root, acknowledged, left = random.Random(5), tmp_path / "spool", set(), 60
    folder = tmp_path / "sent"
    folder.mkdir()
    for _ in range(3):
        with listening(root) as listener:
            ledger = threading.Lock()
            enough = threading.Event()
            goal = len(acknowledged) + chance.randrange(5, 20)

            def sender(listener=listener, enough=enough, ledger=ledger, goal=goal):
                paths = [saved(folder, instance(side=100)) for _ in range(left)]

                def note(path, status):
                    if status == 0:
                        with ledger:
                            acknowledged.add(path.stem)
                    if len(acknowledged) >= goal:
                        enough.set()

                send(paths, "127.0.0.1", listener.port, AET, note, calling_aet="SENDER", timeout_s=2)

            senders = [threading.Thread(target=sender) for _ in range(4)]
            for each in senders:
                each.start()
            assert enough.wait(60)
            os.kill(listener.process.pid, signal.SIGKILL)
            for each in senders:
                each.join(60)
    with listening(root) as listener:
        assert listener.files("incoming") == []
        stored = {arrival_of(path).header.sop_instance_uid for path in listener.files()}
    assert len(acknowledged) >= 15
    assert acknowledged <= stored
