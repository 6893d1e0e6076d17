"""Structured logging for every process: constant events, identifiers only.

Knows which keys may appear. Does not know what an event means. A key outside `PERMITTED` is dropped (and fails the
tests through `dropped`), so that a careless call cannot put a patient's name on a disk. Records of third-party
libraries pass as logger, level and exception type, never as their text: pydicom warns with the value it dislikes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, cast

import structlog

PERMITTED = frozenset(
    {
        "event", "level", "timestamp", "logger", "part", "pid", "code", "reason_code", "state", "former_state",
        "study_id", "series_id", "instance_id", "reading_id", "report_id", "draft_id", "delivery_id", "site_id",
        "user_id", "token_id", "peer_id", "receiver_id", "patient_id_key", "event_id", "spool_id", "association_id",
        "revision", "token", "failures", "lane", "purpose", "protocol", "model", "weights_digest", "digest", "sha256",
        "position", "head", "count", "instances", "bytes", "duration_s", "wait_s", "attempt", "rows", "error_type",
        "traceback", "port", "host", "url_host", "path_kind", "signal", "exit_status", "part_name", "status", "route",
        "method", "sop_class_uid", "transfer_syntax_uid", "result", "slots", "device", "dtype", "version", "setting",
        "hint", "queue", "depth", "claimable", "frames", "pictures", "omitted", "tokens", "finish", "free_bytes",
        "calling_ae_title", "called_ae_title", "peer_address",
    }
)  # fmt: skip

dropped: set[str] = set()
"""Keys that were not permitted and were therefore dropped; the tests assert that it stays empty."""


def _permit(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in [k for k in event if k not in PERMITTED]:
        dropped.add(key)
        del event[key]
    return event


def _name(part: str) -> Callable[[object, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    def name(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {"part": part, "pid": os.getpid(), **event}  # asked anew: a listener forks

    return name


class _StandardError:
    """Standard error as it is when a line is written, not as it was when logging was set up."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


_CATEGORY = re.compile(r":\d+: ([A-Z]\w{0,60}Warning): ")
"""The category in what `warnings.formatwarning` makes; what follows it is a library's words."""


class _ThirdParty(logging.Handler):
    """Lets other libraries' records through as where, how bad and what type, without their text."""

    def emit(self, record: logging.LogRecord) -> None:
        error_type = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        if record.name == "py.warnings" and (category := _CATEGORY.search(record.getMessage()[:1000])):
            error_type = category[1]
        structlog.get_logger().log(record.levelno, "library_message", logger=record.name, error_type=error_type)


def configure(part: str, *, level: int | None = None) -> None:
    """Set up logging for this process; call once, at the door. `part` names the process in every line."""
    if level is None:
        level = logging.getLevelNamesMapping().get(
            os.environ.get("COUNTERSIGN_LOG_LEVEL", "INFO").upper(), logging.INFO
        )
    human = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _name(part),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _traceback,
            _permit,
            structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ThirdParty()]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _traceback(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Where an error came from (file, line, function of each frame) and its type: never its text or any value."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error_type"] = type(error).__name__
        frames = []
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            frames.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        event["traceback"] = frames[-12:]
    return event
