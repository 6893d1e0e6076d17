"""The store: which files are its own, and a folder that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from record.errors import Misconfigured
from record.store import Kind, Store

KEY = "0123456789abcdef" * 2


def test_only_keys_are_listed_and_everything_else_is_a_stranger(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(Kind.INSTANCE, KEY, b"instance")
    store.put(Kind.PICTURE, KEY * 2, b"picture")
    instances = tmp_path / "instances"
    strangers = [instances / "junk.dcm", instances / f"{KEY}.dcm", instances / "ef" / "cd" / f"{KEY}.png"]
    strangers.append(instances / "ef" / "cd" / f"{KEY.upper()}.dcm")
    for path in (*strangers, instances / "ef" / ".put-half"):
        path.touch()
    assert list(store.list(Kind.INSTANCE)) == [KEY]
    assert list(store.list(Kind.PICTURE)) == [KEY * 2]
    assert sorted(store.strangers(Kind.INSTANCE)) == sorted(strangers)
    assert list(store.strangers(Kind.PICTURE)) == []


def test_a_store_that_can_be_neither_entered_nor_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be used"):
        Store(tmp_path / "file")
