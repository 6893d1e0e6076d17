"""What tests of several subjects need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FreshDatabaseMaker
from tests.keeping import Keeping, MakeRun


@pytest.fixture
def make(fresh_database: FreshDatabaseMaker, tmp_path: Path) -> Iterator[MakeRun]:
    """Makes runs, each with an empty database and empty folders."""
    with contextlib.ExitStack() as stack:

        def another(name: str) -> Keeping:
            made = Keeping(stack.enter_context(fresh_database()), tmp_path / name)
            stack.callback(made.engine.dispose)
            return made

        yield another


@pytest.fixture
def run(make: MakeRun) -> Keeping:
    """A run with a signed report and sealed events."""
    made = make("run")
    made.make_key()
    made.signed()
    made.seal()
    return made
