"""The command line: ``beit3 --help`` lists the commands; each has a file in ``commands/``.

Only typer, rich and the standard library load here, so that help and shell completion are
immediate. A command imports Ray, MLflow, torch or Arrow inside its function, where it uses them.
"""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from pipelines.commands import (
    apply,
    compare,
    demo,
    doctor,
    export,
    grid,
    inspecting,
    profile,
    recipes,
    rejects,
    run,
    search,
    sweep,
    try_page,
    ui,
    workdir,
)

app = typer.Typer(
    name="beit3",
    help="BEiT-3: pretraining from source lists to a checkpoint, and fine-tuning for tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    demo.demo,
    recipes.recipes,
    run.plan,
    run.run,
    grid.grid,
    sweep.sweep,
    workdir.status,
    workdir.report,
    compare.compare,
    profile.profile,
    rejects.rejects,
    ui.ui,
    apply.embed,
    search.search,
    apply.caption,
    apply.answer,
    apply.classify,
    apply.detect,
    apply.segment,
    doctor.doctor,
    export.export,
    workdir.gc,
):
    app.command()(command)
app.command("try")(try_page.try_page)
app.add_typer(inspecting.app, name="inspect")


def main() -> None:
    """Entry point: an error with a message for the user prints that message and exits with 1."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from orchestration.errors import PipelineError

        if not isinstance(error, PipelineError):
            raise
        message = f"[red]error:[/] {escape(str(error))}"
        Console(stderr=True).print(message, highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
