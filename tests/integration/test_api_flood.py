"""Strangers in great number at the public door, over real connections: they hold up themselves and nobody else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from argon2.exceptions import VerifyMismatchError

from gateway.web import proving
from record import accounts
from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import PASSWORD, Desk, desk_on, served

pytestmark = pytest.mark.timeout(60)
STRANGERS = 60
AT_ONCE_S = 2.0
"""So soon comes whatever does not wait. Before, a page took as long as all strangers together."""
GUESS = "a stranger's guess"


@pytest.fixture
def desk(database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    with served(desk.app) as address:
        yield address


class SlowForStrangers:
    """Argon2, as long as it takes; here, until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def verify(self, password_hash: str, password: str) -> bool:
        if password == GUESS:
            self.let_go.wait(30)
            raise VerifyMismatchError
        return bool(self.real.verify(password_hash, password))

    real = accounts._hasher


@pytest.fixture
def crowd(url: str) -> Iterator[httpx.Client]:
    """So many connections."""
    with httpx.Client(base_url=url, timeout=40, limits=httpx.Limits(max_connections=STRANGERS)) as many:
        yield many


def guess(crowd: httpx.Client, number: int) -> httpx.Response:
    return crowd.post("/api/v1/session", json={"login": f"nobody-{number}", "password": GUESS})


def test_sixty_strangers_hold_up_no_page_no_health_and_no_signature(
    desk: Desk, url: str, crowd: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor = desk.signed_in(Role.ATTENDING)
    report = f"/api/v1/reports/{desk.report_of(desk.study()).id}"
    cookie = f"countersign_session={doctor.cookies['countersign_session']}"
    headers = {"Cookie": cookie, "X-CSRF-Token": doctor.headers["X-CSRF-Token"]}
    right = {"login": desk.user(Role.RESIDENT), "password": PASSWORD}
    slow = SlowForStrangers()
    monkeypatch.setattr(accounts, "_hasher", slow)
    with httpx.Client(base_url=url, headers=headers, timeout=AT_ONCE_S) as known, ThreadPoolExecutor(STRANGERS) as many:
        try:
            guesses = [many.submit(guess, crowd, number) for number in range(STRANGERS)]
            refused = STRANGERS - 2 - proving.WAITING
            until = time.monotonic() + 20
            while sum(each.done() for each in guesses) < refused:
                assert time.monotonic() < until
                time.sleep(0.01)
            told = [each.result() for each in guesses if each.done()]
            assert known.get("/healthz").status_code == 200
            assert known.get("/api/v1/studies").status_code == 200
            signed = known.post(f"{report}/sign", json={"seen": 1, "shown": 1, "password": PASSWORD})
            assert (signed.status_code, signed.json()["state"]) == (200, "final")
            assert known.post("/api/v1/session", json=right).status_code == 503, "told at once to come again"
        finally:
            slow.let_go.set()
    assert {(each.status_code, each.json()["code"]) for each in told} == {(503, "unavailable")}
    assert all(each.headers["retry-after"] for each in told)
    assert httpx.post(f"{url}/api/v1/session", json=right, timeout=10).status_code == 200


def test_who_guesses_from_sixty_connections_uses_up_one_addresss_tries(
    desk: Desk, url: str, crowd: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_WASTED", accounts._hasher.hash("nobody"))  # quick, as all of the tests' are
    right = {"login": desk.user(Role.ATTENDING), "password": PASSWORD}
    with ThreadPoolExecutor(STRANGERS) as many:
        answers = Counter(answer.status_code for answer in many.map(lambda n: guess(crowd, n), range(5 * STRANGERS)))
    assert answers.keys() <= {401, 429, 503}
    assert answers[401] <= proving.TRIES + 2 + proving.WAITING + 60 / 2, "in flight, and what came back within a minute"
    while guess(crowd, 0).status_code != 429:  # whoever was sent away for the crowd comes again
        pass
    assert httpx.post(f"{url}/api/v1/session", json=right, timeout=10).status_code == 429
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=url, transport=elsewhere, timeout=10) as another:
        assert another.post("/api/v1/session", json=right).status_code == 200
