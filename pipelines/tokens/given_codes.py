"""Given codes: a token table and the codes of another tokenizer → the table with these codes.

In: ``image_tokens`` or ``pair_tokens``, and Parquet files with the codes of each view (columns in
``dataprep/sources/code_files.py``). Out: the columns, the tables and, for pairs, the file of the
input; ``rejects``: images with ``no_codes`` for a view, codes of a ``wrong_shape``, or a
``code_out_of_range``. Views and pixels stay as they are, so the given codes must be of the crops
that the input stores.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from dataprep.schemas import reject, rejects_table
from dataprep.sources.code_files import (
    GROUPS_HELD,
    CodeFiles,
    CodeGroup,
    check_code_file,
    code_groups,
    index_of,
    largest_group_bytes,
)
from dataprep.sources.lines import ListError
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.errors import StageError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.storage.store import Store
from pipelines.ingest.file_slices import PARQUET, parts_of
from pipelines.readers.expected_memory import COPIES, IMAGE_BYTES, row_bytes
from pipelines.tokens import image_tokens, pair_tokens
from pipelines.tokens.image_tokens import VIEW_NUMBERS

TABLES: Final = ("train", "held_out")
STAGES: Final[Mapping[str, str]] = {
    "image_tokens": "given_codes/images",
    "pair_tokens": "given_codes/pairs",
}
"Name of the stage by that of its input."
_INDEX: Final = "index"
"Folder of the index, which is removed after the commit."
_INDEX_FILE: Final = f"{_INDEX}/rows.npy"
_GROUPS_FILE: Final = f"{_INDEX}/row_groups.json"


class Params(StageParams):
    """Codes that another tokenizer, such as DALL-E's, gives the stored views."""

    file: Annotated[str, EXTERNAL_FILE]
    "Parquet file with the columns sample_id, view and codes, or a folder of such files."
    num_codes: int = Field(default=8192, ge=2, le=65_536)
    "Number of codes of that tokenizer's codebook."


class CropParams(Params, image_tokens.CropParams):
    """The section, and what the views and row groups of the input are, for those who read them."""


def stage(params: Params, *, tokens: Stage) -> Stage:
    """Return the stage ``given_codes/images`` or ``given_codes/pairs``.

    Args:
        params: the recipe's section.
        tokens: ``image_tokens`` or ``pair_tokens``.
    """
    assert isinstance(tokens.params, image_tokens.CropParams)
    of_input = tokens.params.model_dump(
        include=set(image_tokens.CropParams.model_fields) - {"gpus_per_actor"}
    )
    complete = CropParams(**of_input, **params.model_dump())
    are_pairs = isinstance(tokens.params, pair_tokens.CropParams)
    return Stage(
        STAGES[tokens.name],
        lambda context: run(context, complete, are_pairs=are_pairs),
        complete,
        feeding(tokens=tokens),
        requires=partial(requires, params),
        resources=complete.resources,
        workers=partial(workers, complete, tokens.name),
    )


def requires(params: Params) -> str | None:
    """Return why the files cannot be used, or None; their footers are read."""
    try:
        code_parts(params.file)
    except ListError as error:
        return f"given_codes.file: {error}"
    return None


def workers(params: CropParams, tokens: str, inputs: Mapping[str, Expected]) -> Workers:
    """Predict an actor's memory: a slice of rows, and row groups of codes by their footers."""
    held = params.slice_rows * row_bytes(inputs, [tokens], IMAGE_BYTES) * COPIES
    try:
        files = [Path(params.file) / part for part in parts_of(Path(params.file), PARQUET)]
        held += GROUPS_HELD * largest_group_bytes(files)
    except ListError:  # reported by ``requires``
        pass
    return Workers(WORKER_BYTES + round(held), params.num_actors)


def code_parts(file: str) -> list[str]:
    """Return the files of a folder of codes, or an empty string for one file; they are checked.

    Raises:
        ListError: there is none, or one is not Parquet or lacks a column of the right type.
    """
    parts = parts_of(Path(file), PARQUET)
    for part in parts:
        check_code_file(Path(file) / part)
    return parts


def run(context: Context, params: CropParams, *, are_pairs: bool) -> None:
    """Index the files in one task, then rewrite each part of the input as one slice."""
    tokens, folder = context.input("tokens"), context.folder
    # A part of nothing but rejects has no other table.
    parts = [part for part in tokens.manifest.parts if TABLES[0] in part.tables]
    slices = [
        Slice(part.slice, {"part": i}, sum(part.tables[name].num_rows for name in TABLES))
        for i, part in enumerate(parts)
    ]
    if not slices:
        return context.commit()
    if not folder.exists(_GROUPS_FILE):
        context.run_task(write_index, folder, params.file)
    context.map_slices_with_actors(
        slices,
        partial(CodeWriter, folder, tokens, params),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        row_group_rows=params.row_group_rows,
    )
    _check_some(context, slices)
    if are_pairs:
        pair_tokens.commit_with_counts(context, slices)
    else:
        context.commit(slices)
    folder.remove(_INDEX)


def _check_some(context: Context, slices: Sequence[Slice]) -> None:
    """Check that some image has codes: none has if the files are those of other images.

    Raises:
        StageError: every image is a reject.
    """
    parts = context.parts_of(slices)
    if any(part.tables[name].num_rows for part in parts for name in TABLES):
        return
    for each in context.read_parts(slices, "rejects").slice(0, 1).to_pylist():
        raise StageError(
            f"given_codes.file: no image of {context.stage.inputs['tokens'][0]} has usable codes; "
            f"the first, {each['sample_id']}: {each['reason']} ({each['detail']}). Give a row for "
            "each view of its tables"
        )


def write_index(folder: Store, file: str) -> None:
    """Write which row groups have the codes of an image, for all workers; the list comes last.

    Raises:
        StageError: a file cannot be read.
    """
    try:
        parts = code_parts(file)
        groups = [code_groups([Path(file) / part]) for part in parts]
        index = index_of([group for some in groups for group in some])
    except ListError as error:
        raise StageError(f"given_codes.file: {error}") from None
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "rows.npy"
        np.save(path, index)
        folder.write_file(_INDEX_FILE, path)
    # Without the location, which may be another one when a killed run goes on.
    listed = [
        [part, group.number] for part, some in zip(parts, groups, strict=True) for group in some
    ]
    folder.write_bytes(_GROUPS_FILE, json.dumps(listed).encode())


class CodeWriter:
    """Writes the given codes into parts of a token table."""

    def __init__(self, folder: Store, tokens: Dataset, params: CropParams) -> None:
        """Open the index.

        Args:
            folder: of the stage, with the index.
            tokens: the input.
            params: of the stage.
        """
        self.tokens, self.params = tokens, params
        index = np.load(folder.fetch(_INDEX_FILE), mmap_mode="r")
        groups = [
            CodeGroup(str(Path(params.file) / part), number)
            for part, number in json.loads(folder.read(_GROUPS_FILE))
        ]
        self.files = CodeFiles(groups, index)

    def __call__(self, slice_: Slice) -> Output:
        """Process one part."""
        tables: dict[str, pa.Table] = {}
        rejects: list[dict[str, str | None]] = []
        num_rows = 0
        for name in TABLES:
            rows = self._rows(name, slice_.payload["part"])
            tables[name], faults = self._with_codes(rows)
            rejects += faults
            num_rows += rows.num_rows
        return Output(num_rows, {**tables, "rejects": rejects_table(rejects)})

    def _rows(self, name: str, part: int) -> pa.Table:
        """Return the rows of a part of the input's table."""
        table = self.tokens.table(name)
        first = sum(each.num_rows for each in table.parts[:part])
        rows = table.read(first, first + table.parts[part].num_rows)
        # Parquet calls the items of a list "element": with Arrow's name equal rows are equal bytes.
        kinds = [field.with_type(_with_items(field.type)) for field in rows.schema]
        return rows.cast(pa.schema(kinds))

    def _with_codes(self, rows: pa.Table) -> tuple[pa.Table, list[dict[str, str | None]]]:
        """Return the rows that have codes, with these, and the others as rejects."""
        kind = rows.schema.field("codes").type
        num_views = rows.schema.field("views").type.list_size // VIEW_NUMBERS
        ids = rows["sample_id"].combine_chunks()
        try:
            codes, faults = self.files.codes_of(
                ids, num_views, kind.list_size // num_views, self.params.num_codes
            )
        except ListError as error:
            raise StageError(f"given_codes.file: {error}") from None
        is_kept = np.ones(rows.num_rows, bool)
        is_kept[list(faults)] = False
        sources = rows["source"]
        rejects = [
            reject(ids[i].as_py(), sources[i].as_py(), reason, detail)
            for i, (reason, detail) in sorted(faults.items())
        ]
        number = rows.schema.get_field_index("codes")
        table = rows.set_column(number, rows.schema.field(number), _lists(codes, kind))
        return table.filter(pa.array(is_kept)), rejects


def _with_items(kind: pa.DataType) -> pa.DataType:
    """Return a type whose lists have the names that Arrow gives their items."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_with_items(kind.value_type), kind.list_size)
    return pa.list_(_with_items(kind.value_type)) if pa.types.is_list(kind) else kind


def _lists(codes: NDArray[np.uint16], kind: pa.DataType) -> pa.Array:
    """(rows, k, N) → one list of k N codes per row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), type=kind)
