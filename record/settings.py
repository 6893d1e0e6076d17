"""Settings: one class per program on a common base, read from the environment at the door and passed down.

Knows names, units and defaults, and describes each field (`field.description`; the settings table is made from that).
Does not know what the programs do with them. Nothing is read at import. Three names are the outside world's own:
`DATABASE_URL`, `REDIS_URL`, and the owner's URL for migrations. Each of the three may come from a file: `NAME_FILE`
holds its path, as the images of PostgreSQL have it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from record.errors import Misconfigured

S = TypeVar("S", bound=BaseSettings)
PHANTOM = "phantom"
MAX_AE_TITLE = 16
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FILE = "_FILE"
"""What a setting's name ends with where its value is the path of a file that holds it."""
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


def valid_redis_url(url: SecretStr) -> SecretStr:
    """The URL of Redis or Valkey; an empty one is none.

    Raises
    ------
    ValueError
        It is no address of a server; the message does not repeat it.
    """
    raw = url.get_secret_value()
    try:
        parts = urlsplit(raw)
        fine = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
        fine = fine and bool(re.fullmatch(r"/?[0-9]*", parts.path))
    except ValueError:  # a bracket that does not close, a port that is none
        fine = False
    if raw and not fine:
        raise ValueError("it looks like redis://:PASSWORD@HOST:PORT/0")
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


def valid_log_level(level: str) -> str:
    """The name of a level of logging, in capitals.

    Raises
    ------
    ValueError
        It is none.
    """
    if level.upper() not in LOG_LEVELS:
        raise ValueError(f"a level is {', '.join(LOG_LEVELS)}")
    return level.upper()


def valid_proxies(proxies: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses and networks of proxies.

    Raises
    ------
    ValueError
        One is neither.
    """
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise ValueError("proxies are IP addresses or networks such as 10.0.0.5,10.1.0.0/24") from None
    return proxies


def valid_uids(uids: tuple[str, ...]) -> tuple[str, ...]:
    """UIDs (PS3.5, 9.1).

    Raises
    ------
    ValueError
        One is none.
    """
    if not all(re.fullmatch(r"[0-9]+(\.[0-9]+)+", each) and len(each) <= 64 for each in uids):
        raise ValueError("UIDs are numbers with points between them, such as 1.3.12.2.1107.5.9.1")
    return uids


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value  # compose files pass on what is not set as an empty text


def _listed(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


_CONFIG = SettingsConfigDict(
    env_prefix="COUNTERSIGN_", extra="ignore", populate_by_name=True, frozen=True, use_attribute_docstrings=True
)


class Program(BaseSettings):
    """What every program reads."""

    model_config = _CONFIG

    log_level: Annotated[str, AfterValidator(valid_log_level), BeforeValidator(lambda told: told or "INFO")] = "INFO"
    """The least that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""


class Base(Program):
    """What every program needs that works on the record."""

    database_url: Annotated[
        SecretStr, Field(validation_alias=AliasChoices("DATABASE_URL", "COUNTERSIGN_DATABASE_URL", "database_url"))
    ]
    """PostgreSQL, as the programs' role (never the owner's); or DATABASE_URL_FILE, a file that holds the URL."""
    redis_url: Annotated[
        Annotated[SecretStr, AfterValidator(valid_redis_url)] | None,
        Field(validation_alias=AliasChoices("REDIS_URL", "COUNTERSIGN_REDIS_URL", "redis_url")),
    ] = None
    """Redis or Valkey; or REDIS_URL_FILE. It only rings; without it everything still works, a little later."""
    store: Path
    """Folder of the instance and picture store; one for all machines, on a shared file system."""
    secrets: Path | None = None
    """Folder of secret files (`seal.key`). Whoever sweeps without it leaves the events unsealed."""
    heads_file: Path | None = None
    """File outside the database that keeps every seal head."""
    report_s: float = 5.0
    """How often a process says that it is here; `countersign status` calls it silent after three times that."""


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


class TlsSettings(Program):
    """What a program needs that speaks DICOM over TLS."""

    dicom_tls_certificate: Annotated[Path | None, BeforeValidator(_none_if_blank)] = None
    """PEM file with our certificate for DICOM over TLS, and those between it and its authority. Read anew when it changes."""
    dicom_tls_key: Annotated[Path | None, BeforeValidator(_none_if_blank)] = None
    """PEM file with its key, without a password."""
    dicom_tls_ca: Annotated[Path | None, BeforeValidator(_none_if_blank)] = None
    """PEM file with the authorities that certify peers; a peer without a certificate of theirs is not taken, nor called, there."""


class ListenerSettings(TlsSettings):
    """The C-STORE listener. It needs its disk alone, so it has no database settings."""

    spool: Path
    """Folder on a local disk that holds this machine's spools."""
    dicom_host: str = "127.0.0.1"
    """Address on which the listener takes associations; 0.0.0.0 for all of this machine."""
    dicom_port: int = 11112
    """Its port."""
    dicom_tls_port: Annotated[Annotated[int, Field(ge=0, le=65535)] | None, BeforeValidator(_none_if_blank)] = None
    """Port for DICOM over TLS 1.2 or newer with certificates on both sides, usually 2762; none without it."""
    ae_title: Annotated[str, AfterValidator(valid_ae_title)] = "COUNTERSIGN"
    """What senders call us: 1 to 16 printable ASCII characters."""
    private_sop_classes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(valid_uids)] = ()
    """SOP Class UIDs of private storage classes that are taken as well, with commas."""
    open_peers: bool = False
    """Take unknown senders. Only on a loopback address."""
    max_associations: int = 100
    """Associations at a time; one more is rejected as a passing state. At most 400."""
    receivers: Annotated[int, Field(ge=0, le=32)] = 0
    """Receiving processes on the one port, each with a spool of its own; 0 for one a processor, four at most."""
    min_free_bytes: int = 512 * 1024 * 1024
    """Below this much free disk space new instances are refused with 0xA700."""
    idle_timeout_s: float = 60.0
    """A peer that sends nothing for this long is cut off."""
    open_timeout_s: float = 10.0
    """A connection that has not asked for an association after this long is cut off."""
    database_url: Annotated[
        SecretStr | None,
        BeforeValidator(_none_if_blank),
        Field(validation_alias=AliasChoices("DATABASE_URL", "COUNTERSIGN_DATABASE_URL", "database_url")),
    ] = None
    """PostgreSQL, needed for strict peers alone: an image of theirs is compared with what is on record before it is taken."""
    report_s: float = 5.0
    """How often it tells, in a file of its spool, that it is here; the indexer passes that on."""


class IndexerSettings(Base):
    """The indexer: spooled files become rows."""

    spool: Path
    """Folder on a local disk that holds this machine's spools; `--spool` drains another."""
    poll_s: float = 0.05
    """Pause between two looks at the spool."""
    batch: int = 64
    """Files per transaction."""


class SweepSettings(Sweeping):
    """`countersign gateway sweep`."""


class CourierSettings(Base, TlsSettings):
    """The courier: every call to somebody else's server."""

    courier_s: float = 1.0
    """Seconds between two looks for errands."""
    call_timeout_s: float = 20.0
    """How long a peer may take to answer."""
    count_after_s: float = 5.0
    """A peer whose count is asked for is asked when its study has been quiet for so long."""
    ae_title: Annotated[str, AfterValidator(valid_ae_title)] = "COUNTERSIGN"
    """What peers that we call know us by."""


class ApiSettings(Base):
    """The web door."""

    http_host: str = "127.0.0.1"
    """Address on which the API and the pages are served."""
    http_port: int = 8042
    """Its port."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(valid_proxies)] = ()
    """Addresses or networks of the TLS proxies in front, with commas: theirs alone is believed what X-Forwarded-For
    and X-Forwarded-Proto say of a request."""
    session_s: float = 8 * 3600.0
    """A session ends after this many seconds."""
    session_idle_s: float = 3600.0
    """A session ends after this many seconds without a request."""
    decode_children: Annotated[int, Field(ge=1, le=16)] = 2
    """Children that render frames for people, each about 60 MB, 100 MB after a film of 3000²; none is started before somebody looks at one."""
    decode_memory_bytes: int = 3 * 1024**3
    """Address space of such a child."""
    decode_cpu_s: int = 120
    """CPU seconds of such a child."""
    decode_timeout_s: float = 20.0
    """Seconds for one frame; then the child is replaced."""
    decode_wait_s: float = 10.0
    """Seconds that a request waits for a free child; then it is told to come again (503)."""


class WorkerSettings(Sweeping):
    """Both workers. The cpu worker binds a reading to `model`; the gpu worker serves it."""

    engine_url: Annotated[Annotated[str, AfterValidator(valid_engine_url)] | None, BeforeValidator(_none_if_blank)] = (
        None
    )
    """Base URL of an OpenAI-compatible server; without it the model runs in this process."""
    model: str = PHANTOM
    """phantom, a checkpoint's folder, or a hub id; with `engine_url`, the name that its server lists."""
    engine_key_file: Path | None = None
    """File that holds the engine server's key, sent as a bearer token."""
    slots: int = 4
    """Readings that share the engine (= Celery threads)."""
    cpu_processes: int = 2
    """Prefork children that prepare readings."""
    decode_memory_bytes: int = 3 * 1024**3
    """Address space of a decoding child."""
    decode_cpu_s: int = 120
    """CPU seconds of a decoding child."""
    decode_timeout_s: float = 60.0
    """Seconds for one frame; then the child is replaced."""
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


class EmbeddedSettings(BaseSettings):
    """Where `countersign up` and `upgrade` find the servers that they run themselves, and as whom."""

    model_config = _CONFIG | SettingsConfigDict(env_prefix="EMBEDDED_")

    postgres_bin: Annotated[Path | None, BeforeValidator(_none_if_blank)] = None
    """Folder with PostgreSQL's `postgres` and `initdb`; without it the wheel's, the path's or the system's newest."""
    postgres_old_bin: Annotated[Path | None, BeforeValidator(_none_if_blank)] = None
    """The same of the former major version, whose programs `countersign upgrade` needs once."""
    redis_bin: Annotated[Path | None, BeforeValidator(_none_if_blank)] = None
    """The program of a Valkey or Redis server."""
    os_user: Annotated[str | None, BeforeValidator(_none_if_blank)] = None
    """As root: the account that runs the servers; without it `postgres`, else `nobody`."""


def secret(name: str) -> str | None:
    """What the environment holds under a name, or the file that `NAME_FILE` names; None where neither is set.

    Raises
    ------
    Misconfigured
        Both are set, or the file is empty or cannot be read.
    """
    plain, path = os.environ.get(name), os.environ.get(name + FILE)
    if not path:
        return plain or None
    if plain:
        raise Misconfigured(f"{name} and {name}{FILE} are both set. Keep one of them.")
    try:
        held = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Misconfigured(f"The file that {name}{FILE} names, {path}, cannot be read: {why}.") from None
    if not held:
        raise Misconfigured(f"The file that {name}{FILE} names, {path}, is empty.")
    return held


def load(cls: type[S], **given: Any) -> S:
    """Read the settings of one program from the environment, and from the files that it names; what is `given` is not looked for.

    Raises
    ------
    Misconfigured
        A setting is missing or has a value of the wrong kind; the message names it and never repeats its value.
    """
    from_files: dict[str, Any] = {
        field: secret(name)
        for field, name in (("database_url", "DATABASE_URL"), ("redis_url", "REDIS_URL"))
        if field in cls.model_fields and field not in given and os.environ.get(name + FILE)
    }
    try:
        return cls(**from_files, **given)
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
