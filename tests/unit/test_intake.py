"""What `Intake` acknowledges is whole and describes itself; what it does not leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import uuid
import zlib
from datetime import UTC, datetime, timedelta

import pydicom
import pytest

from gateway import spool as spools
from gateway.dicom.peers import KnownPeer, read_peers, write_peers
from gateway.indexer import arrival_of
from gateway.intake import Intake, SopIdentity, Source
from gateway.spool import Spool
from record.errors import InvalidInstance, MismatchedInstance, StoreFull, UnsupportedInstance
from tests.instances import CT, EXPLICIT, encoded, instance

SOURCE = Source("dicom", "MODALITY1", "COUNTERSIGN", "10.0.0.7", "main")


@pytest.fixture
def spool(tmp_path):
    taken = Spool.claim(tmp_path / "spool")
    yield taken
    taken.release()


@pytest.fixture
def intake(spool):
    return Intake(spool)


def sop(ds):
    return SopIdentity(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT)


def push(intake, ds, *, size=1000):
    """Take an instance, in pieces as a network would bring it."""
    whole = memoryview(encoded(ds))
    with intake.begin(SOURCE, sop(ds)) as incoming:
        for start in range(0, len(whole), size):
            incoming.write(whole[start : start + size])
        return incoming.commit()


def contents(spool):
    return [path for room in (spool.incoming, spool.ready, spool.quarantine) for path in room.iterdir()]


def test_a_committed_file_bears_our_id_and_describes_itself(intake, spool):
    ds = instance(side=200)
    receipt = push(intake, ds)
    (path,) = contents(spool)
    assert path == spool.ready / f"{receipt.instance_id.hex}.dcm"
    assert receipt.instance_id.version == 7
    arrival = arrival_of(path)
    data = encoded(ds)
    assert arrival.instance_id == receipt.instance_id
    assert (arrival.sha256, arrival.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (arrival.source, arrival.peer_ae_title, arrival.peer_address) == ("dicom", "MODALITY1", "10.0.0.7")
    assert arrival.site_name == "main"
    assert abs(arrival.received_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert arrival.header.study_instance_uid == ds.StudyInstanceUID


def test_a_committed_file_is_a_part_10_file_that_others_can_read(intake, spool):
    ds = instance()
    push(intake, ds)
    (path,) = contents(spool)
    read = pydicom.dcmread(path)
    assert read == ds
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.file_meta.SendingApplicationEntityTitle == "MODALITY1"


def test_several_chunks_in_one_write_keep_their_order(intake, spool):
    ds = instance(side=64)
    whole = memoryview(encoded(ds))
    with intake.begin(SOURCE, sop(ds)) as incoming:
        incoming.write(whole[:10], whole[10:3000], whole[3000:])
        incoming.commit()
    assert arrival_of(spool.waiting()[0]).sha256 == hashlib.sha256(whole).hexdigest()


def test_left_without_commit_nothing_stays(intake, spool):
    ds = instance()
    with intake.begin(SOURCE, sop(ds)) as incoming:
        incoming.write(memoryview(encoded(ds)))
        assert [path.parent for path in contents(spool)] == [spool.incoming]
    assert contents(spool) == []


@pytest.mark.parametrize("bad", ["../../../../evil", "1.2.3/..", "", "1" * 65, "1.2\0.3", "1.2.3\n"])
def test_what_is_no_uid_is_refused_before_it_meets_the_disk(intake, spool, bad):
    with pytest.raises(InvalidInstance):
        intake.begin(SOURCE, SopIdentity(CT, bad, EXPLICIT))
    assert contents(spool) == []


def test_deflated_data_is_refused(intake):
    with pytest.raises(UnsupportedInstance):
        intake.begin(SOURCE, SopIdentity(CT, "1.2.3", "1.2.840.10008.1.2.1.99"))


@pytest.mark.parametrize("field", ["sop_class_uid", "sop_instance_uid"])
def test_an_instance_other_than_announced_is_refused(intake, spool, field):
    ds = instance()
    announced = {"sop_class_uid": ds.SOPClassUID, "sop_instance_uid": ds.SOPInstanceUID, field: "1.2.3"}
    with intake.begin(SOURCE, SopIdentity(**announced, transfer_syntax_uid=EXPLICIT)) as incoming:
        incoming.write(memoryview(encoded(ds)))
        with pytest.raises(MismatchedInstance):
            incoming.commit()
    assert contents(spool) == []


def test_what_cannot_be_filed_is_kept_aside_with_the_reason(intake, spool):
    ds = instance(StudyInstanceUID=None)
    with intake.begin(SOURCE, sop(ds)) as incoming:
        incoming.write(memoryview(encoded(ds)))
        with pytest.raises(InvalidInstance) as refused:
            incoming.commit()
        incoming.quarantine(refused.value.facts["reason_code"])
    (kept,) = contents(spool)
    assert kept.parent == spool.quarantine
    assert kept.name == f"{incoming.instance_id}.missing_study_instance_uid.dcm"
    assert pydicom.dcmread(kept).PatientID == "P1"


def test_quarantine_is_bounded_and_the_oldest_go_first(tmp_path):
    spool = Spool.claim(tmp_path, quarantine_bytes=10_000)
    intake = Intake(spool)
    kept = []
    for _ in range(8):
        ds = instance(side=40)  # 3,200 bytes of pixels
        with intake.begin(SOURCE, sop(ds)) as incoming:
            incoming.write(memoryview(encoded(ds)))
            incoming.quarantine("test")
            kept.append(incoming.instance_id)
    names = {path.name.partition(".")[0] for path in spool.quarantine.iterdir()}
    assert names == set(sorted(kept)[-2:])
    ds = instance(side=100)
    with intake.begin(SOURCE, sop(ds)) as incoming:
        incoming.write(memoryview(encoded(ds)))
        incoming.quarantine("test")
    assert {path.name.partition(".")[0] for path in spool.quarantine.iterdir()} == names


def test_below_the_free_space_mark_nothing_is_begun(spool):
    with pytest.raises(StoreFull):
        Intake(spool, min_free_bytes=1 << 60).begin(SOURCE, sop(instance()))
    assert contents(spool) == []


def test_space_is_looked_at_while_a_large_instance_arrives(spool):
    intake = Intake(spool)
    incoming = intake.begin(SOURCE, sop(instance()))
    intake._min_free_bytes = 1 << 60
    chunk = memoryview(bytes(1 << 20))
    incoming.write(*[chunk] * 15)
    with pytest.raises(StoreFull):
        incoming.write(chunk)
    assert contents(spool) == []
    with pytest.raises(StoreFull):
        incoming.commit()


def test_a_full_disk_refuses_and_leaves_nothing(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        spool = Spool.claim(disk)
        intake = Intake(spool)
        push(intake, instance(side=256))
        with pytest.raises(StoreFull):
            push(intake, instance(side=1000))
        assert [path.parent.name for path in contents(spool)] == ["ready"]
        push(intake, instance(side=256))  # and it goes on
        spool.release()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_who_starts_clears_the_half_written_and_takes_its_former_folder(tmp_path):
    first = Spool.claim(tmp_path)
    push(Intake(first), instance())
    Intake(first).begin(SOURCE, sop(instance()))  # as a process that dies here would leave it
    second = Spool.claim(tmp_path)  # while the first lives
    assert (first.spool_id, second.spool_id) == ("00", "01")
    assert len(list(first.incoming.iterdir())) == 1
    first.release()
    again = Spool.claim(tmp_path)
    assert again.spool_id == "00"
    assert list(again.incoming.iterdir()) == []
    assert len(again.waiting()) == 1
    assert [s.spool_id for s in spools.find(tmp_path)] == ["00", "01"]
    assert [s.folder for s in spools.find(again.folder)] == [again.folder]


@pytest.mark.parametrize("where", [0, 20, 125, 140, -1])
def test_a_byte_that_changed_on_the_disk_is_found(intake, spool, where):
    push(intake, instance())
    (path,) = contents(spool)
    hurt = bytearray(path.read_bytes())
    hurt[where] ^= 0x41
    path.write_bytes(hurt)
    with pytest.raises(InvalidInstance):
        arrival_of(path)


def test_a_file_that_is_not_whole_is_found(intake, spool):
    push(intake, instance())
    (path,) = contents(spool)
    whole = path.read_bytes()
    for cut in (0, 100, 140, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InvalidInstance):
            arrival_of(path)


@pytest.mark.parametrize("private", [b'{"door": 1, "address": "", "site": null}', b"[" * 30_000, b'"\\ud800"', b"{}"])
def test_meta_information_that_somebody_wrote_is_refused_by_name(intake, spool, private):
    push(intake, instance())
    (path,) = contents(spool)
    content = path.read_bytes()
    told = spools.read(path, content)
    at = content.index(struct.pack("<HH", 2, 0x0102))
    meta = content[132:at] + struct.pack("<HH2sHI", 2, 0x0102, b"OB", 0, len(private)) + private
    meta = meta[:8] + struct.pack("<I", len(meta) - 12) + meta[12:]
    data_set = content[told.data_set_at :]
    whole = spools.preamble(len(data_set), zlib.crc32(meta + data_set), told.received_at)
    path.write_bytes(whole + b"DICM" + meta + data_set)
    with pytest.raises(InvalidInstance) as refused:
        arrival_of(path)
    assert refused.value.facts["reason_code"] == "damaged"


def test_a_time_that_no_calendar_has_is_refused_by_name(intake, spool):
    push(intake, instance())
    (path,) = contents(spool)
    content = path.read_bytes()
    told = content[:20] + struct.pack("<Q", 1 << 63) + content[28:124]
    path.write_bytes(told + struct.pack("<I", zlib.crc32(told)) + content[128:])
    with pytest.raises(InvalidInstance):
        arrival_of(path)


def test_a_hostile_ae_title_is_kept_as_plain_text(intake, spool):
    ds = instance()
    with intake.begin(Source("dicom", "A\x1b\nÄ" * 9, "US", "::1", None), sop(ds)) as incoming:
        incoming.write(memoryview(encoded(ds)))
        incoming.commit()
    arrival = arrival_of(spool.waiting()[0])
    assert len(arrival.peer_ae_title) <= 16
    assert arrival.peer_ae_title.isprintable()
    assert arrival.site_name is None


def test_the_snapshot_of_peers_is_replaced_as_a_whole(tmp_path):
    assert list(read_peers(tmp_path)) == []
    peers = [KnownPeer("PACS", "10.0.0.1", "main"), KnownPeer("CT1", "10.0.0.2", "north")]
    write_peers(tmp_path, peers)
    assert list(read_peers(tmp_path)) == peers
    write_peers(tmp_path, [])
    assert list(read_peers(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


def test_ids_keep_the_order_of_arrival(intake, spool):
    first = [push(intake, instance()).instance_id for _ in range(3)]
    assert sorted(p.stem for p in spool.waiting()) == [p.stem for p in spool.waiting()]
    assert {uuid.UUID(hex=p.stem) for p in spool.waiting()} == set(first)
