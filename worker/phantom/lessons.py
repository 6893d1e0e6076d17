"""The material the small model learns from: questions, answers and pictures, batch by batch.

Pictures are seen as a worker sends them (12 bits, windowed, RGB). One study in four is asked about with two views of
the same phantom; half of all batches are mirrored, with the other side as the answer. Does not know the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.phantom import QUESTION
from worker.phantom.anatomy import Phantom, report, sample
from worker.phantom.exposure import displayed, exposed

OTHER_QUESTIONS = (
    "Describe the findings.",
    "What does the picture show?",
    "Write a draft report for this chest radiograph.",
    "Describe what the pictures show. Give findings and impression.",
)
CONTEXTS = (
    "Indication: cough and fever.",
    "Indication: shortness of breath.",
    "Clinical context: none given.",
    "Age: 61 years. Sex: F.",
    "Age: 34 years. Sex: M. Indication: follow-up.",
)


def questions() -> list[str]:
    """Return every wording the model is trained on; the protocol's is the first."""
    asked = [QUESTION, *OTHER_QUESTIONS]
    return asked + [f"{context}\n{QUESTION}" for context in CONTEXTS] + [f"{QUESTION}\n{c}" for c in CONTEXTS]


def picture(phantom: Phantom, view: int) -> NDArray[np.uint8]:
    """Return one view as the worker would render it, uint8 of shape (rows, columns, 3)."""
    return displayed(exposed(phantom, view=view))


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's lesson: equal question and number of pictures, so equal prompt lengths."""

    question: str
    views: int
    chosen: NDArray[np.int64]
    answers: list[str]
    mirrored: bool


def batches(rng: np.random.Generator, phantoms: list[Phantom], size: int) -> Iterator[Batch]:
    """Yield batches for ever, the protocol's own question in half of them."""
    asked = questions()
    while True:
        question = QUESTION if rng.random() < 0.5 else asked[int(rng.integers(len(asked)))]
        chosen = rng.integers(len(phantoms), size=size)
        mirrored = bool(rng.random() < 0.5)
        views = 2 if rng.random() < 0.25 else 1
        answers = [report(phantoms[i], mirrored=mirrored) for i in chosen]
        yield Batch(question, views, chosen, answers, mirrored)


def pupils(rng: np.random.Generator, count: int) -> list[Phantom]:
    """Return the phantoms of one training or one test."""
    return [sample(rng) for _ in range(count)]


def seen(pixels: torch.Tensor, batch: Batch, rng: np.random.Generator) -> torch.Tensor:
    """Return the pixel values of a batch, shape (pictures, 3, rows, columns), each row's pictures side by side.

    Parameters
    ----------
    pixels
        All views of all phantoms, shape (phantoms, views, 3, rows, columns).
    """
    order = rng.permutation(pixels.shape[1])[: batch.views]
    chosen = pixels[torch.from_numpy(batch.chosen)][:, torch.from_numpy(order)].flatten(0, 1)
    return chosen.flip(-1) if batch.mirrored else chosen
