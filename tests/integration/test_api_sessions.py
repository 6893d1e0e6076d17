"""Sessions and tokens: cookies, CSRF, origins, lockout, expiry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from gateway.web import proving
from record import accounts, sessions, studies
from record.db import transaction
from record.errors import TooManyTries
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import person, study_of
from tests.web_records import PASSWORD, Desk, desk_on, problem


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def change(desk: Desk, statement: str, **values: object) -> None:
    with transaction(desk.engine) as session:
        session.execute(text(statement), values)


def test_the_cookie_is_for_this_site_and_for_no_script(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING)
    answer = desk.client().post("/api/v1/session", json={"login": login, "password": PASSWORD})
    assert answer.json()["user"] == {
        "id": answer.json()["user"]["id"],
        "printed_name": "Dr. Attending",
        "role": "attending",
    }
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    behind_tls = desk.client(base_url="https://testserver")
    answer = behind_tls.post("/api/v1/session", json={"login": login, "password": PASSWORD})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_nothing_secret_is_stored_as_it_is_sent(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING)
    secret, csrf = client.cookies["countersign_session"], client.headers["X-CSRF-Token"]
    with transaction(desk.engine) as session:
        rows = str(session.execute(text("SELECT * FROM user_sessions")).all())
    assert secret not in rows
    assert csrf not in rows


@pytest.mark.parametrize("login", ["main-attending", "nobody", "null\x00byte", ""])
def test_a_wrong_login_and_a_wrong_password_sound_alike(desk: Desk, login: str) -> None:
    desk.user(Role.ATTENDING)
    answer = desk.client().post("/api/v1/session", json={"login": login, "password": "wrong"})
    if "\x00" in login:
        problem(answer, 422, "invalid_request")
    else:
        assert problem(answer, 401, "not_authenticated")["detail"] == (
            "The login or the password is wrong, or the account is locked."
        )


def test_a_login_is_known_with_other_capitals_and_with_spaces_around_it(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING)
    typed = {"login": f" {login.title()} ", "password": PASSWORD}
    assert desk.client().post("/api/v1/session", json=typed).status_code == 200


def test_half_a_character_is_no_password(desk: Desk) -> None:
    right = {"login": desk.user(Role.ATTENDING), "password": PASSWORD}
    headers = {"Content-Type": "application/json"}

    def answered(path: str, asked: dict[str, object]) -> httpx.Response:
        return client.post(path, content=json.dumps(asked), headers=headers)

    client = desk.client()
    problem(answered("/api/v1/session", right | {"login": "\ud800"}), 422, "invalid_request")
    problem(answered("/api/v1/session", right | {"password": "half a pair \ud800"}), 401, "not_authenticated")
    client = desk.signed_in(Role.ATTENDING)
    signing = f"/api/v1/reports/{desk.report_of(desk.study()).id}/sign"
    problem(answered(signing, {"seen": 1, "shown": 1, "password": "\ud800"}), 401, "not_authenticated")


def test_ten_wrong_passwords_lock_the_account_for_the_right_one_too(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING, login="guessed")
    client = desk.client()
    for _ in range(10):
        problem(client.post("/api/v1/session", json={"login": login, "password": "wrong"}), 401, "not_authenticated")
    problem(client.post("/api/v1/session", json={"login": login, "password": PASSWORD}), 401, "not_authenticated")
    refused = [facts for facts in desk.events("sign_in_refused") if facts["reason_code"] == "wrong_password"]
    assert len(refused) >= 10


def test_what_changes_something_needs_the_csrf_token_of_this_session(desk: Desk) -> None:
    report = f"/api/v1/reports/{desk.report_of(desk.study()).id}"
    client, other = desk.signed_in(Role.ATTENDING), desk.signed_in(Role.RESIDENT)
    csrf = client.headers.pop("X-CSRF-Token")
    asked = {"seen": 1, "text": "Findings:\nNothing."}
    problem(client.put(f"{report}/text", json=asked), 403, "not_permitted")
    for wrong in ("", "x", "ä", other.headers["X-CSRF-Token"]):
        headers = {"X-CSRF-Token": wrong.encode()}
        problem(client.put(f"{report}/text", json=asked, headers=headers), 403, "not_permitted")
    assert client.put(f"{report}/text", json=asked, headers={"X-CSRF-Token": csrf}).status_code == 200
    assert client.get(report).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://testserver.evil.example", "http://testserver:81"]
)
def test_another_site_s_page_changes_nothing_even_with_the_token(desk: Desk, origin: str) -> None:
    client = desk.signed_in(Role.ATTENDING)
    foreign = {"Origin": origin}
    problem(client.delete("/api/v1/session", headers=foreign), 403, "not_permitted")
    asked = {"login": desk.user(Role.ATTENDING), "password": PASSWORD}
    problem(desk.client().post("/api/v1/session", json=asked, headers=foreign), 403, "not_permitted")
    problem(client.delete("/api/v1/session", headers={"Sec-Fetch-Site": "cross-site"}), 403, "not_permitted")
    assert client.delete("/api/v1/session", headers={"Origin": "http://testserver"}).status_code == 204


def test_after_signing_out_the_cookie_is_worth_nothing(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING)
    secret = client.cookies["countersign_session"]
    assert client.delete("/api/v1/session").status_code == 204
    assert "countersign_session" not in client.cookies
    client.cookies.set("countersign_session", secret)
    problem(client.get("/api/v1/studies"), 401, "not_authenticated")


def test_a_session_ends_by_age_by_idleness_and_with_its_account(desk: Desk) -> None:
    for statement in (
        "UPDATE user_sessions SET expires_at = now() WHERE ended_at IS NULL",
        "UPDATE user_sessions SET seen_at = now() - interval '2 hours'",
        "UPDATE users SET disabled_at = now() WHERE login = 'ending'",
    ):
        client = desk.signed_in(Role.ATTENDING, login="ending")
        assert client.get("/api/v1/studies").status_code == 200
        change(desk, statement)
        problem(client.get("/api/v1/studies"), 401, "not_authenticated")


def test_a_page_that_looks_for_news_by_itself_keeps_no_session_alive(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING, login="away")
    idle = "UPDATE user_sessions SET seen_at = now() - interval '50 minutes' WHERE user_id = (SELECT id FROM users WHERE login = 'away')"
    seen = "SELECT now() - max(seen_at) > interval '40 minutes' FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE login = 'away'"
    change(desk, idle)
    assert client.get("/api/v1/studies", headers={"X-Countersign-Background": "1"}).status_code == 200
    with transaction(desk.engine) as session:
        assert session.scalar(text(seen)) is True
    assert client.get("/api/v1/studies").status_code == 200
    with transaction(desk.engine) as session:
        assert session.scalar(text(seen)) is False


def test_a_revoked_token_is_nobody_within_five_seconds(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    client = desk.machine(Role.AUDITOR)
    assert client.get("/api/v1/studies").status_code == 200
    change(desk, "UPDATE tokens SET revoked_at = now() WHERE role = 'auditor'")
    assert client.get("/api/v1/studies").status_code == 200  # remembered
    from gateway.web import context

    later = context.time.monotonic() + 5.1
    monkeypatch.setattr(context.time, "monotonic", lambda: later)
    problem(client.get("/api/v1/studies"), 401, "not_authenticated")


def test_a_token_needs_no_csrf_token(desk: Desk) -> None:
    study_uid = desk.study(ends="abstained")
    problem(desk.machine(Role.OPERATOR).post(f"/api/v1/studies/{study_uid}/report"), 403, "not_permitted")
    detail = desk.machine(Role.OPERATOR).post(f"/api/v1/studies/{study_uid}/report").json()["detail"]
    assert "reports:begin" in detail


def test_a_lock_ends_by_itself_and_counts_anew(desk: Desk) -> None:
    login = desk.user(Role.RESIDENT, login="patient")
    client, right = desk.client(), {"login": login, "password": PASSWORD}
    for _ in range(10):
        problem(client.post("/api/v1/session", json=right | {"password": "wrong"}), 401, "not_authenticated")
    problem(client.post("/api/v1/session", json=right), 401, "not_authenticated")
    with transaction(desk.engine) as session:
        left = session.scalar(text("SELECT locked_until - now() FROM users WHERE login = 'patient'"))
    assert 290 < left.total_seconds() <= 300
    change(desk, "UPDATE users SET locked_until = now() WHERE login = 'patient'")
    problem(client.post("/api/v1/session", json=right | {"password": "wrong"}), 401, "not_authenticated")
    assert client.post("/api/v1/session", json=right).status_code == 200, "one more wrong one locks nobody"


def test_a_stranger_at_the_door_keeps_nobody_from_signing(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING, login="signer")
    client, stranger = desk.signed_in(Role.ATTENDING, login=login), desk.client(client=("203.0.113.7", 1))
    report = f"/api/v1/reports/{desk.report_of(desk.study()).id}"
    for _ in range(12):
        refused = stranger.post("/api/v1/session", json={"login": login, "password": "wrong"})
        assert "reason_code" not in problem(refused, 401, "not_authenticated"), "locked and wrong sound alike there"
    asked = {"login": login, "password": PASSWORD}
    problem(desk.client().post("/api/v1/session", json=asked), 401, "not_authenticated")
    signed = client.post(f"{report}/sign", json={"seen": 1, "shown": 1, "password": PASSWORD})
    assert (signed.status_code, signed.json()["state"]) == (200, "final")


def test_wrong_passwords_at_signing_end_that_session_and_lock_no_door(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING, login="guessed-at-signing")
    client, other = (desk.signed_in(Role.ATTENDING, login=login) for _ in range(2))
    report = f"/api/v1/reports/{desk.report_of(desk.study()).id}"
    before = len(desk.events("proof_refused"))

    def refusal() -> object:
        answer = client.post(f"{report}/sign", json={"seen": 1, "shown": 1, "password": "wrong"})
        return problem(answer, 401, "not_authenticated")["reason_code"]

    assert [refusal() for _ in range(5)] == ["wrong_password"] * 4 + ["session_ended"]
    assert [facts["count"] for facts in desk.events("proof_refused")[before:]] == [1, 2, 3, 4, 5]
    problem(client.get(report), 401, "not_authenticated")
    assert other.get(report).json()["state"] == "draft"
    assert desk.signed_in(Role.ATTENDING, login=login).get(report).status_code == 200


def test_a_right_password_at_signing_begins_the_count_anew(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING, login="clumsy")
    for _ in range(3):
        report = f"/api/v1/reports/{desk.report_of(desk.study()).id}"
        for password, status in (("wrong", 401), ("wrong", 401), (PASSWORD, 200)):
            asked = {"seen": 1, "shown": 1, "password": password}
            assert client.post(f"{report}/sign", json=asked).status_code == status


def test_every_refused_sign_in_is_on_record_once_a_minute_and_without_its_login(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = desk.client(client=("203.0.113.8", 1))
    locked, disabled = desk.user(Role.RESIDENT, login="locked"), desk.user(Role.RESIDENT, login="disabled")
    change(desk, "UPDATE users SET locked_until = now() + interval '1 minute' WHERE login = 'locked'")
    change(desk, "UPDATE users SET disabled_at = now() WHERE login = 'disabled'")

    def told() -> list[tuple[str, int]]:
        rows = [facts for facts in desk.events("sign_in_refused") if facts["client_address"] == "203.0.113.8"]
        assert "CANARY" not in str(rows)
        return [(facts["reason_code"], facts["count"]) for facts in rows]

    for login in (locked, disabled, "CANARYLOGIN", "CANARYOTHER", locked):
        problem(stranger.post("/api/v1/session", json={"login": login, "password": PASSWORD}), 401, "not_authenticated")
    assert sorted(told()) == [("disabled", 1), ("locked", 1), ("unknown_login", 1)]
    later = proving.time.monotonic() + 61
    monkeypatch.setattr(proving.time, "monotonic", lambda: later)
    problem(stranger.post("/api/v1/session", json={"login": "CANARY", "password": "x"}), 401, "not_authenticated")
    assert sorted(told()[3:]) == [("locked", 1), ("unknown_login", 2)], "those that were held back are counted"


def test_an_address_that_guesses_too_often_is_told_to_wait_and_no_other_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {"login": desk.user(Role.ATTENDING), "password": PASSWORD}
    monkeypatch.setattr(accounts, "_WASTED", accounts._hasher.hash("nobody"))  # quick, as all of the tests' are
    now = proving.time.monotonic()
    monkeypatch.setattr(proving.time, "monotonic", lambda: now)
    guesser, neighbour = desk.client(client=("2001:db8::1", 1)), desk.client(client=("2001:db8::beef", 1))
    for number in range(proving.TRIES):
        wrong = {"login": f"nobody-{number}", "password": "wrong"}
        problem(guesser.post("/api/v1/session", json=wrong), 401, "not_authenticated")
    for client in (guesser, neighbour):  # of the same network
        refused = client.post("/api/v1/session", json=right)
        assert int(refused.headers["retry-after"]) == problem(refused, 429, "too_many_tries")["retry_after_s"] > 0
    page = guesser.post("/sign-in", data=right, headers={"Accept": "text/html"})
    assert (page.status_code, "retry-after" in page.headers) == (429, True)
    assert 'name="password"' in page.text
    assert desk.client(client=("2001:db8:1::1", 1)).post("/api/v1/session", json=right).status_code == 200
    now += 3
    assert guesser.post("/api/v1/session", json=right).status_code == 200


def test_an_address_has_its_tries_back_after_a_while_and_a_full_table_forgets_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = proving.Tries(most=2, every_s=10.0)
    now = 1000.0
    monkeypatch.setattr(proving.time, "monotonic", lambda: now)
    for _ in range(2):
        tries.require("192.0.2.1")
        tries.failed("192.0.2.1")
    with pytest.raises(TooManyTries) as refused:
        tries.require("192.0.2.1")
    assert refused.value.facts == {"retry_after_s": 10}
    now += 10
    tries.require("192.0.2.1")
    tries.failed("192.0.2.1")
    monkeypatch.setattr(proving, "_MOST", 3)
    for number in range(2, 6):
        tries.failed(f"192.0.2.{number}")
    assert len(tries._spent) == 3
    tries.require("192.0.2.1")


def test_more_addresses_than_are_remembered_share_one_event() -> None:
    notes = proving.Notes()
    told = [
        facts
        for number in range(1000)
        for facts in notes.due(f"key {number}", {"refusal": "unknown_login", "client_address": str(number)})
    ]
    assert len(told) == proving._MOST_EVENTS + 1
    assert told[-1]["client_address"] == "others"


def test_the_session_a_browser_had_ends_when_somebody_signs_in_there(desk: Desk) -> None:
    client, right = desk.signed_in(Role.ATTENDING), {"login": desk.user(Role.RESIDENT), "password": PASSWORD}
    former = desk.client(cookies=dict(client.cookies))
    assert former.get("/api/v1/studies").status_code == 200
    problem(client.post("/api/v1/session", json=right | {"password": "wrong"}), 401, "not_authenticated")
    assert former.get("/api/v1/studies").status_code == 200, "a refused sign-in ends nothing"
    assert client.post("/api/v1/session", json=right).status_code == 200
    problem(former.get("/api/v1/studies"), 401, "not_authenticated")
    assert client.get("/api/v1/studies").status_code == 200


def test_the_browser_is_told_to_forget_the_pictures_with_the_session(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING)
    assert "clear-site-data" not in client.get("/api/v1/studies").headers
    assert client.delete("/api/v1/session").headers["clear-site-data"] == '"cache"'
    assert "clear-site-data" not in client.get("/sign-in").headers
    over = desk.signed_in(Role.ATTENDING)
    change(desk, "UPDATE user_sessions SET expires_at = now() WHERE ended_at IS NULL")
    assert over.get("/sign-in").headers["clear-site-data"] == '"cache"'


@pytest.mark.parametrize(
    "ends",
    [
        lambda session: accounts.disable_user(session, "seeker"),
        lambda session: accounts.set_password(session, "seeker", PASSWORD),
    ],
)
def test_no_session_that_is_over_keeps_what_was_searched_for(desk: Desk, ends: Callable[[Session], object]) -> None:
    login = desk.user(Role.ATTENDING, login="seeker")
    with transaction(desk.engine) as session:
        opened, _ = sessions.open_session(session, accounts.enable_user(session, login), lasts_s=3600)
    with transaction(desk.engine) as session:
        name = sessions.keep_search(session, opened.id, {"patient_name": "CANARY"})
        assert sessions.kept_search(session, opened.id, name) == {"patient_name": "CANARY"}
    with transaction(desk.engine) as session:
        ends(session)
    with transaction(desk.engine) as session:
        assert sessions.kept_search(session, opened.id, name) == {}


def test_erasing_a_study_forgets_every_search(desk: Desk) -> None:
    study_uid = desk.study(patient_name="CANARY^NAME")
    client = desk.signed_in(Role.ATTENDING)
    form = {"csrf": client.headers["X-CSRF-Token"], "patient_name": "canary"}
    assert client.post("/search", data=form).status_code == 303
    kept = "SELECT count(*) FROM user_sessions WHERE search::text LIKE '%canary%'"
    with transaction(desk.engine) as session:
        assert session.scalar(text(kept)) == 1
    with transaction(desk.engine) as session:
        studies.erase(session, study_of(session, study_uid).id, by=person(session, Role.ADMIN, site="main"))
    with transaction(desk.engine) as session:
        assert session.scalar(text(kept)) == 0


def test_a_person_who_is_disabled_is_out_at_once_everywhere(desk: Desk) -> None:
    clients = [desk.signed_in(Role.ATTENDING, login="leaving") for _ in range(2)]
    with transaction(desk.engine) as session:
        accounts.disable_user(session, "leaving")
    for client in clients:
        problem(client.get("/api/v1/studies"), 401, "not_authenticated")
    problem(
        desk.client().post("/api/v1/session", json={"login": "leaving", "password": PASSWORD}), 401, "not_authenticated"
    )


def test_activity_prolongs_no_session_beyond_its_end(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING, login="busy")
    ends = "SELECT max(expires_at) FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE login = 'busy'"
    with transaction(desk.engine) as session:
        before = session.scalar(text(ends))
    change(desk, "UPDATE user_sessions SET seen_at = now() - interval '10 minutes'")
    assert client.get("/api/v1/studies").status_code == 200
    with transaction(desk.engine) as session:
        assert session.scalar(text(ends)) == before


def test_every_sign_in_is_another_secret_and_a_chosen_one_is_worth_nothing(desk: Desk) -> None:
    first, second = desk.signed_in(Role.ATTENDING), desk.signed_in(Role.ATTENDING)
    assert first.cookies["countersign_session"] != second.cookies["countersign_session"]
    fixed = desk.client()
    fixed.cookies.set("countersign_session", "chosen-by-somebody-else")
    answer = fixed.post("/api/v1/session", json={"login": desk.user(Role.ATTENDING), "password": PASSWORD})
    assert "chosen-by-somebody-else" not in answer.headers["set-cookie"]


def test_passwords_are_stored_as_argon2id(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING)
    with transaction(desk.engine) as session:
        stored = session.scalar(text("SELECT password_hash FROM users WHERE login = :login").bindparams(login=login))
    assert str(stored).startswith("$argon2id$v=19$")
    assert accounts._WASTED.startswith(
        "$argon2id$v=19$m=65536,t=3,p=4$"
    )  # made by the product's own hasher, not the tests'


def test_a_wrong_token_is_not_forgiven_for_a_right_cookie(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING)
    problem(client.get("/api/v1/studies", headers={"Authorization": "Bearer cs_x"}), 401, "not_authenticated")


def test_a_token_that_has_expired_is_nobody(desk: Desk) -> None:
    client = desk.machine(Role.OPERATOR, site="elsewhere")
    change(desk, "UPDATE tokens SET expires_at = now() WHERE role = 'operator'")
    problem(client.get("/api/v1/studies"), 401, "not_authenticated")
    change(desk, "UPDATE tokens SET expires_at = NULL WHERE role = 'operator'")


def test_over_tls_browsers_are_told_to_stay_there_and_unencrypted_pages_change_nothing(desk: Desk) -> None:
    asked = {"login": desk.user(Role.ATTENDING), "password": PASSWORD}
    plain, encrypted = desk.client(), desk.client(base_url="https://testserver")
    assert "strict-transport-security" not in plain.post("/api/v1/session", json=asked).headers
    answer = encrypted.post("/api/v1/session", json=asked, headers={"Origin": "https://testserver"})
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers["cache-control"] == "no-store"
    unencrypted = {"Origin": "http://testserver"}
    problem(encrypted.post("/api/v1/session", json=asked, headers=unencrypted), 403, "not_permitted")
    behind_a_proxy = {"Origin": "https://testserver"}  # which has not said so: the scheme is the proxy's business
    assert plain.post("/api/v1/session", json=asked, headers=behind_a_proxy).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_a_foreign_form_can_send_is_no_body_of_the_api(desk: Desk, kind: str) -> None:
    client = desk.signed_in(Role.ATTENDING)
    where, asked = "/api/v1/studies/search", json.dumps({"patient_id": "P1"})
    csrf = client.headers.pop("X-CSRF-Token")
    problem(client.post(where, content=asked, headers={"Content-Type": kind}), 403, "not_permitted")
    headers = {"Content-Type": kind, "X-CSRF-Token": csrf}
    assert client.post(where, content=asked, headers=headers).status_code in {400, 422}
