"""Asks a freshly loaded model about made-up pictures, before it may serve.

Each check names a silent fault that has been seen in the wild: pixels that never arrive, cropped edges, batches that
change the answer, one token for ever. Does not know whether the model is any good.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from record.errors import EngineRejected
from worker.engines.contract import Completion, Message, Parameters, Picture, Prompt
from worker.engines.local.generation import run
from worker.engines.local.loading import Loaded
from worker.engines.ticket import Ticket

QUESTION = "What does the picture show?"
TOKENS = 12
DEADLINE_S = 600.0


def check(loaded: Loaded) -> None:
    """Run every check.

    Raises
    ------
    EngineRejected
        With the name of the first check that failed as ``check``.
    """
    one, other = _picture(1), _picture(2)
    alone = [_ask(loaded, [picture])[0] for picture in (one, other)]
    again = _ask(loaded, [one])[0]
    _expect(again.token_ids == alone[0].token_ids, "same_picture_same_words")
    _expect(alone[0].token_logprobs != alone[1].token_logprobs, "pixels_reach_the_words")
    ids = alone[0].token_ids
    _expect(len(ids) < TOKENS or len(set(ids)) > 1, "not_one_token_for_ever")
    if loaded.model.dtype == torch.float32:  # in lower precision a batch may differ in late tokens
        together = _ask(loaded, [one, other])
        _expect([c.token_ids for c in together] == [c.token_ids for c in alone], "batch_equals_single")
    _expect(_edge_kept(loaded), "edges_kept")


def _expect(passed: bool, name: str) -> None:
    if not passed:
        raise EngineRejected(f"the model failed its self-test: {name}", reason="self_test", check=name)


def _picture(seed: int) -> Picture:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:96, 0:64]
    grey = rng.normal(100, 12, (96, 64))  # (rows, columns): not square, so that padding matters
    grey[(columns - rng.integers(10, 54)) ** 2 + (rows - rng.integers(10, 86)) ** 2 < 150] += 120
    return _of(np.clip(grey, 0, 255).astype(np.uint8))


def _of(grey: np.ndarray) -> Picture:
    pixels = np.repeat(grey[:, :, None], 3, axis=2)  # (rows, columns, 3)
    return Picture(hashlib.sha256(pixels.tobytes()).hexdigest(), pixels)


def _ask(loaded: Loaded, pictures: list[Picture]) -> list[Completion]:
    tickets = [
        Ticket(
            Prompt((Message("user", QUESTION, (picture,)),), Parameters(max_new_tokens=TOKENS), deadline_s=DEADLINE_S)
        )
        for picture in pictures
    ]
    run(loaded, tickets)
    return [ticket.result(0) for ticket in tickets]


def _edge_kept(loaded: Loaded) -> bool:
    """Return whether a mark at the left edge of a wide picture still reaches the model."""
    plain = np.full((64, 192), 90, np.uint8)  # (rows, columns)
    marked = plain.copy()
    marked[:, :16] = 250
    processor = loaded.family.processor.image_processor
    seen = [
        processor([_of(grey).pixels], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        for grey in (plain, marked)
    ]
    return not torch.equal(*seen)
