"""Measures a trained model on phantoms it has not seen, through the engine that will run it.

Knows the right answers. Does not know how the model was trained; takes any model reference an engine opens.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from worker.engines import Engine, Message, Picture, Prompt, open_engine
from worker.operations import render_file
from worker.phantom import QUESTION
from worker.phantom.anatomy import Phantom, report, sample
from worker.phantom.dicom import Order, fresh_uids, write
from worker.phantom.exposure import displayed, exposed

SEED = 10_000
WAIT_S = 600.0


def seen(phantom: Phantom, *, view: int = 0, mirrored: bool = False, inverted: bool = False) -> Picture:
    """Return a phantom's view as the worker would render it."""
    pixels = displayed(exposed(phantom, view=view, inverted=inverted))
    pixels = np.ascontiguousarray(np.fliplr(pixels)) if mirrored else pixels  # (rows, columns, 3)
    return Picture(hashlib.sha256(pixels.tobytes()).hexdigest(), pixels)


def sent(order: Order) -> Picture:
    """Return the first instance of a phantom's study as the worker makes it from the file: decoded, windowed, a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(order, fresh_uids(), Path(folder, "study"))[0]
        _, png = render_file({"path": str(path)})
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB"))  # (rows, columns, 3)
    return Picture(hashlib.sha256(png).hexdigest(), pixels)


def asked(*pictures: Picture) -> Prompt:
    """Return the protocol's question about these pictures."""
    return Prompt((Message("user", QUESTION, pictures),), deadline_s=WAIT_S)


def examine(model: str, *, count: int = 500, seed: int = SEED, slots: int = 16) -> dict[str, float]:
    """Return the shares of right answers on unseen phantoms: whole reports, lungs, heart, mirrored, two views.

    ``exact_through_files`` reads MONOCHROME1 and MONOCHROME2 files in turn, as the worker decodes and renders them.
    """
    rng = np.random.default_rng(seed)
    phantoms = [sample(rng) for _ in range(count)]
    engine = open_engine(model, slots=slots)
    try:
        plain = _texts(engine, [asked(seen(p)) for p in phantoms])
        mirrored = _texts(engine, [asked(seen(p, mirrored=True)) for p in phantoms])
        twice = _texts(engine, [asked(seen(p), seen(p, view=1)) for p in phantoms])
        files = [Order(p, inverted=bool(number % 2)) for number, p in enumerate(phantoms)]
        through_files = _texts(engine, [asked(sent(order)) for order in files])
    finally:
        engine.close()
    focal = [i for i, p in enumerate(phantoms) if p.zone is not None]
    return {
        "phantoms": count,
        "exact": _share([text == report(p) for text, p in zip(plain, phantoms, strict=True)]),
        "lungs": _share([_lungs(text) == _lungs(report(p)) for text, p in zip(plain, phantoms, strict=True)]),
        "heart": _share([("enlarged" in text) == p.enlarged for text, p in zip(plain, phantoms, strict=True)]),
        "exact_mirrored": _share([t == report(p, mirrored=True) for t, p in zip(mirrored, phantoms, strict=True)]),
        "side_flips": _share([_lungs(mirrored[i]) == _lungs(report(phantoms[i], mirrored=True)) for i in focal]),
        "exact_through_files": _share([text == order.report for text, order in zip(through_files, files, strict=True)]),
        "exact_two_views": _share([text == report(p) for text, p in zip(twice, phantoms, strict=True)]),
    }


def _texts(engine: Engine, prompts: list[Prompt]) -> list[str]:
    answers = [engine.submit(prompt) for prompt in prompts]
    return [answer.result(WAIT_S).text for answer in answers]


def _lungs(text: str) -> str:
    return text.partition(".")[0]


def _share(right: list[bool]) -> float:
    return round(sum(right) / len(right), 4)
