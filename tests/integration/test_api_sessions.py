"""Sessions and tokens: cookies, CSRF, origins, lockout, expiry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import text

from record import accounts
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
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
    assert len(desk.events("login_refused")) >= 10


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


def test_wrong_passwords_at_signing_lock_as_those_at_the_door(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING, login="signer")
    signing = f"/api/v1/reports/{desk.report_of(desk.study()).id}/sign"
    for _ in range(10):
        asked = {"seen": 1, "shown": 1, "password": "wrong"}
        problem(client.post(signing, json=asked), 401, "not_authenticated")
    problem(client.post(signing, json={"seen": 1, "shown": 1, "password": PASSWORD}), 401, "not_authenticated")


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
