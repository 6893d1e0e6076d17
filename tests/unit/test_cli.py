"""What the command line says to somebody who mistypes, and which run it works on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway import cli
from gateway.commands.handed import HandedOn
from gateway.launcher import folder as folders
from gateway.launcher.folder import DataFolder, State
from record.errors import Misconfigured
from record.settings import ListenerSettings, WorkerSettings, load, valid_ae_title, valid_engine_url, valid_model
from record.terminal import counted, print_table
from worker import cli as worker_cli

ADMIN_VERBS = [
    ("users", "add", "chief", "--role", "attending", "--name", "Chief"),
    ("tokens", "add", "board", "--role", "dashboard"),
    ("tokens", "revoke", "board"),
    ("users", "disable", "chief"),
    ("peers", "add", "CT1", "10.0.0.9"),
    ("peers", "remove", "CT1", "10.0.0.9"),
    ("sites", "list"),
    ("studies", "list"),
    ("studies", "retry", "1.2.3"),
    ("verify",),
    ("protocols", "list"),
    ("protocols", "add", "mine.yaml"),
]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in list(os.environ):
        if name.startswith("COUNTERSIGN_") or name in {"DATABASE_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)


@pytest.fixture
def usual(tmp_path, monkeypatch):
    """The folder that `up` takes when nobody says otherwise."""
    monkeypatch.setattr(folders, "default_folder", lambda: tmp_path / "usual")
    return tmp_path / "usual"


@pytest.fixture
def countersign(monkeypatch, capsys):
    """Runs the command as the shell would; its exit status and what it said."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["countersign", *map(str, arguments)])
        monkeypatch.setattr(os, "environ", dict(os.environ))
        with pytest.raises(SystemExit) as ended:
            run.door()
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return ended.value.code, told.out + told.err

    run.door = cli.main
    return run


def worker(*arguments):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("verb", ADMIN_VERBS)
def test_without_a_run_an_administrators_verb_says_what_is_missing(countersign, usual, monkeypatch, verb):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, told = countersign(*verb)
    assert code == 1
    assert "DATABASE_URL" in told
    assert "--data-dir" in told


@pytest.mark.parametrize("verb", ADMIN_VERBS)
def test_an_administrators_verb_finds_the_run_where_up_keeps_it(countersign, usual, verb):
    made = DataFolder(usual)
    made.prepare()
    made.write_state(State(environment={"DATABASE_URL": "postgresql://nobody"}))
    code, told = countersign(*verb)
    assert code == 1
    assert f"on the run in {usual}" in told
    assert f"countersign up --data-dir {usual}" in told  # its servers are not running


def test_a_database_in_the_environment_wins_over_the_usual_folder(usual, monkeypatch):
    made = DataFolder(usual)
    made.prepare()
    made.write_state(State(environment={"DATABASE_URL": "postgresql://nobody"}))
    monkeypatch.setenv("DATABASE_URL", "postgresql://mine")
    told = CliRunner().invoke(cli.cli, ["verify"])
    assert isinstance(told.exception, Misconfigured)
    assert "COUNTERSIGN_STORE" in told.exception.message
    assert "on the run" not in told.output


def test_up_explains_its_folder_and_its_ports():
    told = " ".join(CliRunner().invoke(cli.cli, ["up", "--help"]).output.split())
    assert "~/.local/state/countersign" in told
    assert told.count("0 takes the last port of this folder, or a free one.") == 2


@pytest.mark.parametrize(
    ("options", "environment", "name"),
    [
        (["--aet", "MUCH_TOO_LONG_A_TITLE"], {}, "--aet"),
        (["--aet", "A\\B"], {}, "--aet"),
        (["--model", "nowhere"], {}, "--model"),
        (["--model", "/nowhere/at/all"], {}, "COUNTERSIGN_MODEL"),
        ([], {"COUNTERSIGN_ENGINE_URL": "localhost:8000"}, "COUNTERSIGN_ENGINE_URL"),
    ],
)
def test_up_refuses_in_one_sentence_what_the_parts_could_not_use(
    countersign, tmp_path, monkeypatch, options, environment, name
):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    code, told = countersign("up", "--data-dir", tmp_path / "run", *options)
    assert code == 1
    assert told.startswith("countersign: ")
    assert name in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_listener_that_cannot_start_says_why(countersign, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COUNTERSIGN_SPOOL", str(tmp_path / "file" / "spool"))
    code, told = countersign("gateway", "listener")
    assert code == 1
    assert "COUNTERSIGN_SPOOL" in told
    assert str(tmp_path) in told
    monkeypatch.setenv("COUNTERSIGN_AE_TITLE", "MUCH_TOO_LONG_A_TITLE")
    code, told = countersign("gateway", "listener")
    assert code == 1
    assert "COUNTERSIGN_AE_TITLE (an AE title has 1 to 16" in told


def test_verify_stops_after_one_fault_at_least(countersign):
    code, told = countersign("verify", "--most", "0")
    assert code == 2
    assert "--most" in told


def test_an_ae_title_is_what_the_standard_says():
    assert valid_ae_title(" CT 1 ") == "CT 1"
    assert ListenerSettings(spool=Path("/spool"), ae_title="SIXTEEN_LETTERS_").ae_title == "SIXTEEN_LETTERS_"
    for wrong in ("", "   ", "SEVENTEEN_LETTERS", "ÄRZTE", "A\\B", "A\nB"):
        with pytest.raises(ValueError, match="1 to 16"):
            valid_ae_title(wrong)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://engine.example/v1", "http://[::1]:80/v1/"])
def test_an_engines_url_names_a_host(url):
    assert valid_engine_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["engine", "localhost:8000", "ftp://host", "http://", "http://:80", "http://h:x", "http://[::1", "http://a b"],
)
def test_what_is_no_engines_url_is_refused(url):
    with pytest.raises(ValueError, match="http"):
        valid_engine_url(url)


def test_a_model_is_the_phantom_a_checkpoints_folder_or_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    for fine in ("phantom", str(tmp_path), "FreedomIntelligence/HuatuoGPT-Vision-7B"):
        assert valid_model(fine) == fine
    monkeypatch.chdir(tmp_path)
    (tmp_path / "an" / "empty").mkdir(parents=True)
    for wrong in ("", "phantoms", "an/empty", "/nowhere/at/all", "../up/there", "a/b/c"):
        with pytest.raises(ValueError, match="hub id"):
            valid_model(wrong)


def test_the_workers_settings_know_what_can_run_here(monkeypatch):
    for name, value in (("DATABASE_URL", "postgresql://x"), ("COUNTERSIGN_STORE", "/store")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COUNTERSIGN_MODEL", "a-name-of-the-servers")
    with pytest.raises(Misconfigured, match="COUNTERSIGN_MODEL") as refused:
        load(WorkerSettings)
    assert "a-name-of-the-servers" not in refused.value.message
    monkeypatch.setenv("COUNTERSIGN_ENGINE_URL", "http://user:secret@:80")
    with pytest.raises(Misconfigured, match="COUNTERSIGN_ENGINE_URL") as refused:
        load(WorkerSettings)
    assert "secret" not in refused.value.message
    assert "COUNTERSIGN_MODEL" not in refused.value.message
    monkeypatch.setenv("COUNTERSIGN_ENGINE_URL", "http://engine:8000")
    assert load(WorkerSettings).model == "a-name-of-the-servers"
    monkeypatch.setenv("COUNTERSIGN_ENGINE_URL", "")
    monkeypatch.delenv("COUNTERSIGN_MODEL")
    assert load(WorkerSettings).engine_url is None


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_worker_explains_itself(flag):
    code, told = worker("cpu", flag)
    assert code == 0
    assert "Usage: countersign worker cpu" in told
    assert "--data-dir" in told
    assert "--data-dir" in worker(flag)[1]


def test_phantoms_that_cannot_be_written_are_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    code, told = worker("phantoms", str(tmp_path / "file" / "below"), "--count", "1")
    assert code == 1
    assert "cannot be written" in told
    assert "Traceback" not in told


# --- every verb, taken from the command itself ----------------------------------------------------------------------


def verbs(command=cli.cli, name=()):
    """Every verb and group below the command, by its words."""
    for word in command.list_commands(click.Context(command)) if isinstance(command, click.Group) else ():
        yield (*name, word), command.commands[word]
        yield from verbs(command.commands[word], (*name, word))


def is_ours(name):
    return name[0] != "worker" and not isinstance(cli.cli.commands[name[0]], HandedOn)


OURS = {" ".join(name): verb for name, verb in verbs() if is_ours(name)}
HANDED = {" ".join(name): verb for name, verb in verbs(worker_cli.cli) if name[0] in worker_cli.OWN_VERBS}
VERBS = OURS | HANDED


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_says_why_and_shows_an_example(verb):
    told = CliRunner().invoke(worker_cli.cli if verb in HANDED else cli.cli, [*verb.split(), "--help"])
    assert told.exit_code == 0
    lines = told.output.splitlines()
    assert "  Example:" in lines, told.output
    examples = lines[lines.index("  Example:") + 1 :]
    assert any(
        f"countersign {verb}".split()[:2] == line.split()[:2] or f"countersign {verb}" in line for line in examples
    )
    assert VERBS[verb].help.strip().endswith(".")


@pytest.mark.parametrize("verb", OURS)
def test_every_verb_refuses_nonsense_in_a_sentence(countersign, usual, verb):
    refuses_nonsense(countersign, verb)


@pytest.mark.parametrize("verb", HANDED)
def test_every_verb_of_the_workers_refuses_nonsense_in_a_sentence(countersign, usual, verb):
    countersign.door = worker_cli.main
    refuses_nonsense(countersign, verb)


def refuses_nonsense(countersign, verb):
    for nonsense in (
        ["--no-such-option"],
        ["\x1b[31m", "b", "c", "d", "--no-such"],
        *([["nobody-knows-this"]] if isinstance(VERBS[verb], click.Group) else []),
    ):
        code, told = countersign(*verb.split(), *nonsense)
        assert code == 2
        assert told.splitlines()[-1].startswith("Error: ")
        assert "\x1b" not in told


def test_the_examples_of_every_verb_name_verbs_and_options_that_exist():
    for verb, command in {"": cli.cli, **VERBS}.items():
        for line in (command.epilog or "").splitlines()[2:]:
            for part in line.split("|"):
                words = part.split()
                if "countersign" not in words:
                    continue
                words = words[words.index("countersign") + 1 :]
                found, depth = cli.cli, 0
                while isinstance(found, click.Group):
                    found, depth = found.commands[words[depth]], depth + 1
                    if isinstance(found, HandedOn):
                        found = worker_cli.cli.commands[found.name]
                known = {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
                if found.name != "worker":
                    assert {word for word in words[depth:] if word.startswith("--")} <= known, (verb, line)


def test_the_help_lists_every_verb_once():
    told = CliRunner().invoke(cli.cli, ["--help"]).output
    for verb in VERBS:
        if " " not in verb:
            assert sum(line.split()[:1] == [verb] for line in told.splitlines() if line.startswith("  ")) == 1, verb


def test_what_is_handed_on_is_what_the_worker_has_and_reads_alike_on_both_sides():
    handed = {name: verb for name, verb in cli.cli.commands.items() if isinstance(verb, HandedOn)}
    assert handed.keys() == worker_cli.OWN_VERBS
    for name, verb in handed.items():
        assert verb.short_help == worker_cli.cli.commands[name].short_help
        assert not verb.needs_run([])
        assert not verb.needs_run(["list", "--help"])
        assert verb.needs_run(["list"])


def test_what_is_handed_on_explains_itself_and_does_without_a_run_what_needs_none(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: 1")
    for arguments, code, said in (
        (["--help"], 0, "Usage: countersign protocols [OPTIONS] COMMAND"),
        (["list", "-h"], 0, "Usage: countersign protocols list [OPTIONS]"),
        (["check", "mine.yaml"], 1, "mine.yaml is not a reading protocol"),
        (["list"], 1, f"There is no run in {tmp_path}/countersign"),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gateway", "protocols", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )
        if os.geteuid() != 0 or arguments != ["list"]:  # root's usual folder is another
            assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_taught_our_verbs(shell):
    told = CliRunner().invoke(cli.cli, ["completion", shell])
    assert told.exit_code == 0
    assert "_COUNTERSIGN_COMPLETE" in told.output


def completed(monkeypatch, *words):
    monkeypatch.setenv("COMP_WORDS", "countersign " + " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    monkeypatch.setenv("_COUNTERSIGN_COMPLETE", "bash_complete")
    told = CliRunner().invoke(cli.cli, [], prog_name="countersign", complete_var="_COUNTERSIGN_COMPLETE")
    return told.output.split()


def test_a_shell_completes_verbs_roles_files_and_says_nothing_where_there_is_no_database(usual, monkeypatch):
    assert completed(monkeypatch, "stud") == ["plain,studies"]
    assert completed(monkeypatch, "users", "add", "x", "--role", "att") == ["plain,attending"]
    assert completed(monkeypatch, "tokens", "add", "x", "--role", "att") == []  # a machine is no physician
    assert completed(monkeypatch, "send", "/tmp/so")[0].startswith("file,")
    assert completed(monkeypatch, "users", "list", "--site", "") == []
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert completed(monkeypatch, "users", "list", "--site", "") == []


def test_what_a_stranger_chose_cannot_move_the_terminals_cursor(capsys):
    print_table(("NAME", "X"), [("a\x1b[2J\nb\u202e", 1), ("王小明", None), ("", "z")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME                 X",
        "a\\x1b[2J\\x0ab\\u202e  1",
        "王小明               -",
        "-                    z",
    ]


def test_a_column_of_numbers_ends_where_its_title_does(capsys):
    print_table(("LANE", "COUNT"), [("stat", 7), ("routine", 1200)])
    assert capsys.readouterr().out.splitlines() == ["LANE     COUNT", "stat         7", "routine   1200"]


def test_things_are_counted_in_words():
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert counted(2, "thing needs", "things need") == "2 things need"
