"""The data folder: private, one owner at a time, found again by other commands."""

from __future__ import annotations

import os
import stat

import pytest

from gateway.launcher.folder import DataFolder, State, environment_of
from record.durable import write_private
from record.errors import Misconfigured


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def folder(tmp_path):
    made = DataFolder(tmp_path / "run of today")
    made.prepare()
    return made


def test_secrets_are_private_and_the_seal_key_survives_a_second_start(folder):
    key = (folder.secrets / "seal.key").read_text()
    assert len(bytes.fromhex(key.strip())) == 32
    assert mode(folder.secrets) == 0o700
    assert mode(folder.secrets / "seal.key") == 0o600
    folder.prepare()
    assert (folder.secrets / "seal.key").read_text() == key


def test_the_state_is_private_and_read_back_as_it_was(folder):
    state = State(ports={"http": 8042}, environment={"DATABASE_URL": "postgresql://x"}, ready=True)
    password = state.password("redis")
    folder.write_state(state)
    assert mode(folder.run / "state.json") == 0o600
    again = folder.read_state()
    assert again == state
    assert again.password("redis") == password
    assert again.password("another") != password


def test_a_new_folder_has_an_empty_state(folder):
    assert folder.read_state() == State()


def test_a_second_owner_is_told_so(folder):
    assert not folder.is_running()
    with folder.locked():
        assert folder.is_running()
        with pytest.raises(Misconfigured, match="already running"), DataFolder(folder.root).locked():
            pass
    assert not folder.is_running()


def test_another_command_finds_the_environment_of_a_running_folder_and_the_owner_url_only_when_migrating(folder):
    folder.write_state(State(environment={"DATABASE_URL": "programs"}, owner_database_url="owner"))
    with folder.locked():
        assert environment_of(folder.root) == {"DATABASE_URL": "programs"}
        assert environment_of(folder.root, owner=True)["COUNTERSIGN_OWNER_DATABASE_URL"] == "owner"


def test_a_folder_whose_servers_are_down_says_how_to_start_them(folder):
    folder.write_state(State(environment={"DATABASE_URL": "programs"}))
    with pytest.raises(Misconfigured, match="countersign up --data-dir"):
        environment_of(folder.root)


def test_a_folder_with_servers_of_ones_own_needs_no_running_supervisor(folder):
    folder.write_state(State(environment={"DATABASE_URL": "programs"}, embedded=False))
    assert environment_of(folder.root) == {"DATABASE_URL": "programs"}


def test_a_folder_that_is_none_of_ours_is_refused_and_left_alone(tmp_path):
    with pytest.raises(Misconfigured, match="no data folder"):
        environment_of(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_private_file_is_replaced_whole(tmp_path):
    write_private(tmp_path / "secret", "first, and longer")
    write_private(tmp_path / "secret", "second")
    assert (tmp_path / "secret").read_text() == "second"
    assert os.listdir(tmp_path) == ["secret"]


def test_a_folder_that_was_filled_in_part_counts_for_no_other_command(tmp_path):
    made = DataFolder(tmp_path / "half")
    with pytest.raises(KeyboardInterrupt), made.filling("countersign restore --from x"):
        raise KeyboardInterrupt
    for refused in (lambda: made.require_whole(made.read_state()), lambda: environment_of(made.root)):
        with pytest.raises(Misconfigured, match="Repeat it: countersign restore --from x"):
            refused()
    made.prepare()
    assert not (made.secrets / "seal.key").exists(), "the backup brings its own"
    with made.filling("countersign restore --from x"):
        pass
    made.require_whole(made.read_state())
    made.prepare()
    assert (made.secrets / "seal.key").exists()


def test_a_folder_is_new_until_something_is_kept_in_it(tmp_path):
    made = DataFolder(tmp_path / "new")
    assert made.is_new()
    made.make()
    (made.root / "empty" / "below").mkdir(parents=True)
    assert made.is_new()
    (made.root / "empty" / "below" / "file").touch()
    assert not made.is_new()
