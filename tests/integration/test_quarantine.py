"""What was refused and kept aside: listed, shown, and taken after all where it can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset

from gateway import cli
from gateway.indexer import arrival_of
from gateway.intake import Intake, SopIdentity, Source
from gateway.spool import Spool, find
from record.errors import CountersignError, InvalidInstance
from tests.instances import CT, EXPLICIT, encoded, instance, uid

SOURCE = Source("dicom", "MODALITY1", "COUNTERSIGN", "10.0.0.7", "north")


def refuse(root: Path, content: bytes, sop_instance_uid: str) -> None:
    """Bytes as a listener refuses them: kept aside with the reason."""
    spool = Spool.claim(root)
    with Intake(spool).begin(SOURCE, SopIdentity(CT, sop_instance_uid, EXPLICIT)) as incoming:
        incoming.write(memoryview(content))
        with pytest.raises(InvalidInstance) as refused:
            incoming.commit()
        incoming.quarantine(str(refused.value.facts["reason_code"]))
    spool.release()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COUNTERSIGN_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.cli, ["quarantine", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit | CountersignError), done.exception
    said = done.exception.message if isinstance(done.exception, CountersignError) else ""
    return done.exit_code, done.output + said


def listed() -> list[dict[str, Any]]:
    code, told = command("list", "--json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(told)
    return found


def canary(**attributes: object) -> Dataset:
    return instance(PatientName="CANARY^NAME", PatientID="CANARY1", **attributes)


def test_what_is_kept_is_listed_and_shown_without_a_patient(root: Path) -> None:
    assert listed() == []
    ds = canary()
    refuse(root, encoded(ds), announced := uid())
    (one,) = listed()
    assert (one["reason"], one["calling_ae_title"], one["address"]) == (
        "mismatched_sop_instance_uid",
        "MODALITY1",
        "10.0.0.7",
    )
    code, told = command("show", one["instance_id"][:8])
    assert code == 0
    assert {announced, ds.SOPInstanceUID, ds.StudyInstanceUID} <= set(told.split())
    assert "another instance than the sender announced" in told
    assert "CANARY" not in told + command("list")[1]
    assert command("show", "ffff")[0] == 1


def test_a_mismatch_is_taken_after_all_under_its_own_identity(root: Path) -> None:
    ds = canary()
    refuse(root, encoded(ds), uid())
    code, told = command("release", listed()[0]["instance_id"])
    assert (code, "is taken as" in told) == (0, True)
    assert listed() == []
    (path,) = [path for spool in find(root) for path in spool.waiting()]
    arrival = arrival_of(path)
    assert (arrival.header.sop_instance_uid, arrival.site_name, arrival.peer_ae_title) == (
        ds.SOPInstanceUID,
        "north",
        "MODALITY1",
    )


def test_bytes_that_changed_are_never_taken_for_whole(root: Path) -> None:
    refuse(root, encoded(canary()), uid())
    (path,) = [path for spool in find(root) for path in spool.quarantine.iterdir()]
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    code, told = command("release", listed()[0]["instance_id"])
    assert (code, "other bytes than were received" in told) == (1, True)
    assert len(listed()) == 1
    assert [path for spool in find(root) for path in spool.waiting()] == []


def test_what_cannot_be_filed_stays_and_is_told_so(root: Path) -> None:
    refuse(root, encoded(canary(StudyInstanceUID=None)), uid())
    refuse(root, b"\x00\x01 no data set" * 50, uid())
    for one in listed():
        code, told = command("release", one["instance_id"])
        assert code == 1
        assert "1 file not taken" in told
    assert len(listed()) == 2
    assert [path for spool in find(root) for path in spool.waiting()] == []
    assert command("release", "nonsense")[0] == 1


def test_what_is_understood_is_removed_for_good(root: Path) -> None:
    for _ in range(2):
        refuse(root, encoded(canary()), uid())
    assert max(map(len, command("list")[1].splitlines())) <= 80
    ids = [one["instance_id"] for one in listed()]
    assert command("drop", ids[0])[0] == 1, "it has to be meant"
    assert command("drop", ids[0], "--yes")[0] == 0
    assert [one["instance_id"] for one in listed()] == ids[1:]
