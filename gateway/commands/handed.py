"""Verbs that only the worker can do: the run is found here, as for any verb, and the rest is handed on to it.

Knows how a run is found, and what the worker's own command is called. Does not know what the worker does: its help is the
worker's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from gateway.commands import PATH, find_environment, settings_of_run

_HELP = frozenset({"-h", "--help"})


class HandedOn(click.Command):
    """One verb of the worker's, with all that is below it.

    Parameters
    ----------
    alone
        What is below it and needs no run.
    """

    def __init__(self, name: str, *, short_help: str, alone: Sequence[str] = ()) -> None:
        folder = click.Option(["--data-dir"], type=PATH)
        arguments = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
        super().__init__(
            name,
            params=[folder, arguments],
            short_help=short_help,
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True, "help_option_names": []},
            callback=self._find_and_hand_on,
        )
        self._alone = frozenset(alone)

    def needs_run(self, arguments: Sequence[str]) -> bool:
        """Whether what is asked for works on a run: neither help, nor one of those that do without."""
        first = next((each for each in arguments if not each.startswith("-")), None)
        return first is not None and first not in self._alone and _HELP.isdisjoint(arguments)

    def _find_and_hand_on(self, data_dir: Path | None, arguments: tuple[str, ...]) -> NoReturn:
        if data_dir is not None or self.needs_run(arguments):
            context = click.get_current_context()
            find_environment(context, self.params[0], data_dir)
            settings_of_run()
        to_worker(str(self.name), *arguments)


def to_worker(*arguments: str) -> NoReturn:
    """Become the worker's command: ourselves, without a shell, and without looking for it in the current folder (`-P`)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker", *arguments])  # noqa: S606


protocols = HandedOn("protocols", short_help="What the model is asked, for which studies.", alone=("check",))
pictures = HandedOn("pictures", short_help="Show which pictures of a study the model is given, and why.")
