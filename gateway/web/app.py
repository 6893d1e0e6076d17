"""The web application: routes, errors and the envelope, put together.

Knows which parts there are. Does not know how any of them works.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.types import ASGIApp

from gateway.web import (
    audit_pages,
    described,
    events_api,
    frames_api,
    metrics_api,
    operations_pages,
    pages,
    preferences,
    problems,
    report_pages,
    reports_api,
    session_api,
    studies_api,
    system,
    viewer_pages,
    worklist_pages,
)
from gateway.web.bodies import LimitBody
from gateway.web.context import Web
from gateway.web.decoders import Decoders
from gateway.web.envelope import envelope
from record.db import connect
from record.queue import Bell
from record.settings import ApiSettings
from record.store import Store

_DESCRIPTION = """Studies come in by DICOM, a model drafts what it sees, a physician decides what is true.

Machines send the header Authorization: Bearer TOKEN. People open a session and send its csrf value as the header
X-CSRF-Token with whatever changes something. Every error is a problem (RFC 9457) with a stable code. Unsigned words never
come without their banner."""


class _App(FastAPI):
    """FastAPI, in an envelope that even its own last-resort error page cannot leave."""

    def openapi(self) -> dict[str, Any]:
        self.openapi_schema = self.openapi_schema or described.describe(self)
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        return envelope(super().build_middleware_stack())


def create_app(settings: ApiSettings, engine: Engine | None = None) -> FastAPI:
    """The application for one process.

    Parameters
    ----------
    settings
        The web door's.
    engine
        The process's engine, where the caller has one already.
    """
    app = _App(
        title="countersign",
        version="1",
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.web = Web(
        settings=settings,
        engine=engine or connect(settings.database_url, pool=10),
        store=Store(settings.store),
        bell=Bell(settings.redis_url),
        decoders=Decoders(settings),
    )
    for part in (
        system,
        session_api,
        studies_api,
        frames_api,
        reports_api,
        events_api,
        metrics_api,
        preferences,
        worklist_pages,
        pages,
        viewer_pages,
        report_pages,
        audit_pages,
        operations_pages,
    ):
        app.router.routes.extend(part.router.routes)  # flat, so that a test can walk all routes
    problems.install(app)
    report_pages.install(app)
    app.add_middleware(LimitBody)
    return app
