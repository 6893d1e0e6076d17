"""docker-compose.yml without Docker: what the file says, and its services as processes of this machine.

Each service runs with the very command, environment and secrets that the file gives it, and with nothing else: paths
of a container lead to folders of a test only where the file mounts something there, and ports and host names to free
ports of 127.0.0.1. What an engine does by itself (users, networks, capabilities, limits) is not here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import yaml

from gateway.launcher.binaries import find_postgres, find_valkey
from gateway.launcher.grounds import Grounds, settle
from gateway.launcher.processes import free_port

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
PORTS = {"postgres": 5432, "valkey": 6379, "listener": 11112, "api": 8042, "proxy": 8443, "dicom-proxy": 2762}
"""Where each door listens inside its container."""
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")


def composed(**variables: str) -> dict[str, Any]:
    """The file as compose reads it: variables put in, anchors followed."""

    def put_in(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found["name"]) or found["default"] or ""

    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        return _VARIABLE.sub(put_in, value) if isinstance(value, str) else value

    found: dict[str, Any] = walk(read)
    return found


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), " ".join(rest.split())) for word, _, rest in (x.partition(" ") for x in joined.splitlines() if x)
    ]


class Stage:
    """The services of the file, started one by one in a folder of their own."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="countersign-composed-"))
        self.folder.chmod(0o711)  # as root, PostgreSQL runs under another account, which must pass through
        self.services: dict[str, dict[str, Any]] = composed()["services"]
        self.ports = {name: free_port() for name in PORTS}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._settings = dict(settings)
        self._grounds: Grounds = settle(self.folder, self.folder)
        self._programs = Path(self._grounds.usable(find_postgres())).parent
        self._valkey = Path(self._grounds.usable(find_valkey()))
        self._account = self._grounds.account
        self.secrets = self.folder / "secrets"
        group = {"GROUP": str(self._account.gid)} if self._account else {}
        where = {name.upper(): f"127.0.0.1:{self.ports[name]}" for name in ("postgres", "valkey")}
        subprocess.run([ROOT / "deploy" / "make-secrets", self.secrets], env=os.environ | group | where, check=True)

    # ------------------------------------------------------------------------------------------------ what the file says
    def command(self, name: str) -> list[str]:
        """What runs in the container: the image's entry point where the image is ours, then the command."""
        service = self.services[name]
        entry = ["countersign"] if "build" in service else []
        return [*entry, *service["command"]]

    def environment(self, name: str) -> dict[str, str]:
        """What the service finds in its environment, its env_file first."""
        service = self.services[name]
        from_file = self._settings if service.get("env_file") else {}
        return from_file | {key: str(value) for key, value in service.get("environment", {}).items()}

    def mounts(self, name: str) -> dict[str, Path]:
        """Folder or file in the container → where it is here. Only what the file mounts."""
        service = self.services[name]
        found: dict[str, Path] = {}
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            ours = source.startswith(".")  # files of the repository, which name paths and ports of containers too
            found[target] = self.folder / ("run" if ours else "volumes") / (f"{name}/files" if ours else source)
        home = self.folder / "run" / name / "secrets"
        for secret in service.get("secrets", []):
            found[f"/run/secrets/{secret}"] = home / secret
        if service.get("secrets"):
            found["/run/secrets"] = home
        for number, target in enumerate(service.get("tmpfs", [])):
            found[target] = self.folder / "run" / name / f"tmpfs-{number}"
        return found

    def here(self, name: str, text: str) -> str:
        """A text of the file with paths, ports and hosts of this machine."""
        places = {target: str(place) for target, place in self.mounts(name).items()}
        ports = {str(port): str(self.ports[host]) for host, port in PORTS.items()}
        doors = {f"{host}:{port}": f"127.0.0.1:{ports[str(port)]}" for host, port in PORTS.items()}
        hosts = dict.fromkeys(["0.0.0.0", *self._addresses()], "127.0.0.1")
        known = places | ports | doors | hosts
        longest_first = "|".join(re.escape(each) for each in sorted(known, key=len, reverse=True))
        return re.sub(rf"(?<![\w.-])({longest_first})(?![\w.-])", lambda found: known[found[0]], text)

    def _addresses(self) -> list[str]:
        """The addresses that the file gives to services."""
        networks = [s["networks"] for s in self.services.values() if isinstance(s["networks"], dict)]
        return [each["ipv4_address"] for network in networks for each in network.values()]

    # ------------------------------------------------------------------------------------------------------- what is run
    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start one service."""
        self._lay_out(name)
        if name == "postgres":
            self._initialise()
        argv = self._argv(name, self.command(name))
        if name == "postgres":
            settings = {"port": self.ports[name], "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
            argv += [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
            argv += ["-D", str(self._cluster())]
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                argv,
                env=self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._identity(name),
            )
        self.running[name] = process
        if name == "postgres":
            self._run_init_scripts()
        return process

    def execute(self, name: str, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as `docker compose exec NAME …` would."""
        self._lay_out(name)
        return subprocess.run(
            self._argv(name, list(command)),
            env=self._environment(name),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def health(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the service's own health check."""
        how, *command = self.services[name]["healthcheck"]["test"]
        return self.execute(name, *(command if how == "CMD" else ["sh", "-c", *command]))

    def await_health(self, name: str, timeout_s: float) -> None:
        """Wait until the health check passes."""
        deadline = time.monotonic() + timeout_s
        while True:
            checked = self.health(name)
            if checked.returncode == 0:
                return
            told = self.log(name).read_text(errors="replace")[-2000:]
            assert self.running[name].poll() is None, f"{name} ended: {told}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {checked.stderr}\n{told}"
            time.sleep(0.2)

    def stop(self, *names: str) -> dict[str, tuple[int, float]]:
        """Ask services to stop as compose does; each one's exit status, and the seconds until it was seen to have ended."""
        began = time.monotonic()
        for name in names:
            self.running[name].send_signal(signal.Signals[self.services[name].get("stop_signal", "SIGTERM")])
        ended: dict[str, tuple[int, float]] = {}
        while len(ended) < len(names):
            took_s = time.monotonic() - began
            for name in set(names) - set(ended):
                status = self.running[name].poll()
                if status is not None:
                    ended[name] = (status, took_s)
                assert took_s < seconds(self.services[name]["stop_grace_period"]), f"{name} does not end"
            time.sleep(0.05)
        for name in names:
            del self.running[name]
        return ended

    def log(self, name: str) -> Path:
        """What the service says."""
        return self.folder / f"{name}.log"

    def close(self) -> None:
        """End what still runs."""
        for process in reversed(self.running.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for folder in {self.folder, self._grounds.home}:
            shutil.rmtree(folder, ignore_errors=True)

    def _lay_out(self, name: str) -> None:
        service = self.services[name]
        mounts = self.mounts(name)
        for target, place in mounts.items():
            if not target.startswith("/run/secrets/") and not place.exists():
                place.mkdir(parents=True)
        for passable in (self.folder / "run", self.folder / "volumes", *(self.folder / "run").glob("*")):
            if passable.is_dir():
                passable.chmod(0o711)
        for source, target in (volume.split(":")[:2] for volume in service.get("volumes", [])):
            for file in (ROOT / source).glob("*") if source.startswith(".") else ():
                (mounts[target] / file.name).write_text(self.here(name, file.read_text(encoding="utf-8")))
        for secret in service.get("secrets", []):
            original, copy = self.secrets / secret, mounts[f"/run/secrets/{secret}"]
            if not copy.exists():
                shutil.copy2(original, copy)
                shutil.chown(copy, group=original.stat().st_gid)
        if name in {"postgres", "valkey"} and self._account:
            for target, place in mounts.items():
                if place.is_dir() and self.folder in place.parents and not target.startswith("/run/secrets"):
                    self._grounds.give(place)

    def _argv(self, name: str, command: list[str]) -> list[str]:
        program, *rest = command
        if program == "countersign":
            start = [sys.executable, "-P", "-m", "gateway"]
        elif (self._programs / program).exists():
            start = [str(self._programs / program)]
        elif program == "valkey-server":
            start = [str(self._valkey)]
        else:
            start = [program]
        return [*start, *(self.here(name, part) for part in rest)]

    def _environment(self, name: str) -> dict[str, str]:
        bare = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        path = os.pathsep.join([str(self._tools()), str(self._programs), os.environ["PATH"]])
        mapped = {key: self.here(name, value) for key, value in self.environment(name).items()}
        for key, value in mapped.items():
            lost = value.startswith("/") and not Path(value).is_relative_to(self.folder)
            assert not lost, f"{name}: {key} names {value}, where nothing is mounted"
        return bare | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | mapped

    def _tools(self) -> Path:
        """A folder with `valkey-cli`, by whatever name this machine has it."""
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        found = valkey_cli()
        if found and not (tools / "valkey-cli").exists():
            (tools / "valkey-cli").symlink_to(found)
        return tools

    def _identity(self, name: str) -> dict[str, Any]:
        if name not in {"postgres", "valkey"} or not self._account:
            return {}
        return {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}

    # ------------------------------------------------------------------------- what the image of PostgreSQL does by itself
    def _cluster(self) -> Path:
        return self.mounts("postgres")["/var/lib/postgresql"] / "18" / "docker"

    def _initialise(self) -> None:
        environment = self._environment("postgres")
        cluster = self._cluster()
        cluster.mkdir(parents=True)
        for folder in (cluster.parent, cluster):
            self._grounds.give(folder)
        subprocess.run(
            [
                self._programs / "initdb",
                "-D",
                cluster,
                "--username=postgres",
                f"--pwfile={environment['POSTGRES_PASSWORD_FILE']}",
                "--auth=scram-sha-256",
                "--no-sync",
                *shlex.split(environment["POSTGRES_INITDB_ARGS"]),
            ],
            env=environment,
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self._identity("postgres"),
        )

    def _run_init_scripts(self) -> None:
        password = (self.secrets / "postgres-password").read_text().strip()
        where = f"host=127.0.0.1 port={self.ports['postgres']} user=postgres dbname=postgres"
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(where, password=password, connect_timeout=5).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, self.log("postgres").read_text(errors="replace")
                time.sleep(0.1)
        scripts = self.mounts("postgres")["/docker-entrypoint-initdb.d"]
        for script in sorted(scripts.glob("*.sql")):
            done = subprocess.run(
                [
                    self._programs / "psql",
                    "--no-psqlrc",
                    "--set=ON_ERROR_STOP=1",
                    f"--dbname={where}",
                    f"--file={script}",
                ],
                env=os.environ | {"PGPASSWORD": password},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert password not in done.stdout


def seconds(text: str) -> float:
    """A duration of the file, such as 40s."""
    return float(text.removesuffix("s"))


def valkey_cli() -> str | None:
    """Valkey's command line client, or Redis's, which is the same."""
    return shutil.which("valkey-cli") or shutil.which("redis-cli")
