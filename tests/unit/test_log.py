"""What may appear in a log: constant events, permitted keys, never another library's words."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, warnings, structlog
from record import log
log.configure("test")
logger = structlog.get_logger()
logger.info("instance_stored", instance_id="1", patient_name="CANARY^NAME")
warnings.warn("CANARY in a warning")
logging.getLogger("pydicom").warning("value CANARY is not valid")
try:
    raise ValueError("CANARY in an error")
except ValueError:
    logging.getLogger("sqlalchemy").exception("CANARY")
    logger.exception("reading_stumbled", reading_id="2")
assert log.dropped == {"patient_name"}, log.dropped
"""


def test_only_permitted_keys_and_never_a_librarys_words_reach_the_log() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "CANARY" not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == [
        "instance_stored",
        "library_message",
        "library_message",
        "library_message",
        "reading_stumbled",
    ]
    assert [line.get("error_type") for line in lines[1:]] == ["UserWarning", None, "ValueError", "ValueError"]
    assert lines[-1]["traceback"]
