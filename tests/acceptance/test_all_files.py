"""Every real file that can be put on the wire: accepted or refused with a clear status, and nothing is left open.

All are sent by `countersign send` in one go, then by dcmtk's `dcmsend`, which sends the same bytes again; after each batch
the doors answer, and at the end every study has a draft or a reason and `countersign verify` finds nothing wrong. The model
behind the line is a small server that always says the same: what is tried here is that any file can come.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.dicom.calling import echo
from gateway.dicom.outgoing import Found, Outgoing, describe
from tests.acceptance.test_real_studies import DATA
from tests.bench import MODEL, small_server
from tests.line import COMMAND, Line, dcmtk, has_ended, running

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

TAKEN = 203
"""How many of the 231 files have the UIDs and one of the syntaxes that the listener takes."""
CLEAR = {"0x0000", "0xA900", "0xC000"}
"""What the listener may answer to these files: nobody's disk is full, and nobody is a stranger."""


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    if not DATA.exists():
        pytest.skip("the folder of real DICOM files is not beside the project")
    with (
        small_server() as server,
        running(
            *("--open-peers", "--stable-after", "2", "--quiet", "--model", MODEL), COUNTERSIGN_ENGINE_URL=server.url
        ) as started,
    ):
        yield started


def test_every_real_file_is_taken_or_refused_clearly_and_no_study_is_left_without_a_draft_or_a_reason(
    line: Line, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    began = time.monotonic()
    sent = _by_ourselves(line)
    _require_alive(line)
    ours = Counter((str(each["outcome"]), each["status"]) for each in sent)
    theirs = _by_dcmsend(line, tmp_path / "report")
    _require_alive(line)
    items = _wait_until_nothing_is_open(
        line, _studies([DATA / str(e["path"]) for e in sent if e["outcome"] == "accepted"])
    )
    ends = Counter((i["state"], i["reading_state"], i["reason_code"]) for i in items.values())
    _require_alive(line)
    with capsys.disabled():
        _print_table("by countersign send", ours)
        _print_table("by dcmsend", theirs)
        _print_table("studies", ends)
        sys.stdout.write(f"  {time.monotonic() - began:.1f} s\n")
    assert {status for _, status in ours} - {None} <= CLEAR
    assert ours["accepted", "0x0000"] == TAKEN
    assert not {"lost", "unsent", "unreadable"} & {outcome for outcome, _ in ours}
    assert all(each["why"] for each in sent if each["outcome"] != "accepted")
    assert theirs["answered", "0x0000"] > 180, "one refused file must not take the others with it"
    assert {status for _, status in theirs if status} <= CLEAR
    assert all(i["reason_code"] for i in items.values() if i["reading_state"] != "done")
    assert sum(count for (_, reading, _), count in ends.items() if reading == "done") >= 40
    assert not any(reading == "failed" for _, reading, _ in ends)
    assert line.command("verify").strip().endswith("nothing is wrong")


def _by_ourselves(line: Line) -> list[dict[str, object]]:
    """Send everything by our command, which finds the run by its folder; one line a file."""
    done = subprocess.run(
        [*COMMAND, "send", str(DATA), "--json", "--data-dir", str(line.folder / "data")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, "some of these files are broken on purpose"
    assert "Traceback" not in done.stderr, done.stderr
    *files, summary = map(json.loads, done.stdout.splitlines())
    assert len(files) == sum(1 for path in DATA.rglob("*") if path.is_file())
    assert sum(summary["summary"].get(outcome, 0) for outcome in {e["outcome"] for e in files}) == len(files)
    return files


def _by_dcmsend(line: Line, report: Path) -> Counter[tuple[str, str | None]]:
    """Send everything that dcmtk takes by its own dcmsend; what its report says of each file."""
    subprocess.run(
        [
            *(dcmtk("dcmsend"), "-nh", "+sd", "+r", "-dn", "+crf", str(report), "-aec", line.aet),
            *(line.host, str(line.dicom_port), str(DATA)),
        ],
        capture_output=True,
        check=False,
        timeout=120,
    )
    told: Counter[tuple[str, str | None]] = Counter()
    for words in report.read_text(errors="replace").splitlines():
        name, _, value = words.partition(":")
        if name.strip() == "DIMSE Status" and "<not sent>" in value:
            told["not sent by dcmsend itself", None] += 1
        elif name.strip() == "DIMSE Status":
            told["answered", f"0x{int(value.split()[0], 16):04X}"] += 1
    return told


def _studies(paths: list[Path]) -> set[str]:
    """The Study Instance UIDs in files, as a reader that is not ours finds them."""
    import pydicom

    found = set()
    for path in paths:
        one = describe(Found(path))
        assert isinstance(one, Outgoing)
        ds = pydicom.dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True, force=True)
        found.add(str(ds.StudyInstanceUID))
    return found


def _wait_until_nothing_is_open(line: Line, uids: set[str], timeout_s: float = 100) -> dict[str, dict[str, object]]:
    deadline = time.monotonic() + timeout_s
    while True:
        items = line.items()
        missing = uids - items.keys()
        still = [item for item in items.values() if not has_ended(item)]
        if not missing and not still:
            return items
        assert time.monotonic() < deadline, f"not on record: {len(missing)}; still open: {still[:5]}"
        time.sleep(0.3)


def _require_alive(line: Line) -> None:
    assert echo(line.host, line.dicom_port, line.aet)
    assert httpx.get(line.url + "/readyz", timeout=10).status_code == 200
    assert line.process.poll() is None


def _print_table(title: str, counts: Counter) -> None:  # type: ignore[type-arg]
    sys.stdout.write(f"\n{title}\n")
    for what, count in counts.most_common():
        sys.stdout.write(f"  {count:4}  {'  '.join(str(each or '-') for each in what)}\n")
