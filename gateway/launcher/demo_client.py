"""What the demo does over HTTP: sign in, look at the worklist, edit and sign one report.

A client like any other; knows the public API and nothing behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from record.errors import Misconfigured
from record.states import ReadingState, StudyState

LOST = {ReadingState.FAILED, ReadingState.ABSTAINED}


@dataclass(frozen=True, slots=True)
class StudyLine:
    """One line of the worklist."""

    study_instance_uid: str
    state: str
    revision: int
    instances: int
    reading_state: str | None
    report_state: str | None
    report_id: str | None

    def told(self) -> str:
        """The line for a person."""
        parts = [f"{self.state} ({self.instances} image{'' if self.instances == 1 else 's'})"]
        if self.reading_state:
            parts.append(f"reading {self.reading_state}")
        if self.report_state:
            parts.append(f"report {self.report_state}")
        return ", ".join(parts)

    def is_lost(self) -> bool:
        """Whether no draft will come."""
        return self.state == StudyState.SKIPPED or self.reading_state in LOST


class DemoClient:
    """A signed-in physician's HTTP session."""

    def __init__(self, url: str, login: str, password: str) -> None:
        self._password = password
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        opened = self._ask("POST", "/api/v1/session", {"login": login, "password": password})
        self._http.headers["X-CSRF-Token"] = opened["csrf"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def studies(self, uids: list[str]) -> dict[str, StudyLine]:
        """The worklist's lines of these studies, by UID."""
        listed = self._ask("GET", "/api/v1/studies?limit=100")["items"]
        return {
            line["study_instance_uid"]: StudyLine(**{name: line[name] for name in StudyLine.__slots__})
            for line in listed
            if line["study_instance_uid"] in uids
        }

    def edit_and_sign(self, study: StudyLine) -> str:
        """Add a sentence to the draft, save, sign exactly that; returns the report's id."""
        where = f"/api/v1/reports/{study.report_id}"
        report = self._ask("GET", where)
        text = report["text"].rstrip() + "\nRead and edited by the demo physician."
        self._ask("PUT", f"{where}/text", {"seen": report["text_revision"], "text": text})
        seen = self._ask("GET", where)["text_revision"]
        self._ask("POST", f"{where}/sign", {"seen": seen, "shown": study.revision, "password": self._password})
        state = self._ask("GET", where)["state"]
        if state != "final":
            raise Misconfigured(f"The report was signed and is {state!r} instead of final.")
        return str(study.report_id)

    def _ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._http.request(method, path, json=content)
        except httpx.HTTPError as error:
            raise Misconfigured(
                f"The API did not answer {method} {path.partition('?')[0]} ({type(error).__name__}). Its log is "
                "logs/api.log in the data folder."
            ) from None
        if answer.is_error:
            raise Misconfigured(
                f"The API refused {method} {path.partition('?')[0]} with {answer.status_code}: {answer.text[:300]}"
            )
        return answer.json() if answer.content else None
