"""What is not a patient's: health, the API's description, static files.

Knows no table. `/healthz` speaks for this process alone; `/readyz` is unready only without PostgreSQL, since everything
else can be done without the bell.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.web.auth import public
from gateway.web.context import Door
from gateway.web.described import operations
from gateway.web.problems import STATUS_OF, TITLES
from gateway.web.schemas import Alive, Ready
from gateway.web.templating import page
from record.db import transaction
from record.errors import NotFound

router = APIRouter(dependencies=[Depends(public())])
_STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@router.get("/healthz", tags=["health"], summary="Whether this process answers")
def healthz() -> Alive:
    """Speaks for this process alone, not for the database nor for Redis."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Service Unavailable: the database does not answer"}},
    tags=["health"],
    summary="Whether this process can serve",
)
def readyz(web: Door) -> Any:
    """Whether this process can serve: 503 without the database; without Redis it is degraded, no more."""
    try:
        with transaction(web.engine) as session:
            session.execute(text("SELECT 1 FROM sites LIMIT 1"))
        database = "up"
    except SQLAlchemyError:
        database = "down"
    shown = Ready(database=database, redis="up" if web.bell.answers() else "down")
    return JSONResponse(shown.model_dump(), 200 if database == "up" else 503)


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """The API's description."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """The API's description for reading; made here, since a page of ours loads nothing from elsewhere."""
    described = request.app.openapi()
    codes = [(code, STATUS_OF[code], TITLES[code]) for code in sorted(STATUS_OF)]
    return page(
        "docs.html",
        request=request,
        info=described["info"],
        operations=list(operations(described)),
        schemas=described["components"]["schemas"],
        codes=codes,
    )


@router.get("/static/{name}", include_in_schema=False)
def static(name: Annotated[str, PathParameter(max_length=64)], request: Request) -> Response:
    """A style sheet, script or icon of ours."""
    content, tag, media_type = _static(name) or (b"", "", "")
    if not tag:
        message = "There is no such file."
        raise NotFound(message)
    headers = {"ETag": tag, "Cache-Control": "public, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    return Response(content, 200, headers, media_type=media_type)


def _static(name: str) -> tuple[bytes, str, str] | None:
    return _read_static().get(name)


@cache
def _read_static() -> dict[str, tuple[bytes, str, str]]:
    """All static files: a name that is none of these is never looked for on the disk."""
    return {
        path.name: (content, f'"{hashlib.sha256(content).hexdigest()[:32]}"', _MEDIA_TYPES[path.suffix])
        for path in _STATIC.iterdir()
        if path.suffix in _MEDIA_TYPES
        for content in [path.read_bytes()]
    }
