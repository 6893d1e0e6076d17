"""Settings: one class per program on a common base, read from the environment at the door and passed down.

Knows names, units and defaults. Does not know what the programs do with them. Nothing is read at import. Three names
are the outside world's own: `DATABASE_URL`, `REDIS_URL`, and the owner's URL for migrations.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from record.errors import Misconfigured

S = TypeVar("S", bound=BaseSettings)
PHANTOM = "phantom"
MAX_AE_TITLE = 16
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def valid_ae_title(text: str) -> str:
    """An AE title (VR AE, PS3.5 section 6.2) without the spaces around it, which mean nothing.

    Raises
    ------
    ValueError
        It is none.
    """
    title = text.strip(" ")
    if not 1 <= len(title) <= MAX_AE_TITLE or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError(f"an AE title has 1 to {MAX_AE_TITLE} printable ASCII characters and no backslash")
    return title


def valid_engine_url(url: str) -> str:
    """The base URL of an engine's server.

    Raises
    ------
    ValueError
        It is no http or https address of a host.
    """
    fine = not re.search(r"\s", url)
    try:
        parts = urlsplit(url)
        fine = fine and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that does not close, a port that is no number
        fine = False
    if not fine:
        raise ValueError("an engine's URL looks like http://host:8000 or https://host/v1")
    return url


def valid_model(model: str) -> str:
    """A model that can run in the worker's own process, as far as its name and its folder tell.

    Raises
    ------
    ValueError
        It is neither ``phantom``, nor a checkpoint's folder, nor in the form of a hub id.
    """
    folder = Path(model)
    usable = (folder / "config.json").is_file() if model and folder.exists() else _HUB_ID.fullmatch(model)
    if model != PHANTOM and not usable:
        raise ValueError(
            f"a model is {PHANTOM}, a folder with a config.json, or a hub id such as owner/name; with "
            "COUNTERSIGN_ENGINE_URL it is the name that the server lists"
        )
    return model


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value  # compose files pass on what is not set as an empty text


class Base(BaseSettings):
    """What every program needs."""

    model_config = SettingsConfigDict(env_prefix="COUNTERSIGN_", extra="ignore", populate_by_name=True, frozen=True)

    database_url: Annotated[
        SecretStr, Field(validation_alias=AliasChoices("DATABASE_URL", "COUNTERSIGN_DATABASE_URL", "database_url"))
    ]
    """PostgreSQL, as the programs' role (never the owner's)."""
    redis_url: Annotated[
        SecretStr | None, Field(validation_alias=AliasChoices("REDIS_URL", "COUNTERSIGN_REDIS_URL", "redis_url"))
    ] = None
    """Redis or Valkey. It only rings; without it everything still works, a little later."""
    store: Path
    """Folder of the instance and picture store."""
    secrets: Path | None = None
    """Folder of secret files (`seal.key`)."""
    heads_file: Path | None = None
    """File outside the database that keeps every seal head."""


class Sweeping(Base):
    """What a process needs that may run the sweep."""

    sweep_s: float = 1.0
    """Seconds between two sweeps."""
    stable_after_s: float = 60.0
    """Quiet time after which a study is taken as complete."""
    max_wait_s: float = 3600.0
    """A study is closed after this time even if images keep arriving."""
    lease_s: float = 30.0
    """How long a claimed reading stays claimed without a heartbeat."""
    max_failures: int = 5
    """Failures after which a reading ends as failed."""
    backoff_s: float = 2.0
    """Pause before the next try, times the number of failures."""
    max_prepared: int = 64
    """Prepared readings that may wait for a model before routine preparation pauses."""


class ListenerSettings(BaseSettings):
    """The C-STORE listener. It needs its disk alone, so it has no database settings."""

    model_config = SettingsConfigDict(env_prefix="COUNTERSIGN_", extra="ignore", populate_by_name=True, frozen=True)

    spool: Path
    """Folder on a local disk that holds this machine's spools."""
    dicom_host: str = "127.0.0.1"
    dicom_port: int = 11112
    ae_title: Annotated[str, AfterValidator(valid_ae_title)] = "COUNTERSIGN"
    open_peers: bool = False
    """Take unknown senders. Only on a loopback address."""
    max_associations: int = 100
    min_free_bytes: int = 512 * 1024 * 1024
    """Below this much free disk space new instances are refused with 0xA700."""
    idle_timeout_s: float = 60.0
    """A peer that sends nothing for this long is cut off."""
    open_timeout_s: float = 10.0
    """A connection that has not asked for an association after this long is cut off."""


class IndexerSettings(Base):
    """The indexer: spooled files become rows."""

    spool: Path
    poll_s: float = 0.05
    """Pause between two looks at the spool."""
    batch: int = 64
    """Files per transaction."""


class SweepSettings(Sweeping):
    """`countersign gateway sweep`."""


class ApiSettings(Sweeping):
    """The web door."""

    http_host: str = "127.0.0.1"
    http_port: int = 8042
    session_s: float = 8 * 3600.0
    """A session ends after this many seconds."""
    session_idle_s: float = 3600.0
    """A session ends after this many seconds without a request."""


class WorkerSettings(Sweeping):
    """Both workers. The cpu worker binds a reading to `model`; the gpu worker serves it."""

    engine_url: Annotated[Annotated[str, AfterValidator(valid_engine_url)] | None, BeforeValidator(_none_if_blank)] = (
        None
    )
    """Base URL of an OpenAI-compatible server; without it the model runs in this process."""
    model: str = PHANTOM
    """phantom, a checkpoint's folder, or a hub id; with `engine_url`, the name that its server lists."""
    engine_key_file: Path | None = None
    slots: int = 4
    """Readings that share the engine (= Celery threads)."""
    cpu_processes: int = 2
    """Prefork children that prepare readings."""
    decode_memory_bytes: int = 3 * 1024**3
    """Address space of a decoding child."""
    decode_cpu_s: int = 120
    """CPU seconds of a decoding child."""
    decode_timeout_s: float = 60.0
    grace_s: float = 25.0
    """Seconds that work in flight may take at shutdown before it is handed back."""
    deadline_s: float = 900.0
    """A reading in flight longer than this means that the process is wedged; it exits and is restarted."""
    stall_s: float = 60.0
    """Work waits and no wake-up arrived for this long: the consumer is deaf; the process exits and is restarted."""

    @field_validator("model")
    @classmethod
    def _can_run_here(cls, model: str, info: ValidationInfo) -> str:
        local = info.data.get("engine_url", ...) is None  # absent when the URL itself is wrong
        return valid_model(model) if local else model


def load(cls: type[S]) -> S:
    """Read the settings of one program from the environment.

    Raises
    ------
    Misconfigured
        A setting is missing or has a value of the wrong kind; the message names it and never repeats its value.
    """
    try:
        return cls()
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        names = ", ".join(
            f"{_environment_name(str(fault['loc'][0]), prefix)} ({_said(fault)})" for fault in error.errors()
        )
        message = f"Settings are missing or wrong: {names}. Set them in the environment or pass --data-dir."
        raise Misconfigured(message) from None


def _said(fault: ErrorDetails) -> str:
    ours = fault.get("ctx", {}).get("error")
    return str(ours) if isinstance(ours, ValueError) else fault["msg"].lower()


def _environment_name(location: str, prefix: str) -> str:
    return location if location.isupper() else f"{prefix}{location}".upper()
