"""Which process this is: a name that no other has, and the release that runs.

Knows nothing else, so that the listener, which loads no database, can say it too.
"""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from importlib.metadata import PackageNotFoundError, version


def new_owner() -> str:
    """A name for this process that no other has, on this machine or another, now or after its number is used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


@cache
def own_version() -> str:
    """The release that runs here; a dash where nobody installed it."""
    try:
        return version("countersign")
    except PackageNotFoundError:
        return "-"
