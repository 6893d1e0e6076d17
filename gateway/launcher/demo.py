"""`countersign demo`: the whole line shown once, with phantoms, as a stranger would use it from outside.

It runs `countersign up` as a child and then only knocks at the doors: DICOM in, HTTP for everything else. Knows the
steps a newcomer should see. Does not know the parts, the database's tables or the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.launcher.demo_client import DemoClient, StudyLine
from gateway.launcher.folder import DataFolder, environment_of, holds_run
from gateway.launcher.processes import StopRequest, end, spawn, wait_until
from record.durable import write_private
from record.errors import Conflict, Misconfigured
from record.settings import secret
from record.states import Role

STUDIES = 3
STABLE_AFTER_S = 1.0
UP_LIMIT_S = 240.0
STILL_LIMIT_S = 90.0
LOOK = "Run the demo again with --data-dir DIR and look into DIR/logs/{}.log."
LOGIN = "demo"
PRINTED_NAME = "Demo Physician"
READY = re.compile(r"ready dicom=(?P<host>.+):(?P<port>\d+) aet=(?P<aet>.+) http=(?P<url>\S+)")


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the line takes images and people."""

    host: str
    port: int
    ae_title: str
    url: str


@dataclass(slots=True)
class _Line:
    """The running `countersign up`, its ready line, and the reason if it never comes."""

    process: subprocess.Popen[bytes]
    doors: Doors | None = None
    complaints: list[str] = field(default_factory=list)

    def listen(self, say: Callable[[str], None]) -> None:
        assert self.process.stdout is not None  # noqa: S101  for the type checker: a pipe was asked for
        for raw in self.process.stdout:
            told = raw.decode(errors="replace").rstrip("\n")
            if found := READY.fullmatch(told):
                self.doors = Doors(found["host"], int(found["port"]), found["aet"], found["url"])
            elif told.startswith("countersign: "):
                say(told.removeprefix("countersign: "))
            else:
                self.complaints.append(told)


def run(data_dir: Path | None, *, once: bool, say: Callable[[str], None]) -> None:
    """Show the line; with `once` sign one draft, print a summary as the last line, and end.

    Raises
    ------
    Misconfigured
        A step failed; the message says which and what to do.
    """
    began = time.monotonic()
    stop = StopRequest()
    stop.listen()

    def step(line: str) -> None:
        say(f"[{time.monotonic() - began:5.1f} s] {line}")

    _refuse_anothers_record()
    summary: dict[str, object] | None = None
    with _folder(data_dir) as folder, _up(folder, step, stop) as (line, doors):
        login, password = _account(folder)
        step(f"the demo physician {login} may sign in")
        with tempfile.TemporaryDirectory(prefix="countersign-phantoms-") as phantoms:
            paths = _make_phantoms(Path(phantoms), folder, step, stop)
            uids = _study_uids(paths)
            _send(paths, doors, step)
        last_image = time.monotonic()
        with DemoClient(doors.url, login, password) as client:
            studies = _await_drafts(client, uids, step, stop)
            draft_s = round(time.monotonic() - last_image, 1)
            if once:
                step("editing and signing the first draft as the demo physician")
                signed = client.edit_and_sign(studies[0])
                step("signed")
                summary = {"studies": len(uids), "drafts": len(studies), "signed": signed, "draft_s": draft_s}
        if not once:
            _invite(doors, login, password, kept=data_dir, say=say)
            wait_until(
                lambda: line.process.poll() is not None, within_s=float("inf"), unless=lambda: bool(stop), every_s=0.2
            )
            if not stop:
                raise Misconfigured("The line ended by itself; its last lines above say why.")
    if summary:
        print(json.dumps(summary), flush=True)  # noqa: T201  the contract: the last line


@contextlib.contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    """The folder to keep, or a temporary one that goes with the demo."""
    if data_dir is not None:
        _claim(DataFolder(data_dir))
        yield data_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="countersign-demo-"))
    if os.geteuid() == 0:
        folder.chmod(0o711)  # the servers' account must pass through
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _claim(folder: DataFolder) -> None:
    """Mark a new folder as the demo's; a run that it did not make is refused, for it may be a real one."""
    state = folder.read_state()
    if state.demo:
        return
    if holds_run(folder.root):
        raise Misconfigured(
            f"{folder.root} holds a run that the demo did not make: it would add a physician, made-up patients and a "
            "signed report to it. Choose a new --data-dir, or leave it out; nothing was changed."
        )
    folder.prepare()
    state.demo = True
    folder.write_state(state)


def _refuse_anothers_record() -> None:
    """Refuse the database that the environment names where it holds people or studies, but no physician of the demo."""
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    from record.db import connect, transaction
    from record.models import Study, User

    database_url = secret("DATABASE_URL")
    if not database_url:
        return
    theirs = False
    engine = connect(database_url, pool=1)
    with contextlib.suppress(SQLAlchemyError), transaction(engine) as session:  # away, or no schema: `up` says so
        known = set(session.scalars(select(User.login)))
        shown = any(login.split("-")[0] == LOGIN for login in known)
        theirs = not shown and bool(known or session.scalar(select(Study.id).limit(1)))
    engine.dispose()
    if theirs:
        raise Misconfigured(
            "DATABASE_URL names a record that the demo did not make: it would add a physician, made-up patients and a "
            "signed report to it. Unset it, and the demo brings a database of its own; nothing was changed."
        )


@contextlib.contextmanager
def _up(folder: Path, step: Callable[[str], None], stop: StopRequest) -> Iterator[tuple[_Line, Doors]]:
    """The line, up and ready; stopped at the end."""
    argv = [sys.executable, "-P", "-m", "gateway", "up", "--quiet", "--open-peers", "--data-dir", str(folder)]
    argv += ["--dicom-port", "0", "--http-port", "0", "--stable-after", str(STABLE_AFTER_S)]
    process = spawn(
        argv,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COUNTERSIGN_DICOM_HOST": "127.0.0.1"},
        cwd=None,
        output=subprocess.PIPE,
        death_signal=signal.SIGTERM,
    )
    line = _Line(process)
    reader = threading.Thread(target=line.listen, args=(step,), daemon=True)
    reader.start()
    try:
        wait_until(
            lambda: line.doors is not None or process.poll() is not None,
            within_s=UP_LIMIT_S,
            unless=lambda: bool(stop),
        )
        stop.check()
        if line.doors is None:
            reader.join(5)
            raise Misconfigured("The line did not come up. " + " ".join(line.complaints[-12:]))
        step(f"ready: images to {line.doors.host}:{line.doors.port}, people to {line.doors.url}")
        yield line, line.doors
    finally:
        end(process, signal.SIGTERM, within_s=120, hurry=stop)
        reader.join(5)


def _account(folder: Path) -> tuple[str, str]:
    """The demo physician's login and password; made once for a folder."""
    from record import accounts
    from record.access import commander
    from record.db import connect, transaction

    kept = DataFolder(folder).run / "demo.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        remembered = json.loads(kept.read_text())
        return remembered["login"], remembered["password"]
    password = secrets.token_urlsafe(9)
    engine = connect(environment_of(folder)["DATABASE_URL"], pool=1)
    try:
        for login in (LOGIN, f"{LOGIN}-{secrets.token_hex(3)}"):  # a database of one's own may know the first already
            with contextlib.suppress(Conflict), transaction(engine) as session:
                accounts.add_user(
                    session,
                    site=None,
                    login=login,
                    printed_name=PRINTED_NAME,
                    role=Role.ATTENDING,
                    password=password,
                    by=commander(None, Role.ADMIN),
                )
                write_private(kept, json.dumps({"login": login, "password": password}))
                return login, password
    finally:
        engine.dispose()
    raise Misconfigured("The demo physician could not be added. Use a new --data-dir.")


def _make_phantoms(folder: Path, run: Path, step: Callable[[str], None], stop: StopRequest) -> list[Path]:
    """Let the worker draw the phantom studies; as DICOM files."""
    step(f"drawing {STUDIES} chest phantoms")
    process = spawn(
        [sys.executable, "-P", "-m", "worker", "phantoms", str(folder), "--count", str(STUDIES)],
        env=os.environ | environment_of(run),
        cwd=None,
        output=subprocess.PIPE,
        death_signal=signal.SIGKILL,
    )
    told, _ = process.communicate()
    stop.check()
    paths = sorted(folder.rglob("*.dcm"))
    if process.returncode or not paths:
        raise Misconfigured(f"The phantoms could not be made:\n{told.decode(errors='replace')[-2000:]}")
    return paths


def _study_uids(paths: list[Path]) -> list[str]:
    """The studies in the order they are sent."""
    from pydicom import dcmread

    uids = [str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID) for path in paths]
    return list(dict.fromkeys(uids))


def _send(paths: list[Path], doors: Doors, step: Callable[[str], None]) -> None:
    """Send the files over the network, as a modality would."""
    from gateway.dicom.send import send

    step(f"sending {len(paths)} images by C-STORE to {doors.ae_title}")
    answered = 0

    def note(_path: Path, status: int | None) -> None:
        nonlocal answered
        answered += 1
        told = "taken" if status == 0 else "no answer" if status is None else f"refused with 0x{status:04X}"
        step(f"image {answered} of {len(paths)}: {told}")

    if send(paths, doors.host, doors.port, doors.ae_title, note).failed:
        raise Misconfigured(f"The listener did not take every image. {LOOK.format('listener')}")


def _await_drafts(
    client: DemoClient, uids: list[str], step: Callable[[str], None], stop: StopRequest
) -> list[StudyLine]:
    """Say every change until each study has its draft."""
    changed_at = time.monotonic()
    known: dict[str, str] = {}
    while True:
        stop.check()
        studies = client.studies(uids)
        for number, uid in enumerate(uids, 1):
            seen = studies.get(uid)
            now = seen.told() if seen else "on its way"
            if known.get(uid) != now:
                known[uid] = now
                changed_at = time.monotonic()
                step(f"study {number}: {now}")
            if seen and seen.is_lost():
                raise Misconfigured(f"Study {number} ended without a draft ({now}). {LOOK.format('worker-cpu')}")
        if all(uid in studies and studies[uid].report_id for uid in uids):
            return [studies[uid] for uid in uids]
        if time.monotonic() - changed_at > STILL_LIMIT_S:
            log = "worker-gpu" if len(studies) == len(uids) else "indexer"
            raise Misconfigured(
                f"Nothing happened for {STILL_LIMIT_S:.0f} s, and not every study has its draft. {LOOK.format(log)}"
            )
        time.sleep(0.2)


def _invite(doors: Doors, login: str, password: str, *, kept: Path | None, say: Callable[[str], None]) -> None:
    say("")
    say(f"  the worklist:    {doors.url}")
    say(f"  sign in as:      {login}")
    say(f"  password:        {password}")
    say(f"  send your own:   storescu -aec {doors.ae_title} {doors.host} {doors.port} FILE.dcm")
    say("")
    say("Ctrl-C ends the demo" + ("." if kept else " and deletes its data (--data-dir DIR keeps them)."))
