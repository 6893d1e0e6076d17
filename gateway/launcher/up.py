"""`countersign up`: every part of the line in one foreground command, on a data folder.

Knows the order: folder, servers, migration, parts, readiness; and the same backwards. Does not know how a part works.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from gateway.dicom import tls
from gateway.launcher.folder import DataFolder, State
from gateway.launcher.processes import StopRequest, command_line, free_port, kill_group, spawn, tail
from gateway.launcher.readiness import dicom_answers, http_answers, http_url, reachable
from gateway.launcher.servers import Servers
from gateway.launcher.supervisor import IN_SECONDS, MOST_DEATHS, Part, Supervisor
from gateway.ports import bind_fault, why_not
from record.db import parse_url
from record.errors import Misconfigured
from record.settings import (
    FILE,
    ListenerSettings,
    load,
    secret,
    valid_ae_title,
    valid_engine_url,
    valid_model,
    valid_redis_url,
)

READY_LIMIT_S = 120.0
COMMAND = (sys.executable, "-P", "-m")  # -P: the caller's folder must not lend us its modules
TLS_PORT = "COUNTERSIGN_DICOM_TLS_PORT"
PARTS = (
    Part("listener", (*COMMAND, "gateway", "gateway", "listener"), stage=1, stop_s=15),
    Part("api", (*COMMAND, "gateway", "gateway", "api"), stage=1, stop_s=15),
    Part("worker-cpu", (*COMMAND, "worker", "cpu"), stage=2, stop_s=30),
    Part("worker-gpu", (*COMMAND, "worker", "gpu"), stage=2, stop_s=30),
    Part("indexer", (*COMMAND, "gateway", "gateway", "indexer"), stage=3, stop_s=15),
    Part("sweep", (*COMMAND, "gateway", "gateway", "sweep"), stage=3, stop_s=15),
    Part("courier", (*COMMAND, "gateway", "gateway", "courier"), stage=3, stop_s=30),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the person at the terminal chose. Port 0: the one of the last time, else any free one."""

    data_dir: Path
    dicom_host: str = "127.0.0.1"
    dicom_port: int = 11112
    http_host: str = "127.0.0.1"
    http_port: int = 8042
    ae_title: str = "COUNTERSIGN"
    stable_after_s: float = 60.0
    model: str = "phantom"
    open_peers: bool = False


def run(options: Options, *, say: Callable[[str], None], echo: Callable[[str, str], None]) -> None:
    """Run everything until SIGINT or SIGTERM; returns after a clean stop.

    Raises
    ------
    Misconfigured
        Something is not as it must be; the message says what to do. Nothing is left running.
    """
    options = _checked(options)
    folder = DataFolder(options.data_dir)
    if not folder.run.is_dir():  # no former run has our ports: what is refused is told before anything is made
        _choose_ports(options, State())
        _has_own_servers()
    folder.prepare()
    with folder.locked():
        stop = StopRequest()
        stop.listen()
        say(f"everything is kept in {folder.root}; what the parts say is kept in {folder.logs}")
        state = folder.read_state()
        folder.require_whole(state)
        state.ready = False
        _end_leftovers(state)
        ports = _choose_ports(options, state)
        servers = None if _has_own_servers() else _servers(folder, state, say)
        supervisor = None
        try:
            if servers:
                servers.start(stop)
            state.embedded = servers is not None
            former, state.environment = state.environment, _environment(options, folder, servers, ports)
            _tell_moved(former, state.environment, say)
            state.owner_database_url = _owner_url(servers)
            folder.write_state(state)
            stop.check()
            say("migrating the database")
            _migrate(state, stop)
            supervisor = Supervisor(folder.logs, _inherited() | state.environment, say=say, echo=echo, stop=stop)
            say("starting " + ", ".join(part.name for part in PARTS))
            for part in PARTS:
                supervisor.start(part)
            state.pids = supervisor.pids()
            folder.write_state(state)
            watch = _Watch(folder, state, servers, supervisor, say, stop)
            _await_doors(options, ports, watch, stop)
            state.ready = True
            folder.write_state(state)
            address = f"{reachable(options.dicom_host)}:{ports['dicom']}"
            url = http_url(options.http_host, ports["http"])
            by_tls = f" dicom_tls={reachable(options.dicom_host)}:{port}" if (port := os.environ.get(TLS_PORT)) else ""
            print(f"ready dicom={address} aet={options.ae_title} http={url}{by_tls}", flush=True)  # noqa: T201  the contract
            while not stop:
                watch.look()
                time.sleep(0.1)
        finally:
            say("stopping")
            state.ready = False
            if supervisor:
                supervisor.stop()
            if servers:
                servers.stop(stop)
            state.pids = {}
            folder.write_state(state)
            say("stopped")


class _Watch:
    """One look at everything that must run: what died is started again, or the reason is told."""

    def __init__(
        self,
        folder: DataFolder,
        state: State,
        servers: Servers | None,
        supervisor: Supervisor,
        say: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self._folder = folder
        self._state = state
        self._servers = servers
        self._supervisor = supervisor
        self._say = say
        self._stop = stop
        self._deaths: list[float] = []

    def look(self) -> None:
        for server in self._servers.dead() if self._servers else []:
            now = time.monotonic()
            self._deaths = [*(death for death in self._deaths if now - death < IN_SECONDS), now]
            name = type(server).__name__
            if len(self._deaths) >= MOST_DEATHS:
                raise Misconfigured(
                    f"{name} ended again and again, so everything is stopped. Its log is {server.log}, the last lines:\n"
                    f"{tail(server.log)}"
                )
            self._say(f"{name} ended; it is started again")
            server.restart(self._stop)
        if self._supervisor.tend():
            self._state.pids = self._supervisor.pids()
            self._folder.write_state(self._state)


def _await_doors(options: Options, ports: dict[str, int], watch: _Watch, stop: StopRequest) -> None:
    """Return when both doors answer."""
    deadline = time.monotonic() + READY_LIMIT_S
    waiting: dict[str, Callable[[], bool]] = {
        "the listener (C-ECHO)": lambda: dicom_answers(options.dicom_host, ports["dicom"], options.ae_title),
        "the API (/readyz)": lambda: http_answers(options.http_host, ports["http"]),
    }
    while waiting:
        stop.check()
        watch.look()
        for name in [name for name, answers in waiting.items() if answers()]:
            del waiting[name]
        if waiting and time.monotonic() > deadline:
            raise Misconfigured(
                f"Not ready after {READY_LIMIT_S:.0f} s: no answer from {' and '.join(waiting)}. Read the logs in "
                f"{options.data_dir / 'logs'}."
            )
        time.sleep(0.1)


def _servers(folder: DataFolder, state: State, say: Callable[[str], None]) -> Servers:
    say("starting PostgreSQL and Valkey (a few seconds the first time)")
    servers = Servers(folder.root, folder.logs, state)
    folder.write_state(state)
    if servers.home != folder.root:
        say(f"their account cannot enter {folder.root}; their files are in {servers.home}")
    return servers


def _has_own_servers() -> bool:
    """Whether the caller names both servers; one alone is a mistake worth telling."""
    database, bell = secret("DATABASE_URL"), secret("REDIS_URL")
    if bool(database) != bool(bell):
        given, lacking = ("DATABASE_URL", "REDIS_URL") if database else ("REDIS_URL", "DATABASE_URL")
        raise Misconfigured(f"{given} is set and {lacking} is not. Set both to use your own servers, or neither.")
    return bool(database)


def _environment(
    options: Options, folder: DataFolder, servers: Servers | None, ports: dict[str, int]
) -> dict[str, str]:
    """What the parts (and every command with `--data-dir`) find in their environment."""
    places = {
        "COUNTERSIGN_STORE": str(folder.store),
        "COUNTERSIGN_SPOOL": str(folder.spool),
        "COUNTERSIGN_SECRETS": str(folder.secrets),
        "COUNTERSIGN_HEADS_FILE": str(folder.heads_file),
    }
    chosen = {
        "DATABASE_URL": servers.database_url() if servers else secret("DATABASE_URL") or "",
        "REDIS_URL": servers.redis_url() if servers else secret("REDIS_URL") or "",
        "COUNTERSIGN_DICOM_HOST": options.dicom_host,
        "COUNTERSIGN_DICOM_PORT": str(ports["dicom"]),
        "COUNTERSIGN_AE_TITLE": options.ae_title,
        "COUNTERSIGN_HTTP_HOST": options.http_host,
        "COUNTERSIGN_HTTP_PORT": str(ports["http"]),
        "COUNTERSIGN_STABLE_AFTER_S": str(options.stable_after_s),
        "COUNTERSIGN_MODEL": options.model,
        "COUNTERSIGN_OPEN_PEERS": str(int(options.open_peers)),
    }
    callers = {name: value for name, value in _inherited().items() if name.startswith("COUNTERSIGN_")}
    return places | callers | chosen


def _inherited() -> dict[str, str]:
    """The caller's environment without the owner's URL, which only the migration sees, and without files of URLs."""
    names = ("DATABASE_URL", "REDIS_URL", "COUNTERSIGN_OWNER_DATABASE_URL")
    apart = {"COUNTERSIGN_OWNER_DATABASE_URL", *(name + FILE for name in names)}
    inherited = {name: value for name, value in os.environ.items() if name not in apart}
    return inherited | {"PYTHONUNBUFFERED": "1"}


def _owner_url(servers: Servers | None) -> str:
    if servers:
        return servers.owner_database_url()
    return secret("COUNTERSIGN_OWNER_DATABASE_URL") or secret("DATABASE_URL") or ""


def _migrate(state: State, stop: StopRequest) -> None:
    """Bring the schema up to date, in a process of its own that alone sees the owner's URL."""
    owner = {"COUNTERSIGN_OWNER_DATABASE_URL": state.owner_database_url}
    process = spawn(
        (*COMMAND, "gateway", "migrate"),
        env=_inherited() | state.environment | owner,
        cwd=None,
        output=subprocess.PIPE,
        death_signal=signal.SIGKILL,
    )
    told, _ = process.communicate()
    stop.check()
    if process.returncode:
        raise Misconfigured(f"The migration failed:\n{told.decode(errors='replace').strip()}")


def _choose_ports(options: Options, state: State) -> dict[str, int]:
    """The two doors' ports; one that cannot be had is told before anything is started."""
    for name, host, wanted in (
        ("dicom", options.dicom_host, options.dicom_port),
        ("http", options.http_host, options.http_port),
    ):
        if fault := bind_fault(host, wanted):
            remedy = f"Choose another with --{name}-port; 0 takes the last port of this folder, or a free one."
            if fault.errno not in {errno.EADDRINUSE, errno.EACCES}:
                remedy = (
                    f"Say --{name}-host with one of its own; 127.0.0.1 is this machine alone, 0.0.0.0 every address."
                )
            raise Misconfigured(f"{why_not(fault, host, wanted)} {remedy}")
        state.ports[name] = wanted or free_port(state.ports.get(name))
    return {name: state.ports[name] for name in ("dicom", "http")}


def _tell_moved(former: Mapping[str, str], now: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Say where the run answered the last time, if that is elsewhere: senders and bookmarks still go there."""
    for title, option, name in (
        ("DICOM host", "--dicom-host", "COUNTERSIGN_DICOM_HOST"),
        ("DICOM port", "--dicom-port", "COUNTERSIGN_DICOM_PORT"),
        ("AE title", "--aet", "COUNTERSIGN_AE_TITLE"),
        ("HTTP host", "--http-host", "COUNTERSIGN_HTTP_HOST"),
        ("HTTP port", "--http-port", "COUNTERSIGN_HTTP_PORT"),
        ("port for DICOM over TLS", TLS_PORT, TLS_PORT),
    ):
        was, will_be = former.get(name), now.get(name)
        if was and was != will_be:
            say(f"the last time its {title} was {was}, now it is {will_be or 'none'}: {option} changes it back")


def _end_leftovers(state: State) -> None:
    """Parts that outlived a killed supervisor, where the system has no parent-death signal."""
    for pid in state.pids.values():
        told = command_line(pid)
        if " -m gateway " in told or " -m worker " in told:
            kill_group(pid)
    state.pids = {}


def _checked(options: Options) -> Options:
    """The options as the parts will read them; what they would refuse is told before anything is made or started."""
    _refuse_open_peers_beyond_loopback(options)
    engine_url = os.environ.get("COUNTERSIGN_ENGINE_URL")
    if database_url := secret("DATABASE_URL"):
        parse_url(database_url)
    named = "--aet (COUNTERSIGN_AE_TITLE)"
    try:
        options = replace(options, ae_title=valid_ae_title(options.ae_title))
        if redis_url := secret("REDIS_URL"):
            named = "REDIS_URL"
            valid_redis_url(SecretStr(redis_url))
        if engine_url:
            named = "COUNTERSIGN_ENGINE_URL"
            valid_engine_url(engine_url)
        else:
            named = "--model (COUNTERSIGN_MODEL)"
            valid_model(options.model)
    except ValueError as error:
        raise Misconfigured(f"{named} cannot be used: {error}.") from None
    if os.environ.get(TLS_PORT):
        tls.of(load(ListenerSettings, spool=options.data_dir, database_url=None))
    return options


def _refuse_open_peers_beyond_loopback(options: Options) -> None:
    try:
        local = options.dicom_host == "localhost" or ipaddress.ip_address(options.dicom_host).is_loopback
    except ValueError:
        local = False
    if options.open_peers and not local:
        raise Misconfigured(
            f"--open-peers takes images from anybody, so it works on loopback addresses only, not on "
            f"{options.dicom_host}. Leave it out and enter the peers, or leave --dicom-host at 127.0.0.1."
        )
