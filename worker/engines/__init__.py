"""Engines: what runs the model. `open_engine` gives the one that the settings name.

Knows the contract and where each engine is found. Does not know prompts' meaning. Importing this package imports no
torch; an engine's own libraries are imported when it is opened.
"""

from __future__ import annotations

import os
from pathlib import Path

from worker.engines.contract import (
    Answer,
    Choice,
    Completion,
    Engine,
    EngineIdentity,
    Finish,
    Message,
    Parameters,
    Picture,
    Prompt,
    Role,
)

__all__ = [
    "Answer",
    "Choice",
    "Completion",
    "Engine",
    "EngineIdentity",
    "Finish",
    "Message",
    "Parameters",
    "Picture",
    "Prompt",
    "Role",
    "open_engine",
]

PHANTOM = "phantom"


def open_engine(
    model: str,
    *,
    engine_url: str | None = None,
    api_key: str | None = None,
    slots: int = 4,
    threads: int | None = None,
    device: str | None = None,
    self_test: bool = True,
) -> Engine:
    """Open the engine for a model.

    Parameters
    ----------
    model
        ``phantom`` (the committed small model), a folder, or a hub id; with `engine_url`, the name the server lists.
    engine_url
        Base address of an OpenAI-compatible server, with or without ``/v1``; None runs the model in this process.
    api_key
        Sent to the server as a bearer token.
    slots
        How many prompts are answered together.
    threads
        CPU threads of the model; None leaves it to torch.
    device
        ``cpu`` or ``cuda``; None takes an accelerator if there is one.
    self_test
        Ask the loaded model a few questions about made-up pictures before it may serve.

    Raises
    ------
    EngineUnavailable
        The server does not answer.
    EngineRejected
        There is no such model, it cannot be loaded faithfully, or it fails its self-test.
    """
    if engine_url is not None:
        from worker.engines.remote import RemoteEngine

        return RemoteEngine(engine_url, model=model, api_key=api_key, slots=slots)
    if model == PHANTOM:
        from worker.phantom import MODEL_DIR

        where = str(MODEL_DIR)
    else:
        where = model
    if Path(where).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is imported: a folder needs no hub
    from worker.engines.local import open_local

    return open_local(where, name=model, slots=slots, threads=threads, device=device, self_test=self_test)
