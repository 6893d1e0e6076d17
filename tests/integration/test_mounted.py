"""A store whose disk is not mounted: nothing is written in its place, and nothing is lost."""

from __future__ import annotations

import pytest

from gateway.indexer import Indexer
from record.errors import Misconfigured
from tests.keeping import Keeping, MakeRun

pytestmark = pytest.mark.integration


def test_an_empty_store_under_a_record_with_images_is_not_written_to(run: Keeping) -> None:
    (late,) = run.receive()
    store = run.folder / "store"
    store.rename(run.folder / "away")
    indexer = Indexer(run.engine, run.store, run.spool)
    for _ in range(2):  # the first look makes no difference
        with pytest.raises(Misconfigured, match=f"store {store} is empty. Is its disk mounted?"):
            indexer.run_once()
    assert run.waiting() == [late]
    assert run.stored() == []
    for folder in sorted(store.rglob("*"), reverse=True):
        folder.rmdir()
    store.rmdir()
    (run.folder / "away").rename(store)
    assert indexer.run_once().instances == 1
    indexer.release()
    assert len(run.stored()) == 2


@pytest.mark.parametrize(
    "part", [("gateway", "indexer"), ("gateway", "sweep"), ("gateway", "courier"), ("worker", "cpu")]
)
def test_a_part_does_not_start_on_a_store_that_is_not_mounted(run: Keeping, part: tuple[str, ...]) -> None:
    (run.folder / "store").rename(run.folder / "away")
    process = run.process(*part)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Is its disk mounted?" in told
    assert "Traceback" not in told


def test_a_record_without_images_and_one_whose_files_are_given_up_begin_anew(run: Keeping, make: MakeRun) -> None:
    fresh = make("fresh")
    fresh.receive()
    assert fresh.index() == 1
    (run.folder / "store").rename(run.folder / "away")
    (run.folder / "store" / "instances" / "00").mkdir(parents=True)
    run.receive()
    assert run.index() == 1
