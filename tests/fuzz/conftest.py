"""Hostile bytes: every test here is slow, and keeps at it for its share of COUNTERSIGN_FUZZ_S where that is set."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.hostile import FUZZ_S

_HERE = Path(__file__).parent
_SPARE_S = 120
_share_s = pytest.StashKey[float]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if _HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.slow)
        if FUZZ_S:
            item.stash[_share_s] = FUZZ_S * int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) / len(ours)
            item.add_marker(pytest.mark.timeout(item.stash[_share_s] + _SPARE_S))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Round after round, until its share is over."""
    until = time.monotonic() + pyfuncitem.stash.get(_share_s, 0.0)
    names = pyfuncitem._fixtureinfo.argnames
    while time.monotonic() < until:
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    return True if FUZZ_S else None
