"""`countersign gateway api`: the web door as a process.

Knows uvicorn and signals. Does not know routes. PostgreSQL and Redis may be away when it starts.
"""

from __future__ import annotations

import signal

import structlog
import uvicorn

from gateway.ports import bind_fault, why_not
from gateway.web.app import create_app
from record import log
from record.errors import Misconfigured
from record.parts import Beat, Pulse
from record.settings import ApiSettings

_logger = structlog.get_logger()
_GRACE_S = 10
_IDLE_S = 30


def main(settings: ApiSettings) -> int:
    """Serve until SIGTERM or SIGINT, let requests in flight end, and return the exit status.

    Raises
    ------
    Misconfigured
        Nothing can listen at the address.
    """
    log.configure("api")
    if fault := bind_fault(settings.http_host, settings.http_port):
        remedy = "Stop that program, or set COUNTERSIGN_HTTP_HOST and COUNTERSIGN_HTTP_PORT to an address that is free."
        raise Misconfigured(f"{why_not(fault, settings.http_host, settings.http_port)} {remedy}")
    app = create_app(settings)
    pulse = Pulse(Beat(app.state.web.engine, "api", settings.report_s), settings.report_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again after its clean stop
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.http_host,
            port=settings.http_port,
            log_config=None,
            access_log=False,
            server_header=False,
            # Whom a proxy names as the client, and over which scheme: believed of the proxies that are named, of nobody else.
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            lifespan="off",
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_GRACE_S,
            h11_max_incomplete_event_size=64 * 1024,
        )
    )
    _logger.info("api_started", host=settings.http_host, port=settings.http_port)
    pulse.start()
    server.run()
    pulse.stop()
    app.state.web.decoders.close()
    app.state.web.engine.dispose()
    _logger.info("api_stopped")
    return 0 if server.started else 1
