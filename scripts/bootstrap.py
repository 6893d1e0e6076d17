#!/usr/bin/env python3
"""Make .venv match the lock files; where it already does, be done in a tenth of a second.

Needs Python 3.11 or newer with pip and nothing else: uv is fetched into `.cache/boot` by pip (`--target` works on an
externally managed Python too) and makes the environment, so python3-venv is not needed. Runs as root or not.

torch is installed apart from the locks, because its CPU build carries another hash than the index's own:
a folder of wheels that pip is configured with comes first, then the index of smaller builds that uv knows
(`TORCH_BACKEND`: cpu by default, auto to ask the GPU driver, pypi for whatever the index serves).

Does not know what the project does with what it installs.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV_VERSION = "0.13.9"
TORCH_VERSION = "2.13.0"
LOCKS = [ROOT / "requirements" / name for name in ("base.lock", "dev.lock")]
PACKAGES = ("record", "gateway", "worker", "migrations")
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".countersign-stamp"
BOOT = ROOT / ".cache" / "boot"
UV = BOOT / "bin" / "uv"


class BootstrapError(Exception):
    """A step of the installation failed; the message says what to do."""


def main() -> None:
    """Bring the environment up to date, one process at a time."""
    if sys.version_info < (3, 11):  # noqa: UP036  whoever starts this script has not installed anything yet
        raise BootstrapError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PY=python3.11 …")
    backend = os.environ.get("TORCH_BACKEND", "cpu")
    wanted = fingerprint(backend)
    if is_current(wanted):
        return
    BOOT.mkdir(parents=True, exist_ok=True)
    with (BOOT.parent / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(wanted):  # another `make` has done it meanwhile
            return
        began = time.monotonic()
        install(backend)
        STAMP.write_text(wanted)
        say(f"ready after {time.monotonic() - began:.0f} s")


def install(backend: str) -> None:
    """Fetch uv, make the environment, fill it."""
    fetch_uv()
    make_environment()
    folders = wheel_folders()
    environ = os.environ | {"VIRTUAL_ENV": str(VENV)}
    if folders:
        environ["UV_FIND_LINKS"] = ",".join(folders)
    if not has_torch():
        say("installing the locked packages and torch (about 1 minute on a fast line)")
    locks = [argument for path in LOCKS for argument in ("-r", str(path))]
    step("the locked packages", [*uv_install(), "--require-hashes", *locks], environ)
    if not has_torch():
        install_torch(backend, folders, environ)
    step("countersign itself", [*uv_install(), "--no-deps", "-e", str(ROOT)], environ)
    compile_bytecode()


def fetch_uv() -> None:
    """Put the pinned uv into .cache/boot, with the pip that runs us."""
    if UV.exists() and UV_VERSION in output_of([str(UV), "--version"]):
        return
    say(f"fetching the installer, uv {UV_VERSION} (a few seconds)")
    shutil.rmtree(BOOT, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    environ = os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}  # it goes into our own folder
    if subprocess.run([*pip, "--target", str(BOOT), f"uv=={UV_VERSION}"], env=environ, check=False).returncode:
        raise BootstrapError(
            "uv could not be fetched with pip. Is pip there (Debian: apt-get install python3-pip), and can it reach "
            "its package index?"
        )


def make_environment() -> None:
    """Make .venv, unless one made for this Python is there."""
    version = ".".join(map(str, sys.version_info[:3]))
    if output_of([str(VENV_PYTHON), "-c", "import platform; print(platform.python_version())"]).strip() == version:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    step(
        "an environment in .venv", [str(UV), "venv", "--quiet", "--python", sys.executable, str(VENV)], dict(os.environ)
    )


def install_torch(backend: str, folders: list[str], environ: dict[str, str]) -> None:
    """Take torch from a folder of wheels, else from the index of smaller builds, else from the package index."""
    requirement = f"torch=={TORCH_VERSION}"
    at_hand = any(any(Path(folder).glob(f"torch-{TORCH_VERSION}*.whl")) for folder in folders)
    if at_hand or backend == "pypi":
        step("torch", [*uv_install(), requirement], environ)
        return
    say(f"installing torch ({backend} build, about 200 MB)")
    choice = [*uv_install(), f"--torch-backend={backend}", requirement]
    if subprocess.run(choice, env=environ, check=False).returncode:
        say("the index of smaller torch builds is out of reach: taking the default build (about 3 GB, several minutes)")
        step("torch", [*uv_install(), requirement], environ)


def compile_bytecode() -> None:
    """Compile what was installed, once: uv leaves that to the first import, and some machines forbid it there.

    Without it every process of ours spends two thirds of its start on compiling (measured: 13 s instead of 5 s until
    the model is loaded).
    """
    say("compiling it (half a minute, once)")
    folders = [*(VENV / "lib").glob("python*/site-packages"), *(ROOT / name for name in PACKAGES)]
    command = [str(VENV_PYTHON), "-m", "compileall", "-q", "-j", "0", *map(str, folders)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # some files are samples


def has_torch() -> bool:
    """Whether .venv holds the pinned torch, of whatever build."""
    found = output_of([str(VENV_PYTHON), "-c", "import importlib.metadata as m; print(m.version('torch'))"])
    return found.strip().split("+")[0] == TORCH_VERSION


def wheel_folders() -> list[str]:
    """Folders of wheels that pip is configured with; uv reads only its own variables."""
    named = os.environ.get("UV_FIND_LINKS", "").split(",") + os.environ.get("PIP_FIND_LINKS", "").split()
    named += output_of([sys.executable, "-m", "pip", "config", "get", "global.find-links"]).split()
    return list(dict.fromkeys(filter(None, named)))


def is_current(wanted: str) -> bool:
    """Whether the environment was last filled from the very same inputs."""
    return STAMP.exists() and STAMP.read_text() == wanted and VENV_PYTHON.exists()


def fingerprint(backend: str) -> str:
    """Digest of all that decides what .venv holds."""
    digest = hashlib.sha256(repr((sys.version, str(ROOT), UV_VERSION, TORCH_VERSION, backend, "compiled")).encode())
    for path in (*LOCKS, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def uv_install() -> list[str]:
    """The beginning of every `uv pip install`; its progress is shown to a person, not to a log."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return [str(UV), "pip", "install", *quiet, "--python", str(VENV_PYTHON)]


def step(what: str, command: list[str], environ: dict[str, str]) -> None:
    """Run one command; if it fails, say which."""
    if subprocess.run(command, env=environ, check=False).returncode:
        raise BootstrapError(f"installing {what} failed. The command was: {shlex.join(command)}")


def output_of(command: list[str]) -> str:
    """Standard output of a command that may be missing or fail; then it is empty."""
    try:
        return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    except OSError:
        return ""


def say(line: str) -> None:
    """One line of progress, at once."""
    print(f"setup: {line}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BootstrapError as error:
        sys.exit(f"setup: {error}")
