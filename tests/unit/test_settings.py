"""Settings: each described, secrets from files, proxies by address."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from gateway.launcher import up
from gateway.launcher.folder import DataFolder
from record import settings
from record.db import connect
from record.errors import Misconfigured
from record.queue import Bell
from record.settings import ApiSettings, Base, ListenerSettings, load, secret

CLASSES = [
    found
    for found in vars(settings).values()
    if isinstance(found, type) and issubclass(found, BaseSettings) and found is not BaseSettings
]
URL = "postgresql://countersign:canary@host/name"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("COUNTERSIGN_", "DATABASE_URL", "REDIS_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COUNTERSIGN_STORE", str(tmp_path))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_setting_describes_itself_to_the_table(cls: type[BaseSettings]) -> None:
    assert cls.model_fields
    for name, field in cls.model_fields.items():
        assert field.description, f"{cls.__name__}.{name}"
        assert field.description.strip().endswith("."), f"{cls.__name__}.{name} is no sentence"


def test_urls_come_from_the_environment_or_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    assert load(Base).database_url.get_secret_value() == URL
    assert load(Base).redis_url is None
    monkeypatch.setenv("DATABASE_URL", "")  # as a compose file passes on what is not set
    for name, value in (("DATABASE_URL", URL + "2"), ("REDIS_URL", "redis://host/1")):
        (tmp_path / name).write_text(value + "\n")
        monkeypatch.setenv(name + "_FILE", str(tmp_path / name))
    assert load(Base).database_url.get_secret_value() == URL + "2"
    told = load(Base).redis_url
    assert told is not None
    assert told.get_secret_value() == "redis://host/1"
    monkeypatch.setenv("COUNTERSIGN_SPOOL", str(tmp_path))
    assert load(ListenerSettings).spool == tmp_path, "who needs no database is not asked for its file"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://u:canary@h:abc/x"),
        ("DATABASE_URL", "postgresql://u:canary@h:99999/x"),
        ("DATABASE_URL", "canary"),
        ("REDIS_URL", "canary"),
        ("REDIS_URL", "redis://:canary@h:65536/0"),
        ("REDIS_URL", "redis://:canary@h:abc/0"),
        ("REDIS_URL", "redis://:canary@h/first"),
        ("REDIS_URL", "redis://:canary@[h/0"),
        ("REDIS_URL", "http://canary@h"),
        ("REDIS_URL", "redis://:canary@h/0?db=first"),
    ],
)
def test_a_url_that_cannot_be_one_is_told_by_its_name_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("REDIS_URL", "redis://h/0")
    monkeypatch.setenv(name, value)

    def use() -> None:
        made = load(Base)
        connect(made.database_url)
        Bell(made.redis_url)

    with pytest.raises(Misconfigured, match=name) as told:
        use()
    assert "canary" not in told.value.message
    assert "first" not in told.value.message
    if "?" not in value:
        with pytest.raises(Misconfigured, match=name):
            up.run(up.Options(tmp_path / "run"), say=print, echo=print)
        assert not (tmp_path / "run").exists()


def test_a_level_of_logging_is_one_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    for told, level in (("debug", "DEBUG"), ("", "INFO")):
        monkeypatch.setenv("COUNTERSIGN_LOG_LEVEL", told)
        assert load(Base).log_level == level
    monkeypatch.setenv("COUNTERSIGN_LOG_LEVEL", "LOUD")
    with pytest.raises(Misconfigured, match="COUNTERSIGN_LOG_LEVEL"):
        load(Base)


def test_only_who_sweeps_is_asked_for_the_times_of_the_sweep() -> None:
    swept = set(settings.Sweeping.model_fields) - set(Base.model_fields)
    assert not swept & set(ApiSettings.model_fields)
    assert swept <= set(settings.WorkerSettings.model_fields)


def test_what_the_launcher_reads_for_itself_stands_in_the_table() -> None:
    """Every variable that the code reads by name is a setting with a description."""
    described = {
        f"{cls.model_config.get('env_prefix', '')}{name}".upper() for cls in CLASSES for name in cls.model_fields
    }
    read = set()
    for path in (Path(settings.__file__).parents[1] / "gateway" / "launcher").glob("*.py"):
        read |= set(re.findall(r"EMBEDDED_[A-Z_]+", path.read_text()))
    assert read
    assert read <= described


def test_a_url_and_its_file_together_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL)
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(Misconfigured, match="DATABASE_URL and DATABASE_URL_FILE are both set") as told:
        load(Base)
    assert "canary" not in told.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "cannot be read: it is no text"),
    ],
)
def test_a_file_that_holds_nothing_usable_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("COUNTERSIGN_OWNER_DATABASE_URL_FILE", str(path))
    with pytest.raises(Misconfigured, match=f"COUNTERSIGN_OWNER_DATABASE_URL_FILE names, {path},? {said}"):
        secret("COUNTERSIGN_OWNER_DATABASE_URL")


def test_proxies_are_addresses_or_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    assert load(ApiSettings).trusted_proxies == ()
    monkeypatch.setenv("COUNTERSIGN_TRUSTED_PROXIES", " 10.0.0.5, 10.1.0.0/24,fd00::1 ,")
    assert load(ApiSettings).trusted_proxies == ("10.0.0.5", "10.1.0.0/24", "fd00::1")
    for wrong in ("*", "proxy.example", "10.0.0.0/33", "10.0.0.1/24"):
        monkeypatch.setenv("COUNTERSIGN_TRUSTED_PROXIES", wrong)
        with pytest.raises(Misconfigured, match="COUNTERSIGN_TRUSTED_PROXIES"):
            load(ApiSettings)


def test_up_takes_servers_that_files_name_and_hands_the_parts_their_urls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "COUNTERSIGN_OWNER_DATABASE_URL"):
        (tmp_path / name).write_text(f"of-the-{name}\n")
        monkeypatch.setenv(name + "_FILE", str(tmp_path / name))
    assert up._has_own_servers()
    told = up._environment(up.Options(tmp_path), DataFolder(tmp_path), None, {"dicom": 1, "http": 2})
    assert (told["DATABASE_URL"], told["REDIS_URL"]) == ("of-the-DATABASE_URL", "of-the-REDIS_URL")
    assert up._owner_url(None) == "of-the-COUNTERSIGN_OWNER_DATABASE_URL"
    assert not [name for name in up._inherited() | told if name.endswith("URL_FILE")], "both would be refused"


def test_the_folder_of_a_run_wins_over_the_callers_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from click import Command, Context

    from gateway import commands

    monkeypatch.setattr(os, "environ", os.environ | {"DATABASE_URL_FILE": "/nowhere"})
    monkeypatch.setattr("gateway.launcher.folder.environment_of", lambda _folder, owner: {"DATABASE_URL": URL})
    commands._take_environment(Context(Command("verify")), None, tmp_path)
    assert load(Base).database_url.get_secret_value() == URL


def test_what_is_given_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "nowhere"))
    assert load(ListenerSettings, spool=tmp_path, database_url=None).database_url is None
