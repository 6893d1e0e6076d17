"""The web door behind a proxy: what it says of a request counts where it is named, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from gateway.launcher.processes import free_port
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import PASSWORD, desk_on

SAID = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
"""The first is what the client claimed of itself, the second what the proxy saw."""


@contextlib.contextmanager
def serving(database: FreshDatabase, folder: Path, proxies: str) -> Iterator[httpx.Client]:
    port = free_port()
    log = folder / "api.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway", "gateway", "api"],
            env=os.environ
            | {
                "DATABASE_URL": database.url,
                "COUNTERSIGN_STORE": str(folder / "store"),
                "COUNTERSIGN_HTTP_PORT": str(port),
                "COUNTERSIGN_TRUSTED_PROXIES": proxies,
            },
            stdout=out,
            stderr=out,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    http.get("/healthz")
                    break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield http
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proxies", "secure", "address"),
    [
        ("", False, "127.0.0.1"),
        ("10.9.9.9, 10.8.0.0/16", False, "127.0.0.1"),
        ("10.9.9.9,127.0.0.1", True, "203.0.113.9"),
        ("127.0.0.0/8", True, "203.0.113.9"),
    ],
    ids=["nobody trusted", "somebody else trusted", "its address trusted", "its network trusted"],
)
def test_scheme_and_client_are_believed_of_a_trusted_proxy_alone(
    database: FreshDatabase, tmp_path: Path, proxies: str, secure: bool, address: str
) -> None:
    with desk_on(database, tmp_path / "store") as desk, serving(database, tmp_path, proxies) as http:
        login, report = desk.user(Role.ATTENDING), desk.report_of(desk.study())
        http.headers.update(SAID)
        opened = http.post("/api/v1/session", json={"login": login, "password": PASSWORD})
        assert opened.status_code == 200, opened.text
        cookie = opened.headers["set-cookie"]
        assert ("secure" in cookie.lower()) is secure
        http.headers["Cookie"] = cookie.partition(";")[0]  # a client on plain HTTP keeps no Secure cookie by itself
        http.headers["X-CSRF-Token"] = opened.json()["csrf"]
        seen = http.get(f"/api/v1/reports/{report.id}").json()["text_revision"]
        signed = http.post(f"/api/v1/reports/{report.id}/sign", json={"seen": seen, "shown": 1, "password": PASSWORD})
        assert signed.status_code == 200, signed.text
        with transaction(desk.engine) as session:
            assert session.scalars(text("SELECT client_address FROM signatures")).all() == [address]
