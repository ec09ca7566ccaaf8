"""The program of ``test_killed_embed.py``: embeds drawn images into a workdir."""

import sys
from pathlib import Path

from rich.console import Console

from orchestration.storage.store import Store
from pipelines.workflows.apply import ApplyRecipe, build_workflow
from tests.pipelines.apply.committed import recipe_of

SLICE_ROWS = 2


def recipe(folder: Path) -> ApplyRecipe:
    """The recipe of the model and images in a folder."""
    made = recipe_of(
        "embed",
        folder / "retrieval" / "export",
        folder / "images",
        texts=["one red circle", "blue square"],
        apply__slice_rows=SLICE_ROWS,
    )
    return made.model_copy(update={"cluster": made.cluster.model_copy(update={"num_cpus": 2})})


def main(workdir: str) -> None:
    """Run the workflow."""
    console = Console(width=120)
    build_workflow(recipe(Path(workdir).parent)).run(Store(workdir), console)


if __name__ == "__main__":
    main(sys.argv[1])
