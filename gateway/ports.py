"""Whether a program can listen at an address, and why not, in words.

Knows the operating system's codes. Does not know who wants to listen.
"""

from __future__ import annotations

import errno
import socket


def port_at(host: str, port: int) -> int:
    """The port that a server would get there now; 0 takes a free one.

    Raises
    ------
    OSError
        It would get none.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def bind_fault(host: str, port: int) -> OSError | None:
    """What keeps a server from listening there now; None where nothing does."""
    try:
        port_at(host, port)
    except OSError as error:
        return error
    return None


def why_not(error: OSError, host: str, port: int) -> str:
    """One sentence about what the operating system answered."""
    if isinstance(error, socket.gaierror):
        return f"{host} is no address: no name server knows it."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"This machine has no address {host}."
    if error.errno == errno.EACCES:
        return f"Port {port} is not ours to use: below 1024 the system asks for a privilege."
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken by another program."
    return f"Nothing can listen on {host} port {port} ({error.strerror or type(error).__name__})."
