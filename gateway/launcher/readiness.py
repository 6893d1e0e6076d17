"""Whether the doors really answer: a C-ECHO at the one, `GET /readyz` at the other.

Does not know what is behind them.
"""

from __future__ import annotations

import httpx

UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  addresses to look for, not to bind


def dicom_answers(host: str, port: int, ae_title: str) -> bool:
    """Whether the listener accepts an association and answers a C-ECHO."""
    from gateway.dicom.calling import echo

    return echo(reachable(host), port, ae_title, 3.0)


def http_answers(host: str, port: int) -> bool:
    """Whether the API says that it is ready."""
    try:
        return httpx.get(f"{http_url(host, port)}/readyz", timeout=3.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def http_url(host: str, port: int) -> str:
    """The address a person on this machine can open."""
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable(host: str) -> str:
    """An address to connect to, for one that a server listens on."""
    return UNSPECIFIED.get(host, host)
