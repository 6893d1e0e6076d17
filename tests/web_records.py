"""A site on record for the web door's tests: a database, a store, people with sessions, machines with tokens, studies."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydicom import dcmread
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from gateway.headers import read_header
from gateway.web.app import create_app
from record import accounts, admission, claims, drafts, reports, studies
from record.body import Body
from record.db import connect, transaction
from record.ids import new_id
from record.models import Instance, Reading, Report, Site, Study, User
from record.part10 import data_set_digest, data_set_offset
from record.settings import ApiSettings
from record.states import Role
from record.store import Kind, Store
from tests.conftest import FreshDatabase
from tests.instances import instance, saved
from tests.records import arrival, draft_body, study_of, uid

PASSWORD = "correct horse battery"
MACHINES = (Role.OPERATOR, Role.AUDITOR, Role.DASHBOARD, Role.INTAKE, Role.ADMIN)


@dataclass
class Desk:
    """One web door on a database of its own."""

    app: FastAPI
    engine: Engine
    store: Store
    tokens: dict[str, str] = field(default_factory=dict)

    def client(self, **options: Any) -> TestClient:
        """A client that nobody is signed in to."""
        return TestClient(self.app, raise_server_exceptions=False, follow_redirects=False, **options)

    def user(self, role: Role, *, login: str | None = None, site: str | None = "main") -> str:
        """The login of a person, added if need be."""
        login = login or f"{site}-{role}"
        with transaction(self.engine) as session:
            known = session.query(User).filter_by(login=login).count()
            if not known:
                accounts.add_user(
                    session, site=site, login=login, printed_name=f"Dr. {role.title()}", role=role, password=PASSWORD
                )
        return login

    def signed_in(self, role: Role, *, login: str | None = None, site: str | None = "main") -> TestClient:
        """A client with a session of that role, and its CSRF header."""
        client = self.client()
        login = self.user(role, login=login, site=site)
        answer = client.post("/api/v1/session", json={"login": login, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
        return client

    def machine(self, role: Role, *scopes: str, site: str | None = "main") -> TestClient:
        """A client with a token of that role."""
        name = f"{site}-{role}-{'-'.join(scopes)}"
        if name not in self.tokens:
            with transaction(self.engine) as session:
                self.tokens[name] = accounts.add_token(session, site=site, name=name, role=role, scopes=scopes)
        client = self.client()
        client.headers["Authorization"] = f"Bearer {self.tokens[name]}"
        return client

    def study(self, *, ends: str = "done", body: Body | None = None, site: str | None = "main", **header: Any) -> str:
        """A closed study whose reading has ended as said; returns its UID."""
        study_uid = uid()
        with transaction(self.engine) as session:
            self.add_images(session, study_uid, site=site, **header)
            self.read(session, study_uid, ends=ends, body=body)
        return study_uid

    def add_images(self, session: Session, study_uid: str, *, site: str | None = "main", **header: Any) -> Study:
        """One more image for a study, which is then closed."""
        came = arrival(study_uid, **header)
        self.store.put(Kind.INSTANCE, came.instance_id.hex, film())
        admission.admit(session, [_at_site(came, site)])
        study = study_of(session, study_uid)
        session.refresh(study, with_for_update=True)
        studies.freeze(session, study, "test", {})
        session.flush()
        return study

    def take(self, files: Iterable[Path | bytes], *, site: str | None = "main", study_uid: str | None = None) -> str:
        """Take part-10 files as the indexer does, with their bytes in the store; returns the last one's study.

        `study_uid` says whose they are instead of the files themselves.
        """
        arrivals = []
        for each in files:
            content = each if isinstance(each, bytes) else each.read_bytes()
            syntax = str(dcmread(io.BytesIO(content), stop_before_pixels=True).file_meta.TransferSyntaxUID)
            header = read_header(content, syntax, data_set_offset(io.BytesIO(content)))
            if study_uid:
                header = replace(header, study_instance_uid=study_uid)
            digest, size_bytes = data_set_digest(io.BytesIO(content))
            arrivals.append(
                admission.Arrival(
                    new_id(), header, digest, size_bytes, datetime.now(UTC), "dicom", "TEST", "127.0.0.1", site
                )
            )
            self.store.put(Kind.INSTANCE, arrivals[-1].instance_id.hex, content)
        with transaction(self.engine) as session:
            admission.admit(session, arrivals)
        return arrivals[-1].header.study_instance_uid

    def read(self, session: Session, study_uid: str, *, ends: str = "done", body: Body | None = None) -> None:
        """Take the study's queued reading through its life, as the workers would."""
        study = study_of(session, study_uid)
        if ends == "queued" or study.state == "skipped":
            return
        claim = claims.claim_prepare(session, "test", 30, max_prepared=64, model="phantom")
        assert claim is not None
        assert claim.study_id == study.id
        if ends == "abstained":
            claims.abstain(session, claim, "no_protocol", "No protocol matches this study.")
            return
        if ends == "failed":
            claims.fail(session, claim, "error", "It broke.", max_failures=1, backoff_s=0)
            return
        instance = session.query(Instance).filter_by(study_id=study.id).order_by(Instance.created_at.desc()).first()
        assert instance is not None
        claims.finish_prepare(
            session,
            claim,
            protocol="phantom-chest",
            protocol_version="1",
            protocol_digest="d" * 64,
            model="phantom",
            pictures=[
                claims.PreparedPicture(
                    instance_id=instance.id,
                    frame=0,
                    sha256=self.picture(str(study.study_instance_uid)),
                    height=192,
                    width=192,
                    caption="DX, view PA",
                    reason="no image of the study was left out",
                    rendering={"window": [0, 4095]},
                )
            ],
            omitted=[],
        )
        claim = claims.claim_draft(session, "test", 30, model="phantom")
        assert claim is not None
        claims.finish_done(session, claim)
        said = body or draft_body()
        draft = drafts.write(
            session,
            reading_id=claim.reading_id,
            study_id=study.id,
            site_id=claim.site_id,
            body=said,
            flags=["low_confidence"],
            provenance={"model": {"name": "phantom", "weights_sha256": "e" * 64}, "temperature": "0", "seed": 7},
            steps=[],
        )
        reports.open_draft(session, session.get_one(Reading, claim.reading_id, populate_existing=True), draft)

    def picture(self, seed: str) -> str:
        """A picture in the store; returns its sha256."""
        content = chest(int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16))
        key = hashlib.sha256(content).hexdigest()
        self.store.put(Kind.PICTURE, key, content)
        return key

    def report_of(self, study_uid: str) -> Report:
        """The study's newest report."""
        with transaction(self.engine) as session:
            study = study_of(session, study_uid)
            report = session.query(Report).filter_by(study_id=study.id).order_by(Report.created_at.desc()).first()
        assert report is not None
        return report

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The facts of every event of a kind, oldest first."""
        with transaction(self.engine) as session:
            return list(
                session.scalars(text("SELECT facts FROM events WHERE kind = :kind ORDER BY at").bindparams(kind=kind))
            )


@contextlib.contextmanager
def desk_on(database: FreshDatabase, folder: Path, **settings: Any) -> Iterator[Desk]:
    """A web door on a database, with two sites."""
    engine = connect(database.url)
    made = ApiSettings(database_url=database.url, store=folder, **settings)
    with transaction(engine) as session:
        only = session.query(Site).first()
        if only is None:
            session.add(Site(name="main"))
        else:
            only.name = "main"
        session.flush()
        session.add(Site(name="elsewhere"))
    app = create_app(made, engine)
    try:
        yield Desk(app, engine, Store(folder))
    finally:
        app.state.web.decoders.close()
        engine.dispose()


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of a real server before the door, on a loopback port."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False, server_header=False, lifespan="off")
    )
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    while not server.started:
        assert serving.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    serving.join(20)


@cache
def film() -> bytes:
    """A part-10 file with a small picture, for images whose bytes are looked at."""
    ds = instance(32, Modality="CR", BitsStored=12, HighBit=11)
    ds.PixelData = (np.arange(32 * 32, dtype="<u2") * 4).tobytes()  # (32 · 32,)
    with tempfile.TemporaryDirectory() as folder:
        return saved(Path(folder), ds).read_bytes()


def chest(seed: int, side: int = 1) -> bytes:
    """A PNG that looks a little like a chest film; synthetic. `side` is the spot's: -1 the patient's right."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:192j, -1:1:192j]  # each (192, 192)
    body = 150 * np.exp(-((x / 0.85) ** 6 + (y / 1.05) ** 8))
    lungs = sum(np.exp(-(((x - each * 0.4) / 0.27) ** 4 + ((y + 0.05) / 0.6) ** 4)) for each in (-1, 1))
    heart = 60 * np.exp(-(((x - 0.14) / 0.25) ** 2 + ((y - 0.35) / 0.3) ** 2))
    spot = 55 * np.exp(-(((x - side * 0.42) / 0.12) ** 2 + ((y + 0.3) / 0.1) ** 2))
    ribs = 9 * np.sin(22 * (y + 0.25 * np.abs(x))) * (lungs > 0.2)
    grey = np.clip(body - 105 * lungs + heart + spot + ribs + rng.normal(0, 3, x.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(out, "PNG")
    return out.getvalue()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is this problem; returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["code"] == code
    assert {"type", "title", "detail"} <= found.keys()
    return found


def csrf_of(page: httpx.Response) -> str:
    """The CSRF token in a page's forms."""
    return page.text.partition('name="csrf" value="')[2].partition('"')[0]


def _at_site(came: admission.Arrival, site: str | None) -> admission.Arrival:
    return replace(came, site_name=site)
