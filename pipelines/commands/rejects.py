"""``beit3 rejects``: the rows that a stage rejected, each with its line in the source."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.commands.options import Endpoint, Region, Workdir, console
from pipelines.commands.workdir import last_record, open_workdir

if TYPE_CHECKING:
    from orchestration.storage.store import Store


def rejects(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Stage, such as download/cc3m.")],
    workdir: Workdir,
    reason: Annotated[
        str | None,
        typer.Option(metavar="REASONS", help="Show only these reasons: timeout,http_5xx."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of rows to show.")] = 20,
    endpoint_url: Endpoint = None,
    region: Region = None,
) -> None:
    """List the rows that a stage of the last workflow rejected, and why; of curate, captions too.

    Example: beit3 rejects download/cc3m --workdir runs/demo --reason http_404 --limit 5
    """
    from orchestration.manifest import REJECTS, read_manifest

    store = open_workdir(workdir, endpoint_url, region)
    folder, recipe = _committed(store, stage)
    manifest = read_manifest(folder)
    counts = ", ".join(f"{name} {n}" for name, n in manifest.rejects.most_common())
    console.print(f"{stage}: {manifest.rejects.total()} rejects ({counts or 'none'})", markup=False)
    others = [name for name in manifest.columns if name.endswith(REJECTS) and name != REJECTS]
    for name in others:
        console.print(f"{stage}: {manifest.num_rows(name)} {name.replace('_', ' ')}")
    patterns = reason.split(",") if reason else None
    rows: list[dict[str, Any]] = []
    for name in (REJECTS, *others):
        rows += _rows(folder, name, patterns, limit - len(rows))
    if not rows:
        return
    table = Table(title=REJECTS, title_justify="left")
    for name in ("row", "where", "reason", "detail"):
        table.add_column(name, overflow="fold")  # a path or URL that is cut leads nowhere
    for row in rows:
        where = source_line(row["sample_id"], row["source"], recipe)
        cells = (row["sample_id"], where, row["reason"], row["detail"] or row["url"] or "")
        table.add_row(*map(escape, cells))
    console.print(table)


def _committed(store: "Store", stage: str) -> tuple["Store", Mapping[str, Any]]:
    """Return the folder of a stage of the last workflow, and the workflow's recipe."""
    from orchestration.errors import RecipeError
    from orchestration.manifest import MANIFEST
    from orchestration.plan import recipe_path
    from orchestration.recipe_text import parse_recipe

    stages = last_record(store)["stages"]
    if stage not in stages:
        raise RecipeError(f"no stage is named {stage!r}; stages: {', '.join(stages)}")
    folder = store.sub(f"{stage}/{stages[stage]}")
    if not folder.exists(MANIFEST):
        options = store.storage.as_options("--workdir", store.uri)
        raise RecipeError(f"{stage} is not complete; see `beit3 status {options}`")
    path = recipe_path(stages)
    return folder, parse_recipe(store.read(path), store.uri_of(path))[0]


def _rows(
    folder: "Store", table: str, reasons: list[str] | None, limit: int
) -> list[dict[str, Any]]:
    """Return the first rejects with one of the reasons; all reasons by default."""
    from orchestration.dataset import Dataset
    from orchestration.retries import matches

    dataset, start = Dataset.open(folder, table), 0
    found: list[dict[str, Any]] = []
    for part in dataset.parts:
        stop = start + part.num_rows
        for row in dataset.read(start, stop).to_pylist() if part.num_rows else ():
            if len(found) == limit:
                return found
            if reasons is None or matches(row["reason"], reasons):
                found.append(row)
        start = stop
    return found


def find_reject(folder: "Store", table: str, sample_id: str) -> "Iterator[dict[str, Any]]":
    """Yield the rejects of a sample: an image may have several rejected captions.

    Raises:
        ManifestError: a file is damaged.
    """
    from orchestration.dataset import Dataset

    dataset, start = Dataset.open(folder, table), 0
    for part in dataset.parts:
        stop = start + part.num_rows
        ids = dataset.read(start, stop, ["sample_id"])["sample_id"].to_pylist()
        for i in (i for i, found in enumerate(ids) if found == sample_id):
            yield dataset.read(start + i, start + i + 1).to_pylist()[0]
        start = stop


def source_line(sample_id: str, source: str, recipe: Mapping[str, Any]) -> str:
    """Return where a row stands: file and row number of a list, or the name in the source.

    The rows of a model's own inputs are named by their paths.

    Args:
        sample_id: ``<source>/<row number or name>``.
        source: name of the source in the recipe.
        recipe: content of the recipe.
    """
    name = sample_id.removeprefix(f"{source}/")
    if "operation" in recipe:  # of a model that is applied to inputs
        return sample_id
    params = {**recipe.get("sources", {}), **recipe.get("evaluation_sets", {})}.get(source, {})
    location = next((params[key] for key in _LOCATIONS if params.get(key)), source)
    part, _, number = name.rpartition("/")
    if number.isdecimal():
        return f"{location}/{part}:{int(number)}" if part else f"{location}:{int(number)}"
    return f"{location}/{name}"


_LOCATIONS = ("list", "file", "archive", "folder", "tars", "annotations")
"Keys of a source that name its main file or folder."
