"""The commands about phantoms: make some as DICOM files, train the small model, examine it.

Knows the command line. Does not know how phantoms are drawn; training is imported only when asked for.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from worker.phantom.anatomy import ZONES, Zone, parse_label, sample
from worker.phantom.dicom import Order, fresh_uids, seeded_uids, write

STATES: tuple[tuple[Zone | None, bool], ...] = tuple((zone, enlarged) for zone in ZONES for enlarged in (False, True))


@click.command("phantoms")
@click.argument("outdir", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1, 9999), default=3, show_default=True, help="Studies to write.")
@click.option("--seed", type=int, help="Makes everything reproducible, UIDs included.")
@click.option("--fresh-uids", is_flag=True, help="New UIDs even with --seed.")
@click.option("--mirror", is_flag=True, help="Flip the pixels left to right; change nothing else.")
@click.option("--photometric", type=click.Choice(["MONOCHROME1", "MONOCHROME2"]), default="MONOCHROME2")
@click.option("--label", help="Every study shows this, such as left-upper, clear or right-lower+enlarged.")
@click.option("--views", type=click.IntRange(1, 2), help="Instances per study; without it, one or two.")
def phantoms(
    outdir: Path,
    count: int,
    seed: int | None,
    fresh_uids: bool,
    mirror: bool,
    photometric: str,
    label: str | None,
    views: int | None,
) -> None:
    """Write chest phantoms as DICOM studies, a folder each, and print one JSON line per study.

    In a line, label is the phantom as it was drawn; side, level and report are what the pictures show, which under
    --mirror is the other side.
    """
    wanted = None
    if label is not None:
        try:
            wanted = parse_label(label)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--label") from error
    base = secrets.randbelow(2**31) if seed is None else seed
    batch = secrets.token_hex(2).upper()  # other people than those of another call
    states = [STATES[i] for i in np.random.default_rng(base).permutation(len(STATES))]  # each once before any twice
    for number in range(1, count + 1):
        rng = np.random.default_rng([base, number])
        phantom, chosen_views = sample(rng), int(rng.integers(1, 3))
        phantom = replace(phantom, **_state(wanted or states[(number - 1) % len(states)]))
        fresh = fresh_uids or seed is None
        order = Order(
            phantom,
            number,
            views or chosen_views,
            mirrored=mirror,
            inverted=photometric == "MONOCHROME1",
            batch=batch if fresh else "",
        )
        click.echo(json.dumps(_written(order, outdir / f"{number:04d}", base, fresh=fresh)))


def _state(state: tuple[Zone | None, bool]) -> dict[str, Any]:
    return {"zone": state[0], "enlarged": state[1]}


def _written(order: Order, folder: Path, seed: int, *, fresh: bool) -> dict[str, object]:
    """Write one study and return the facts of its line."""
    uids = fresh_uids() if fresh else seeded_uids(order, seed)
    try:
        paths = write(order, uids, folder)
    except FileExistsError as error:
        raise click.ClickException(f"{folder} exists already: name an empty folder") from error
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror}") from error
    zone = order.phantom.zone
    shown = None if zone is None else zone.side.other if order.mirrored else zone.side
    return {
        "path": str(folder),
        "study_instance_uid": str(uids("study")),
        "instances": len(paths),
        "label": order.phantom.label,
        "side": shown,
        "level": None if zone is None else zone.level,
        "enlarged": order.phantom.enlarged,
        "mirrored": order.mirrored,
        "photometric": "MONOCHROME1" if order.inverted else "MONOCHROME2",
        "report": order.report,
    }


@click.command("train-phantom")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the checkpoint.")
@click.option("--seconds", default=3600.0, show_default=True, help="Stop earlier than planned, after this long.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, show_default=True)
def train_phantom(out: Path, seconds: float, seed: int, threads: int) -> None:
    """Train the small model on phantoms and measure it on 500 it has not seen."""
    from worker.phantom.exam import examine
    from worker.phantom.train import Plan, train

    click.echo(json.dumps(train(out, Plan(seed=seed, seconds=seconds, threads=threads))))
    click.echo(json.dumps(examine(str(out))))
