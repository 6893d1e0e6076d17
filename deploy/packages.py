#!/usr/bin/env python3
"""Print the part of requirements/base.lock that one image needs, versions and hashes as they are.

An image carries what pyproject.toml's `dependencies` ask for, and the worker that runs a model in its own process also
what the extra `model` asks for, all with whatever they need in turn: the lock's own `# via` lines say who wants what. So
neither the embedded servers nor, without `--model`, anything of the model's comes along. torch is in no lock (see
scripts/bootstrap.py); the light packages that it needs are, and come with `--model`.

Standard library alone, because the image's builder runs it before anything is installed.
"""

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "base.lock"
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions")
"""torch's own requirements that are not CUDA's."""
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def main() -> None:
    """Print the selection for the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="store_true", help="with what runs a model in the worker's own process")
    arguments = parser.parse_args()
    entries = read(LOCK.read_text(encoding="utf-8"))
    kept = selected(entries, model=arguments.model)
    print("".join(text for name, _, text in entries if name in kept), end="")  # noqa: T201  what it is for


def read(lock: str) -> list[tuple[str, set[str], str]]:
    """Every entry of a lock: name, who wants it, and its own lines. A package can have an entry per Python version."""
    entries: list[tuple[str, set[str], str]] = []
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        if named := _NAME.match(block):
            wanted_by = {line[1:].removeprefix(" via").strip() for line in _comments(block)} - {""}
            entries.append((normal(named[1]), {normal(name) for name in wanted_by}, block))
    return entries


def selected(entries: list[tuple[str, set[str], str]], *, model: bool) -> set[str]:
    """The names that an image needs: the project's own requirements, and who is wanted by one of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(project["optional-dependencies"]["model"] if model else [])]
    roots = {normal(named[1]) for requirement in asked if (named := _NAME.match(requirement))}
    known = {name for name, _, _ in entries}
    kept = (roots | set(TORCH_NEEDS if model else ())) & known
    while more := {name for name, wanted_by, _ in entries if name not in kept and wanted_by & kept}:
        kept |= more
    return kept


def normal(name: str) -> str:
    """A package's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _comments(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip().startswith("#")]


if __name__ == "__main__":
    main()
