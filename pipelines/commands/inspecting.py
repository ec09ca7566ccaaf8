"""The group ``beit3 inspect``: of a network's cost, and of what lies in a workdir."""

from typing import Any, Final

import typer
from typer.core import TyperGroup

from pipelines.commands import inspect_model, inspect_output

_DEFAULT: Final = "output"


class OutputByDefault(TyperGroup):
    """Takes a word that is no subcommand for a place: ``beit3 inspect runs/demo``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of the subcommand, the subcommand and its arguments."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = [_DEFAULT, *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=OutputByDefault,
    help="Print what lies in a workdir, or what a network costs.",
    no_args_is_help=True,
)
app.command()(inspect_output.output)
app.command()(inspect_model.model)
