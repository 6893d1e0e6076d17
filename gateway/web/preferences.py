"""How somebody likes the pages: their language, light or dark. Kept in the browser, no matter of the record.

Knows two forms and two cookies. Does not know who asks, nor what the pages say.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse

from gateway.web import auth, languages, templating

router = APIRouter(include_in_schema=False, dependencies=[Depends(auth.public())])
_A_YEAR_S = 365 * 24 * 3600
Back = Annotated[str, Form(max_length=1000)]


@router.post("/language")
def language_chosen(
    request: Request, language: Annotated[Literal["en", "es", "zh"], Form()], back: Back = "/"
) -> RedirectResponse:
    """Have the pages in this language from now on."""
    return _kept(request, languages.COOKIE, language, back)


@router.post("/appearance")
def appearance_chosen(
    request: Request, appearance: Annotated[Literal["auto", "light", "dark"], Form()], back: Back = "/"
) -> RedirectResponse:
    """Have the pages light, dark, or as the device is set."""
    return _kept(request, templating.APPEARANCE_COOKIE, appearance, back)


def _kept(request: Request, cookie: str, chosen: str, back: str) -> RedirectResponse:
    auth.require_own_origin(request)
    answer = RedirectResponse(_local(back), 303)
    answer.set_cookie(
        cookie,
        chosen,
        max_age=_A_YEAR_S,
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


def _local(back: str) -> str:
    r"""An address of ours and nobody else's: browsers read `//host` and `/\host` as another site."""
    own = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
    return back if own else "/"
