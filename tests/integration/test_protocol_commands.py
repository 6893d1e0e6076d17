"""`countersign protocols` on a real database, in this process; once as the shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, select

from record import protocols, sites
from record.db import transaction
from record.errors import CountersignError
from record.models import Event
from record.sites import find_site
from tests.conftest import FreshDatabase
from tests.records import arrival, closed, count, uid
from worker import cli
from worker.protocols import load_all

pytestmark = pytest.mark.integration

GENERAL = next(each for each in load_all() if each.name == "general")
NOBODYS = "1.2.840.10008.5.1.4.1.1.77.1.5.3"
"""A class that no shipped protocol is for."""
MINE = """# Ours.
name: {name}
version: {version}
title: Knees of ours
priority: 90
match: {{modalities: [CR], anatomy: [{anatomy}]}}
steps: [{{name: draft, kind: report}}]
sections: [findings, impression]
"""


@pytest.fixture(autouse=True)
def run(database: FreshDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("COUNTERSIGN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("COUNTERSIGN_STORE", str(tmp_path / "store"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path, name: str = "mine", version: int = 1, anatomy: str = "knee") -> Path:
    path = folder / f"{name}-{version}.yaml"
    path.write_text(MINE.format(name=name, version=version, anatomy=anatomy))
    return path


def command(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
    """Run the verb as its door would; exit status, standard output, standard error."""
    done = CliRunner().invoke(cli.cli, ["protocols", *map(str, arguments)], input=stdin)
    if isinstance(done.exception, CountersignError):
        return 1, done.stdout, done.stderr + done.exception.message
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def listed(*arguments: object) -> Any:
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def origins() -> dict[str, tuple[str, int]]:
    return {line["name"]: (line["origin"], line["version"]) for line in listed("list")}


def fine(*arguments: object, stdin: str = "") -> str:
    code, out, err = command(*arguments, stdin=stdin)
    assert code == 0, err
    return out + err


# --- what there is ----------------------------------------------------------------------------------------------------


def test_the_list_has_every_protocol_in_its_order_and_where_it_comes_from(mine: Path) -> None:
    assert [line["name"] for line in listed("list")] == [each.name for each in load_all()]
    fine("add", mine)
    fine("retire", "phantom-chest", "--hide")
    found = listed("list")
    assert [
        (line["name"], line["origin"]) for line in found if line["name"] in {"mine", "general", "phantom-chest"}
    ] == [
        ("mine", "own"),
        ("general", "shipped"),
        ("phantom-chest", "hidden"),
    ]
    assert found[0]["languages"] == ["en", "es", "zh"]
    assert found[0]["title"] == "Knees of ours"
    told = fine("list")
    assert all(len(line) <= 80 for line in told.splitlines())
    assert "    Knees of ours" in told.splitlines()
    assert found[0]["digest"][:12] in told


def test_what_this_release_cannot_read_is_in_the_list_with_the_reason(engine: Engine) -> None:
    with transaction(engine) as session:
        site_id = find_site(session, "main").id
        newer = MINE.format(name="general", version=9, anatomy="knee") + "surprise: 1\n"
        protocols.add(session, site_id, name="general", version=9, digest="c" * 64, text=newer)
        protocols.hide(session, site_id, name="a-former-one", version=1, digest="a" * 64)
    lines = {(line["name"], line["origin"]): line for line in listed("list")}
    assert lines["general", "shipped"]["problem"] is None, "it is used instead"
    assert "surprise: there is no such key" in lines["general", "own"]["problem"]
    assert "no such protocol any more" in lines["a-former-one", "hidden"]["problem"]
    told = fine("list")
    assert all(len(line) <= 80 for line in told.splitlines())
    assert "the shipped one is used instead" in " ".join(told.split())
    assert "cannot read the site's own general" in fine("match")
    assert "this release cannot read it" in fine("show", "general")


def test_a_protocol_is_shown_with_its_content_and_history(tmp_path: Path, mine: Path) -> None:
    fine("add", mine)
    fine("add", write(tmp_path, version=2))
    told = fine("show", "mine")
    assert "# Ours." in told
    assert "version    2" in told
    assert [line.split()[0] for line in told.splitlines() if " own " in line] == ["2", "1"]
    assert fine("show", "mine", "--yaml") == write(tmp_path, version=2).read_text()
    assert fine("show", "mine", "--version", 1, "--yaml") == mine.read_text()
    assert "origin     retired" in fine("show", "mine", "--version", 1)
    code, _, err = command("show", "mine", "--version", 3)
    assert (code, "with the version 3" in err) == (1, True)
    fine("retire", "mine")
    code, _, err = command("show", "mine")
    assert (code, "its last version was 2: say --version" in err) == (1, True)


def test_a_shipped_protocol_is_shown_as_a_file_that_is_one(tmp_path: Path) -> None:
    shown = tmp_path / "general.yaml"
    shown.write_text(fine("show", "general", "--yaml"))
    assert fine("check", shown).split()[:4] == ["OK", "general", str(GENERAL.version), GENERAL.digest]
    assert GENERAL.digest in fine("show", "general")
    code, _, err = command("show", "nothing")
    assert (code, "protocols list" in err) == (1, True)


def test_what_is_shown_cannot_move_the_terminals_cursor(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.format(name="mine", version=1, anatomy="knee") + "# \u202e\n", encoding="utf-8")
    fine("add", path)
    assert "\u202e" not in fine("show", "mine")
    path.write_text(MINE.format(name="mine", version=1, anatomy="knee") + '"\\x1b[2J": 1\n')
    code, _, err = command("check", path)
    assert (code, "\x1b" in err, "\\x1b[2J" in err) == (1, False, True)


# --- taking one into use ----------------------------------------------------------------------------------------------


def test_files_are_checked_without_a_database(tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    wrong, binary, long = tmp_path / "wrong.yaml", tmp_path / "binary", tmp_path / "long"
    wrong.write_text("name: Wrong\nversion: 0\n")
    binary.write_bytes(b"\xff\xfe")
    long.write_bytes(b"#" * 3_000_000)
    code, out, err = command("check", mine, wrong, binary, long, tmp_path, tmp_path / "nowhere")
    assert code == 1
    assert out.splitlines()[0].startswith("OK mine 1 ")
    assert out.splitlines()[0].endswith(" en,es,zh")
    for told in (
        "  name: ",
        "  version: ",
        "binary is no text in UTF-8",
        "is longer than",
        "Is a directory",
        "No such",
    ):
        assert told in err
    assert fine("check", "-", stdin=mine.read_text()).startswith("OK mine 1 ")


def test_one_of_its_own_is_used_from_now_on_and_that_is_on_record(engine: Engine, tmp_path: Path, mine: Path) -> None:
    assert "mine version 1 is used for studies" in fine("add", mine)
    assert "nothing was changed" in fine("add", mine)
    assert "instead of version 1" in fine("add", write(tmp_path, version=2))
    code, _, err = command("add", write(tmp_path, version=1, anatomy="hip"))
    assert (code, "give this one the version 3" in err) == (1, True)
    assert origins()["mine"] == ("own", 2)
    with transaction(engine) as session:
        rows = session.scalars(select(Event).where(Event.kind.like("protocol%"))).all()
        site_id = find_site(session, "main").id
    assert sorted(row.kind for row in rows) == ["protocol_added", "protocol_added", "protocol_retired"]
    assert {(row.actor_kind, row.site_id) for row in rows} == {("command", site_id)}


def test_in_the_place_of_a_shipped_one_it_has_a_greater_version(tmp_path: Path) -> None:
    code, _, err = command("add", write(tmp_path, "general", GENERAL.version))
    assert (code, "greater version, or another name" in err) == (1, True)
    told = fine("add", "-", stdin=write(tmp_path, "general", GENERAL.version + 1).read_text())
    assert f"instead of the shipped version {GENERAL.version}" in told
    assert origins()["general"] == ("own", GENERAL.version + 1)
    assert f"from now on the shipped version {GENERAL.version} is" in fine("retire", "general")
    assert origins()["general"] == ("shipped", GENERAL.version)


def test_a_shipped_one_is_left_out_only_when_that_is_said(tmp_path: Path) -> None:
    code, _, err = command("retire", "general")
    assert (code, "--hide leaves it out" in err) == (1, True)
    fine("add", write(tmp_path, "general", GENERAL.version + 1))
    assert "go to the next" in fine("retire", "general", "--hide")
    assert origins()["general"][0] == "hidden"
    assert "origin     hidden" in fine("show", "general")
    assert command("retire", "general", "--hide")[0] == 1
    assert "is used again" in fine("add", "--shipped", "general")
    assert origins()["general"] == ("shipped", GENERAL.version)
    for wrong in (("add", "--shipped", "general"), ("add", "--shipped", "nothing"), ("retire", "nothing", "--hide")):
        assert command(*wrong)[0] == 1
    assert command("retire", "nothing")[0] == 1
    assert command("add")[0] == 2


def test_where_there_are_several_sites_one_is_named(engine: Engine, mine: Path) -> None:
    with transaction(engine) as session:
        sites.add_site(session, name="north")
    for verb in (("list",), ("show", "general"), ("add", mine), ("retire", "mine"), ("match",)):
        code, _, err = command(*verb)
        assert (code, "--site" in err) == (1, True)
    fine("add", mine, "--site", "north")
    assert "mine" in {line["name"] for line in listed("list", "--site", "north")}
    assert "mine" not in {line["name"] for line in listed("list", "--site", "main")}


# --- trying a rule ----------------------------------------------------------------------------------------------------


def received(engine: Engine, **header: Any) -> str:
    study_uid = uid()
    with transaction(engine) as session:
        came = arrival(
            study_uid, patient_name="CANARY^NAME", patient_id="CANARYID", accession_number="CANARYACC", **header
        )
        closed(session, [came])
    return study_uid


def test_the_studies_of_each_protocol_are_counted_and_those_that_none_is_for_are_named(
    engine: Engine, mine: Path
) -> None:
    fine("add", mine)
    received(engine, study_description="Knee")
    slide = received(engine, modality="ASMT", body_part_examined="NOTHING", sop_class_uid=NOBODYS)
    found = listed("match", "--last", "1d")
    assert (found["studies"], found["protocols"]["mine"]) == (2, 1)
    assert found["unmatched"] == {
        "studies": 1,
        "kinds": [
            {
                "modality": "ASMT",
                "sop_class_uid": NOBODYS,
                "body_part_examined": "NOTHING",
                "studies": 1,
            }
        ],
        "study_instance_uids": [slide],
    }
    told = fine("match")
    assert slide in told
    assert "Stereometric Relationship Storage" in told
    assert "2 studies; no protocol is for 1" in told
    assert "CANARY" not in told + json.dumps(found)
    assert "0 studies; no protocol is for 0" in fine("match", "--last", "0h")


def test_a_new_rule_says_which_studies_it_would_take_and_a_changed_one_which_it_would_lose(
    engine: Engine, tmp_path: Path, mine: Path
) -> None:
    knee, hip = received(engine, study_description="Knee"), received(engine, body_part_examined="HIP")
    others = write(tmp_path, "others", anatomy="knee, hip")  # tried after mine, and before those that are shipped
    fine("add", others)
    found = listed("match", mine)
    assert found["moves"] == [{"from": "others", "to": "mine", "study_instance_uids": [knee]}]
    assert found["changed"]["name"] == "mine"
    fine("add", mine)
    assert listed("match")["protocols"] == {
        **dict.fromkeys((each.name for each in load_all()), 0),
        "others": 1,
        "mine": 1,
    }
    changed = write(tmp_path, version=2, anatomy="hip")
    moves = {(move["from"], move["to"]): move["study_instance_uids"] for move in listed("match", changed)["moves"]}
    assert moves == {("mine", "others"): [knee], ("others", "mine"): [hip]}
    told = fine("match", changed)
    assert "mine version 2 would take 1 more and lose 1" in told
    assert "1 study from mine to others" in told
    assert "CANARY" not in told
    assert origins()["mine"] == ("own", 1), "nothing was changed"


def test_a_rule_for_one_site_is_tried_with_that_sites_name(engine: Engine, tmp_path: Path) -> None:
    received(engine, study_description="Knee")
    for name, studies in (("main", 1), ("north", 0)):
        path = tmp_path / "mine.yaml"
        path.write_text(MINE.format(name="mine", version=1, anatomy=f"knee], sites: [{name}"))
        assert sum(len(move["study_instance_uids"]) for move in listed("match", path)["moves"]) == studies


def test_fifty_studies_of_a_kind_are_named_and_the_others_counted(engine: Engine, mine: Path) -> None:
    with transaction(engine) as session:
        for _ in range(53):
            closed(session, [arrival(uid(), body_part_examined="KNEE")])
    told = fine("match", mine)
    assert told.count("    2.25.") == 50
    assert "and 3 more: --json has all" in told
    assert len(listed("match", mine)["moves"][0]["study_instance_uids"]) == 53


@pytest.mark.parametrize("age", ["", "30", "1y", "-1d", "\x1b[2J"])
def test_what_is_no_age_is_refused(age: str) -> None:
    code, _, err = command("match", f"--last={age}")
    assert code == 2
    assert "\x1b" not in err


# --- by the gateway's hand --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_gateway_hands_the_verb_on_with_the_run_that_it_found(engine: Engine, mine: Path, tmp_path: Path) -> None:
    def countersign(*arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-P", "-m", "gateway", "protocols", *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    assert countersign("add", mine, "--site", "main").returncode == 0
    with transaction(engine) as session:
        assert count(session, "site_protocols") == 1
    found = countersign("list", "--json")
    assert json.loads(found.stdout)[0]["name"] == "mine"
    refused = countersign("retire", "nothing")
    assert (refused.returncode, refused.stderr.startswith("countersign: This site has no protocol")) == (1, True)
    wrong = countersign("list", "--data-dir", tmp_path / "nowhere")
    assert (wrong.returncode, "is no data folder" in wrong.stderr) == (1, True)
