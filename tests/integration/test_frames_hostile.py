"""Files that lie and children that die: what the door answers, and that it goes on. Real files and real children."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset

from gateway.web import decoders
from gateway.web.decoders import Decoders
from record.settings import ApiSettings
from record.states import Role
from record.store import Kind
from tests.conftest import FreshDatabase
from tests.instances import instance, saved
from tests.records import uid
from tests.shown import ct, pixels, rendered, take, viewer
from tests.web_records import Desk, desk_on, problem


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture(scope="module")
def physician(desk: Desk) -> TestClient:
    return desk.signed_in(Role.ATTENDING)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": b"\0\0"}, "undecodable"),  # fewer than the header says
        ({"Rows": 60000, "Columns": 60000}, "unsupported"),
        ({"NumberOfFrames": 2**31 - 1}, "unsupported"),
        ({"BitsAllocated": 12}, "unsupported"),
        ({"SamplesPerPixel": 7}, "unsupported"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported"),
        ({"Rows": 0}, "undecodable"),
    ],
)
def test_a_hostile_file_is_refused_with_its_reason_and_the_next_one_is_shown(
    desk: Desk, physician: TestClient, tmp_path: Path, attributes: dict[str, object], reason: str
) -> None:
    bad = ct(SeriesInstanceUID=(series := uid()), InstanceNumber=1)
    for keyword, value in attributes.items():
        setattr(bad, keyword, value)
    study_uid, (hostile, good) = take(desk, tmp_path, bad, ct(SeriesInstanceUID=series, InstanceNumber=2))
    refused = problem(physician.get(rendered(study_uid, hostile)), 422, "invalid_instance")
    assert refused["reason_code"] == reason
    assert desk.events("frame_not_shown")[-1]["reason_code"] == reason
    page = physician.get(viewer(study_uid, hostile))
    assert page.status_code == 200
    assert len(page.text) < 60_000
    study_page = physician.get(f"/studies/{study_uid}", headers={"Accept": "text/html"})
    assert study_page.status_code == 200
    assert pixels(physician.get(rendered(study_uid, good))).size


@pytest.mark.slow
def test_any_byte_that_is_wrong_hurts_nobody(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    whole = saved(tmp_path, ct(WindowCenter=40, WindowWidth=400)).read_bytes()
    rng = np.random.default_rng(11)
    study_uid, (image,) = take(desk, tmp_path, ct())
    key = image.replace("-", "")
    for n in range(60):
        broken = bytearray(whole)
        for at in rng.integers(132, len(whole), 1 + n % 6):
            broken[at] = rng.integers(256)
        end = rng.integers(140, len(whole)) if n % 3 == 0 else len(whole)
        desk.store.copy_in(Kind.INSTANCE, key, io.BytesIO(broken[:end]))
        assert physician.get(rendered(study_uid, image)).status_code in {200, 422}
        assert physician.get(viewer(study_uid, image)).status_code == 200
    desk.store.copy_in(Kind.INSTANCE, key, io.BytesIO(b"no DICOM at all" * 100))
    problem(physician.get(rendered(study_uid, image)), 422, "invalid_instance")


def children() -> list[int]:
    """The decoding children of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid() and b"worker.decoding" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (OSError, IndexError):
                continue
    return found


def resident_bytes(pid: int) -> int:
    """The memory that a process has; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def large(side: int = 5000) -> Dataset:
    """A film that takes a child the better part of a second."""
    ds = instance(4, Modality="CR", PixelSpacing=None)
    ds.Rows = ds.Columns = side
    ds.PixelData = np.tile(np.arange(side, dtype="<u2"), side).tobytes()  # (side · side,)
    return ds


@dataclass(frozen=True)
class Alone:
    """A door with a single child; a film keeps it at work, a small image does not."""

    desk: Desk
    client: TestClient
    study_uid: str
    film_id: str
    small_id: str

    @property
    def film(self) -> str:
        return rendered(self.study_uid, self.film_id)

    @property
    def small(self) -> str:
        return rendered(self.study_uid, self.small_id)


@pytest.fixture
def alone(database: FreshDatabase, tmp_path: Path) -> Iterator[Alone]:
    with desk_on(database, tmp_path, decode_children=1, decode_wait_s=0.2) as desk:
        client = desk.signed_in(Role.ATTENDING)
        study_uid, (film, small) = take(desk, tmp_path, large(), ct())
        made = Alone(desk, client, study_uid, film, small)
        assert client.get(made.small).status_code == 200  # the child is warm
        yield made


def at_work(other_than: Collection[int] = ()) -> int:
    """The child that holds the film by now, and so is in the middle of it: at rest none is nearly as large."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in set(children()) - set(other_than):
            if resident_bytes(pid) > 250_000_000:
                return pid
    pytest.fail("no child went to work")


@pytest.mark.slow
def test_a_child_killed_in_the_middle_of_a_frame_costs_that_frame_time_alone(alone: Alone) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(alone.client.get, alone.film)
        os.kill(at_work(), signal.SIGKILL)
        answer = asked.result()
    assert pixels(answer).shape == (5000, 5000)
    assert alone.client.get(alone.small).status_code == 200


@pytest.mark.slow
def test_a_frame_that_ends_two_children_is_blamed_and_the_next_is_served(alone: Alone) -> None:
    victims: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(alone.client.get, alone.film)
        for _ in range(2):
            victims.add(victim := at_work(victims))
            os.kill(victim, signal.SIGKILL)
        answer = asked.result()
    assert problem(answer, 422, "invalid_instance")["reason_code"] == "undecodable"
    assert alone.desk.events("frame_not_shown")[-1] == {
        "instance_id": alone.film_id,
        "frame": 1,
        "reason_code": "undecodable",
        "cause": "ended",
    }
    assert alone.client.get(alone.small).status_code == 200


@pytest.mark.slow
def test_while_all_children_are_busy_others_are_told_to_come_again(alone: Alone) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(alone.client.get, alone.film)
        busy = at_work()
        os.kill(busy, signal.SIGSTOP)
        try:
            refused = alone.client.get(alone.small)
            page = alone.client.get(viewer(alone.study_uid, alone.small_id))
        finally:
            os.kill(busy, signal.SIGCONT)
        assert asked.result().status_code == 200
    assert problem(refused, 503, "unavailable")["detail"].startswith("Too much is asked for at once.")
    assert int(refused.headers["retry-after"]) > 0
    assert page.status_code == 200, "the page comes, with fewer views to choose from"
    assert alone.client.get(alone.small).status_code == 200


def test_no_more_than_a_few_wait_for_a_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decoders, "WAITING", 1)
    settings = ApiSettings(
        database_url="postgresql://nobody@127.0.0.1/none", store=tmp_path, decode_children=1, decode_wait_s=30
    )
    lent = Decoders(settings)
    inside, waits, leave = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with lent._lent():
            inside.set()
            leave.wait(30)

    def wait() -> None:
        waits.set()
        with lent._lent():
            pass

    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(hold)
        inside.wait(30)
        waiting = pool.submit(wait)
        waits.wait(30)
        while lent._places._value:  # the second has taken its place
            time.sleep(0.001)
        began = time.monotonic()
        with pytest.raises(decoders.HTTPException) as refused, lent._lent():
            pass
        assert refused.value.status_code == 503
        assert time.monotonic() - began < 5, "at once, without waiting"
        leave.set()
        held.result()
        waiting.result()
    lent.close()


@pytest.mark.slow
def test_nothing_is_decoded_in_the_process_that_serves() -> None:
    """Its bytes are hostile: neither the decoders nor numpy are even loaded by the application."""
    code = (
        "import sys, gateway.web.app, gateway.web.server;"
        "print([m for m in ('numpy', 'PIL', 'imagecodecs', 'openjpeg', 'pydicom.pixels') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
