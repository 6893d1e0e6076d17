"""Servers and databases for the tests.

`servers` are those that DATABASE_URL and REDIS_URL name, else the embedded ones on a temporary folder. The schema is
migrated once into a template; `database` and `module_database` are copies of it (about 0.1 s each). With servers of
your own, the role in COUNTERSIGN_OWNER_DATABASE_URL (else in DATABASE_URL) must be allowed to create databases.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateway.launcher.folder import State
from gateway.launcher.postgres import OWNER
from gateway.launcher.processes import StopRequest
from gateway.launcher.servers import Servers
from record.errors import Misconfigured


@dataclass(frozen=True)
class RunningServers:
    """Where the tests' PostgreSQL and Redis are. `admin_url` may create databases."""

    database_url: str
    owner_url: str
    admin_url: str
    redis_url: str
    embedded: Servers | None


@dataclass(frozen=True)
class FreshDatabase:
    """One migrated, empty database: `url` for the programs' role, `owner_url` for the role that migrates."""

    url: str
    owner_url: str


FreshDatabaseMaker = Callable[[], AbstractContextManager[FreshDatabase]]


def missing(reason: str) -> None:
    """A missing service skips on a laptop and fails where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def servers() -> Iterator[RunningServers]:
    url, bell = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    if url and bell:
        owner = os.environ.get("COUNTERSIGN_OWNER_DATABASE_URL") or url
        yield RunningServers(url, owner, owner, bell, None)
        return
    folder = Path(tempfile.mkdtemp(prefix="countersign-tests-"))
    folder.chmod(0o711)  # as root the servers run under another account, which must pass through
    (folder / "logs").mkdir()
    try:
        embedded = Servers(folder, folder / "logs", State(), durable=False)
        embedded.start(StopRequest())
    except Misconfigured as error:
        shutil.rmtree(folder, ignore_errors=True)
        missing(error.message)
        return
    try:
        yield RunningServers(
            database_url=embedded.database_url(),
            owner_url=embedded.owner_database_url(),
            admin_url=embedded.postgres.url("postgres", "postgres"),
            redis_url=embedded.redis_url(),
            embedded=embedded,
        )
    finally:
        embedded.stop(StopRequest())
        for leftover in {folder, embedded.home}:
            shutil.rmtree(leftover, ignore_errors=True)


@pytest.fixture(scope="session")
def fresh_database(servers: RunningServers) -> Iterator[FreshDatabaseMaker]:
    """Makes one migrated database per call: `with fresh_database() as database: …`."""
    from record import migrate

    template = f"countersign_template_{secrets.token_hex(4)}"
    _create(servers, template, f'OWNER "{_role(servers.owner_url)}"')
    migrate.upgrade(_named(servers.owner_url, template))

    @contextlib.contextmanager
    def make() -> Iterator[FreshDatabase]:
        name = f"countersign_test_{secrets.token_hex(4)}"
        _create(servers, name, f'TEMPLATE "{template}" OWNER "{_role(servers.owner_url)}"')
        try:
            yield FreshDatabase(_named(servers.database_url, name), _named(servers.owner_url, name))
        finally:
            _drop(servers, name)

    yield make
    _drop(servers, template)


@pytest.fixture
def database(fresh_database: FreshDatabaseMaker) -> Iterator[FreshDatabase]:
    with fresh_database() as made:
        yield made


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    """The programs' own way into the empty database."""
    from record.db import connect

    made = connect(database.url)
    yield made
    made.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """One transaction in it."""
    from record.db import transaction

    with transaction(engine) as opened:
        yield opened


@pytest.fixture(scope="module")
def module_database(fresh_database: FreshDatabaseMaker) -> Iterator[FreshDatabase]:
    with fresh_database() as made:
        yield made


@pytest.fixture
def redis_url(servers: RunningServers) -> str:
    """The bell; the embedded one is silent at first."""
    if servers.embedded:
        with contextlib.closing(redis.Redis.from_url(servers.redis_url)) as client:
            client.flushall()
    return servers.redis_url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _create(servers: RunningServers, name: str, how: str) -> None:
    with _admin(servers) as session:
        session.execute(f'CREATE DATABASE "{name}" {how}')


def _drop(servers: RunningServers, name: str) -> None:
    with _admin(servers) as session:
        session.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _admin(servers: RunningServers) -> psycopg.Connection:
    return psycopg.connect(servers.admin_url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True)


def _named(url: str, database: str) -> str:
    base, _, _ = url.rpartition("/")
    return f"{base}/{database}"


def _role(url: str) -> str:
    return url.partition("://")[2].partition(":")[0] or OWNER
