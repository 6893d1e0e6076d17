"""`completion`: the script that lets a shell complete verbs, options, roles, sites and files.

Knows how a shell is told (click's own machinery) and where sites are found. A completion never says that something is
wrong: it offers nothing.
"""

from __future__ import annotations

import contextlib

import click
from click.shell_completion import CompletionItem, get_completion_class

from gateway.commands import example
from record.errors import CountersignError

SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print the script that teaches a shell our verbs.",
    epilog=example(
        "countersign completion bash > ~/.local/share/bash-completion/completions/countersign",
        "countersign completion zsh  > ~/.zfunc/_countersign      # a folder of your fpath",
        "countersign completion fish > ~/.config/fish/completions/countersign.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that teaches a shell our verbs, options, roles, sites and file names.

    The shell reads it at its start, so that a Tab completes what was begun. Sites are asked of the run's database.
    """
    found = get_completion_class(shell)
    if found is None:  # pragma: no cover  click brings these three
        raise click.UsageError(f"click knows no shell {shell}.")
    click.echo(found(context.find_root().command, {}, "countersign", "_COUNTERSIGN_COMPLETE").source())


def complete_sites(_context: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
    """The sites whose name begins so."""
    from sqlalchemy import select

    from gateway.commands import administrating, names_a_database, use_usual_folder
    from record.models import Site

    with contextlib.suppress(CountersignError, OSError):
        if not names_a_database():
            use_usual_folder()
        with administrating() as session:
            names = session.scalars(select(Site.name).order_by(Site.name)).all()
        return [CompletionItem(name) for name in names if name.startswith(begun)]
    return []
