"""``beit3 export``: comparison of an export with the programs that read it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.commands.options import console


def export(
    check: Annotated[
        Path,
        typer.Option(
            "--check", metavar="DIR", help="Export folder whose files are read and compared."
        ),
    ],
) -> None:
    """Compare an export with the programs that read it: torchscale, timm, transformers.

    An export of a pretraining or of a fine-tuning is recognized by its files.

    Example: beit3 export --check runs/demo/export/0123456789abcdef/export
    """
    from orchestration.errors import PipelineError
    from pipelines.finetune import check_export as of_a_fine_tuning
    from pipelines.finetune.task_file import TASK_FILE
    from pipelines.pretrain import check_export as of_a_pretraining

    folder = check.expanduser()
    checks = of_a_fine_tuning if (folder / TASK_FILE).is_file() else of_a_pretraining
    num_failed = 0
    try:
        for finding in checks.check_export(folder):
            mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
            console.print(
                f"{mark} {finding.file:<24} {finding.program:<16} {escape(finding.details)}",
                highlight=False,
                soft_wrap=True,
            )
            num_failed += not finding.ok
    except (OSError, ValueError) as error:
        raise PipelineError(str(error)) from None
    if num_failed:
        raise typer.Exit(1)
