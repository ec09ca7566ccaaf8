"""Prepare: annotations and images of one split of a task → its examples.

Out: ``data`` (see ``dataprep.schemas.EXAMPLES``) and ``rejects``: every example of the files ends
in exactly one of the two; so does every annotation that cannot be used. Drops: the reasons of
``dataprep.tasks``, ``malformed_entry``, ``missing_file``, ``damaged_file``, ``linked_file``,
``image_size``, and what ``dataprep.images`` finds in an image, ``dataprep.tasks.label_maps`` in a
label map.

Before the slices one worker reads the annotations and the directories of zip archives, and writes
``annotations.parquet`` into the stage's folder: an example per row, with the records of the members
that hold its images. A slice is a row group of it. Images that are stored already are copied.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.schemas import EXAMPLES, REJECTS, reject, rejects_table, table_of
from dataprep.sources.zips import Member
from dataprep.tasks.example import AnnotatedObject, Example
from dataprep.tasks.image_places import ImageMembers, Images, Search
from orchestration import Context, Output, Slice, Stage
from orchestration.errors import StageError
from orchestration.params import external_files
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.slices import Process, range_slices
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.finetune.formats.format import StoredFormat, TaskFormat
from pipelines.finetune.prepared_rows import Params, judged, row_of, stored_image
from pipelines.ingest.source import as_recipe_errors
from pipelines.ingest.store_images import slice_bytes
from pipelines.readers.expected_memory import COPIES, DECODING_BYTES

_FILE: Final = "annotations.parquet"
_SCHEMA: Final = pa.schema({
    "example": pa.string(),
    "members": pa.list_(pa.list_(pa.struct({"archive": pa.int32(), "record": pa.binary()}))),
})  # fmt: skip
"An Example as JSON, and the members of each of its images."
_ROW_GROUP_ROWS: Final = 64
_MAX_PIECE_BYTES: Final = 1 << 27
"Bytes of JPEGs after which a piece of a slice's output is written."
_IMAGE_BYTES: Final = 200_000
"Bytes of a stored image of about 640 x 480 pixels."
_CACHED_IMAGES: Final = 32
"Stored images that are kept for later examples: questions about one image are neighbors."


def stage(
    params: TaskFormat,
    *,
    split: str,
    num_images: int,
    num_texts: tuple[int, int | None],
    needs_labels: bool,
) -> Stage:
    """Declare the stage ``prepare/<split>``; ``split`` is train, dev or test.

    The other arguments are those of the task that the examples are for.
    """
    full = Params(
        source=params, num_images=num_images, num_texts=num_texts, needs_labels=needs_labels
    )
    return Stage(
        f"prepare/{split}",
        lambda context: run(context, full, split),
        full,
        expects=partial(expects, params),
        workers=partial(workers, full),
        version=5,
    )


def run(context: Context, params: Params, split: str) -> None:
    """Read the annotations in one worker, then the images of each slice in some worker."""
    source, folder = context.local_files(params.source), context.folder
    process: Process
    if isinstance(source, StoredFormat):
        slices = range_slices(source.num_stored(), source.slice_rows)
        process = partial(copy_slice, source, folder)
    else:
        with as_recipe_errors(source):
            if not folder.exists(_FILE):
                context.run_task(write_annotations, source, params.source.search, folder)
        with pq.ParquetFile(folder.open(_FILE)) as file:
            slices = range_slices(file.metadata.num_rows, source.slice_rows)
        process = partial(prepare_slice, params, split, folder)
    context.map_slices(slices, process, row_group_rows=_ROW_GROUP_ROWS)
    _check_kept(context, slices)
    context.commit(slices, schemas={"data": EXAMPLES, "rejects": REJECTS})
    folder.remove(_FILE)


def write_annotations(source: TaskFormat, search: Search, folder: Store) -> None:
    """Write the examples of local files into a folder, a row group for each slice.

    Raises:
        one of ``file_errors``: a file is not of its format.
    """
    members = ImageMembers(source.image_paths(), search)
    examples = source.examples()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / _FILE
        with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
            while some := list(islice(examples, source.slice_rows)):
                rows = [_row(example, members) for example in some]
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA), len(rows))
        folder.write_file(_FILE, path)


def prepare_slice(params: Params, split: str, folder: Store, slice_: Slice) -> Iterator[Output]:
    """Read the images of one slice; yield its examples and rejects in pieces."""
    source = with_local_files(params.source, folder)
    with pq.ParquetFile(folder.open(_FILE)) as file:
        found = file.read_row_group(slice_.payload["start"] // source.slice_rows).to_pylist()
    examples = [_example(row["example"]) for row in found]
    members = {
        name: [Member(**member) for member in of_image]
        for example, row in zip(examples, found, strict=True)
        for name, of_image in zip(example.images, row["members"], strict=True)
        if of_image
    }
    whole = {name for example in examples if example.whole_names for name in example.images}
    images = Images(source.image_paths(), members, params.source.search, whole)
    read = lru_cache(_CACHED_IMAGES)(partial(stored_image, images, source.image_rules()))
    maps = source.label_maps()
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, str | None]] = []
    num_bytes = 0
    for example in examples:
        made = row_of(judged(params, example), read, maps)
        if isinstance(made, Example):
            rejects.append(reject(f"{split}/{made.id}", split, made.reason, made.detail))
        else:
            rows.append(made)
            num_bytes += sum(map(len, made["images"]))
        if len(rows) == _ROW_GROUP_ROWS or num_bytes > _MAX_PIECE_BYTES:
            yield _output(rows, [])
            rows, num_bytes = [], 0
    yield _output(rows, rejects)


def copy_slice(source: StoredFormat, folder: Store, slice_: Slice) -> Output:
    """Copy the examples of one slice of images that are stored already."""
    rows = _reader(source, folder.uri)(slice_.payload["start"], slice_.payload["stop"])
    return Output(rows.num_rows, {"data": rows, "rejects": rejects_table([])})


@lru_cache(maxsize=1)
def _reader(source: StoredFormat, _folder: str) -> Callable[[int, int], pa.Table]:
    """Return the reader of a format; a worker opens it once for the slices of a stage."""
    return source.reader()


def expects(source: TaskFormat) -> Expected:
    """Estimate the number of examples and the bytes of images that are copied.

    A file that is given by URI is not read for it.

    Raises:
        RecipeError: a file is not of its format.
    """
    if any(file.is_remote for file in external_files(source)):
        return Expected()
    with as_recipe_errors(source):
        return Expected(rows=source.expected_rows(), bytes=source.expected_bytes())


def workers(params: Params, inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: a row group of examples, images kept, and a decode."""
    if not params.num_images:
        return Workers(WORKER_BYTES)
    if isinstance(params.source, StoredFormat):
        return Workers(WORKER_BYTES + slice_bytes(params.source.slice_rows))
    images = _ROW_GROUP_ROWS * params.num_images * COPIES + _CACHED_IMAGES
    return Workers(WORKER_BYTES + images * _IMAGE_BYTES + DECODING_BYTES)


def _check_kept(context: Context, slices: list[Slice]) -> None:
    """Check that some example was kept.

    Raises:
        StageError: none was; the message counts the reasons and names the first example.
    """
    parts = context.parts_of(slices)
    if sum(part.tables["data"].num_rows for part in parts):
        return
    name = context.stage.name
    reasons = sum((Counter(part.rejects) for part in parts), Counter[str]())
    words = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if words:
        first = context.read_parts(slices, "rejects", ["sample_id", "detail"]).slice(0, 1)
        (row,) = first.to_pylist()
        words += f"; the first one, {row['sample_id']}: {row['detail']}"
    raise StageError(
        f"{name}: no example can be used ({words or 'the files hold none'}); correct "
        f"data.{name.partition('/')[2]} in the recipe"
    )


def _row(example: Example, members: ImageMembers) -> dict[str, Any]:
    places = [members.find(name, is_whole=example.whole_names) for name in example.images]
    found = [[vars(member) for member in some] for some in places]
    return {"example": json.dumps(vars(example)), "members": found}


def _example(text: str) -> Example:
    fields = json.loads(text)
    fields |= {key: tuple(fields[key]) for key in ("images", "texts", "labels", "size")}
    return Example(**fields | {"objects": tuple(AnnotatedObject(*o) for o in fields["objects"])})


def _output(rows: list[dict[str, Any]], rejects: list[dict[str, str | None]]) -> Output:
    tables = {"data": table_of(rows, EXAMPLES), "rejects": rejects_table(rejects)}
    return Output(num_rows_in=len(rows) + len(rejects), tables=tables)
