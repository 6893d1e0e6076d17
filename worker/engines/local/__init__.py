"""The engine that runs a model in this process, on transformers.

Importing `open_local` imports torch; nothing outside this package does. Does not know settings: they are handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.engines.local.engine import LocalEngine

__all__ = ["open_local"]


def open_local(
    where: str, *, name: str, slots: int, threads: int | None, device: str | None, self_test: bool
) -> LocalEngine:
    """Load a checkpoint, test it and start its engine; see `worker.engines.open_engine`."""
    import torch

    from worker.engines.local import selftest
    from worker.engines.local.engine import LocalEngine
    from worker.engines.local.loading import load

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(where, name=name, device=device)
    if self_test:
        selftest.check(loaded)
    return LocalEngine(loaded, slots=slots)
