"""``beit3 inspect WHERE``: what lies in a workdir: outputs, rows, checkpoints, rejects."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.commands.inspect_networks import show_checkpoint, show_networks
from pipelines.commands.options import Endpoint, Region, console, say, write_text
from pipelines.commands.workdir import storage_of

if TYPE_CHECKING:
    from orchestration.dataset import Dataset
    from orchestration.manifest import Manifest
    from orchestration.storage.store import Store
    from pipelines.report.outputs.located import Located

Sheet = Annotated[
    Path | None,
    typer.Option("--sheet", metavar="FILE", help="Write the rows with their images as HTML."),
]


def output(
    where: Annotated[
        str,
        typer.Argument(
            metavar="WHERE",
            help="A workdir, a stage or output in it, one of its Parquet files, or a checkpoint: "
            "a path or s3:// URI.",
        ),
    ],
    table: Annotated[
        str | None, typer.Option("--table", help="Table to show; default all, a few rows of each.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows of a table to show, spread evenly.")] = 3,
    reject: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show why this sample was rejected, and its source line."),
    ] = None,
    sheet: Sheet = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
) -> None:
    """Show what lies in a workdir: schema, counts and rows of an output; norms of a checkpoint.

    Token ids are decoded to words. Files that are damaged or missing are named.

    Example: beit3 inspect output runs/demo/pair_tokens --table held_out --sheet pairs.html
    """
    from pipelines.report.outputs.located import locate

    found = locate(where, storage_of(endpoint_url, region))
    _refuse_unused(found, {"--table": table, "--reject": reject, "--sheet": sheet})
    if found.checkpoint is not None:
        show_checkpoint(found.checkpoint)
    elif found.output is None:
        _show_workdir(found.workdir)
    elif reject is not None:
        _show_reject(found.workdir, found.output, reject)
    else:
        _show_output(found, table, rows, sheet)


def _refuse_unused(found: "Located", options: "Mapping[str, str | Path | None]") -> None:
    """Raise RecipeError for an option that has no effect on what was named."""
    from orchestration.errors import RecipeError
    from orchestration.manifest import MANIFEST

    given = ", ".join(name for name, value in options.items() if value is not None)
    if not given:
        return
    if found.checkpoint is not None or found.output is None:
        what = "a workdir" if found.checkpoint is None else "a checkpoint"
        where = (found.checkpoint or found.workdir).uri
        raise RecipeError(
            f"{given}: {where} is {what}; name an output, "
            f"{found.workdir.uri}/<stage> or <stage>/<fingerprint>"
        )
    if not found.output.exists(MANIFEST):
        raise RecipeError(f"{given}: {found.output.uri} is not complete; run its workflow first")


def _show_workdir(workdir: "Store") -> None:
    from orchestration.reporting.summary import status_table
    from pipelines.commands.workdir import last_record

    record = last_record(workdir)
    console.print(status_table(workdir, record))
    for name, fingerprint in record["stages"].items():
        say(f"{workdir.uri}/{name}/{fingerprint}")


def _show_output(found: "Located", chosen: str | None, num_rows: int, sheet: Path | None) -> None:
    from orchestration.checkpoint_files import newest_whole
    from orchestration.dataset import Dataset
    from orchestration.errors import PipelineError, RecipeError
    from orchestration.manifest import MANIFEST, read_manifest
    from pipelines.report.outputs.decoded import tokenizer_of

    folder = found.output
    assert folder is not None
    if not folder.exists(MANIFEST):
        say(f"{folder.uri}: not complete")
        if checkpoint := newest_whole(folder, read=False):
            show_checkpoint(checkpoint)
        return
    manifest = read_manifest(folder)
    _refuse_foreign(found.workdir, folder, manifest)
    if found.part is None:
        _show_manifest(folder, manifest)
    damaged = _name_damages(folder, manifest, found.part)
    names = [found.part.partition("/")[0]] if found.part else list(manifest.columns)
    if chosen is not None:
        if chosen not in manifest.columns:
            raise RecipeError(
                f"{folder.uri}: no table is named {chosen!r}; tables: {', '.join(manifest.columns)}"
            )
        names = [chosen]
    if sheet is not None and len(names) != 1:
        raise RecipeError(f"--sheet {sheet}: choose one table with --table: {', '.join(names)}")
    try:
        text = tokenizer_of(found.workdir, manifest)
    except PipelineError as error:  # the rows can be shown without it
        say(f"token ids are shown as numbers: {error}")
        text = None
    for name in names:
        dataset = Dataset(folder, manifest, name)
        some = dict(_rows(dataset, found.part, num_rows, damaged))
        _show_rows(name, some, text)
        if sheet is not None:
            _write_sheet(sheet, f"{folder.uri}: {name}", some, text)
    if not names and found.part is None:
        show_networks(folder, manifest, damaged)


def _refuse_foreign(workdir: "Store", folder: "Store", manifest: "Manifest") -> None:
    from orchestration.errors import ManifestError
    from orchestration.manifest import MANIFEST

    name = f"{manifest.stage}/{manifest.fingerprint}"
    if folder.uri != f"{workdir.uri}/{name}":
        raise ManifestError(
            f"{folder.uri_of(MANIFEST)}: this is the manifest of {name}; remove {folder.uri} to "
            "compute its stage again"
        )


def _show_manifest(folder: "Store", manifest: "Manifest") -> None:
    from orchestration.reporting.results import human_bytes

    say(f"{folder.uri}: stage {manifest.stage}, {human_bytes(manifest.num_bytes)}")
    parents = [p for role in manifest.parents.values() for p in role]
    for parent in {(p.stage, p.fingerprint): p for p in parents}.values():
        say(f"made from {parent.stage}/{parent.fingerprint}")
    table = Table("table", "rows", "files", "columns", title="tables", title_justify="left")
    for name, columns in manifest.columns.items():
        files = sum(name in part.tables for part in manifest.parts)
        table.add_row(name, f"{manifest.num_rows(name)}", f"{files}", escape("\n".join(columns)))
    if manifest.columns:
        console.print(table)
    counts = {**manifest.counters, **{f"rejects/{k}": n for k, n in manifest.rejects.items()}}
    for title, values in (
        ("files", _sizes(manifest)),
        ("counts", counts),
        ("numbers", manifest.numbers),
    ):
        if values:
            say(f"{title}: " + ", ".join(f"{k} {v:.6g}" for k, v in values.items()))
    say("params: " + ", ".join(f"{key}={value}" for key, value in manifest.params.items()))


def _sizes(manifest: "Manifest") -> dict[str, float]:
    return {f"{file.path} (bytes)": file.bytes for file in manifest.files}


def _name_damages(folder: "Store", manifest: "Manifest", part: str | None) -> set[str]:
    """Print a line for each file whose size is not that of the manifest; return their paths."""
    files = [t for each in manifest.parts for t in each.tables.values()] + list(manifest.files)
    damaged = set()
    for file in files:
        if part is not None and file.path != part:
            continue
        size = folder.size(file.path)
        if size != file.bytes:
            what = "missing" if size is None else f"{size} bytes, its manifest says {file.bytes}"
            say(f"damaged: {folder.uri_of(file.path)}: {what}")
            damaged.add(file.path)
    return damaged


def _rows(
    dataset: "Dataset", part: str | None, number: int, damaged: set[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield row numbers and rows, spread evenly over a table or one of its files.

    Rows of damaged files are left out; a file that turns out to be damaged is named once. Each file
    with such rows is read whole and compared with its digest, since a changed byte may leave it
    readable. A row group is read once for all of its rows.
    """
    from orchestration.dataset import REPAIR
    from orchestration.errors import ManifestError
    from orchestration.manifest import file_of
    from pipelines.readers.spread import spread

    ends = [0, *accumulate(each.num_rows for each in dataset.parts)]
    groups = [group for group in dataset.row_groups() if group.num_rows]
    firsts = [group.first_row for group in groups]
    paths = [each.path for each in dataset.parts]
    compared: set[str] = set()
    held, first_held = None, 0  # the rows of one row group
    if part is not None and part not in paths:
        raise ManifestError(f"{dataset.folder.uri_of(part)}: its manifest names no such file")
    first, stop = 0, ends[-1]
    if part is not None:
        first, stop = ends[paths.index(part)], ends[paths.index(part) + 1]
    for i in spread(stop - first, number):
        row = first + i
        index = bisect_right(ends, row) - 1
        path = paths[index]
        if path in damaged:
            continue
        try:
            if path not in compared:
                compared.add(path)
                if file_of(dataset.folder, path).sha256 != dataset.parts[index].sha256:
                    where = dataset.folder.uri_of(path)
                    raise ManifestError(f"{where}: content differs from the manifest; {REPAIR}")
            if held is None or row >= first_held + held.num_rows:
                group = groups[bisect_right(firsts, row) - 1]
                first_held = group.first_row
                held = dataset.read(first_held, first_held + group.num_rows)
            yield row, held.slice(row - first_held, 1).to_pylist()[0]
        except ManifestError as error:
            say(f"damaged: {error}")
            damaged.add(path)


def _show_rows(name: str, rows: Mapping[int, Mapping[str, Any]], text: Any) -> None:
    from pipelines.report.outputs.decoded import in_words

    for number, row in rows.items():
        say(f"{name}, row {number}")
        for column, words in in_words(row, text):
            say(f"  {column}: {words}")


def _write_sheet(path: Path, title: str, rows: Mapping[int, Any], text: Any) -> None:
    from pipelines.report.outputs.output_sheet import sheet_page

    write_text(path, "--sheet", sheet_page(title, rows, text))
    say(f"sheet {path}")


def _show_reject(workdir: "Store", folder: "Store", sample_id: str) -> None:
    from orchestration.errors import RecipeError
    from orchestration.manifest import REJECTS, read_manifest
    from pipelines.commands.rejects import find_reject, source_line
    from pipelines.report.outputs.source_text import recipe_of, text_at

    manifest = read_manifest(folder)
    stage = folder.uri.removeprefix(f"{workdir.uri}/").rpartition("/")[0]
    recipe, started_at = recipe_of(workdir, stage, folder.name)
    shown = 0
    for name in (each for each in manifest.columns if each.endswith(REJECTS)):
        for row in find_reject(folder, name, sample_id):
            where = source_line(row["sample_id"], row["source"], recipe)
            say(f"{row['sample_id']}: {row['reason']}, by {stage}")
            for column in ("detail", "url"):
                if row[column]:
                    say(f"  {column}: {row[column]}")
            say(f"  where: {where}")
            if line := text_at(where, started_at):
                say(f"  line: {line}")
            shown += 1
    if not shown:
        raise RecipeError(
            f"{folder.uri}: rejected no sample {sample_id!r}; `beit3 rejects {stage} --workdir "
            f"{workdir.uri}` lists them"
        )
