"""Prepare: annotations and images of one split of a task → its examples.

Out: ``data`` (see ``dataprep.schemas.EXAMPLES``) and ``rejects``: every example of the files ends
in exactly one of the two; so does every annotation that cannot be used. Drops: the reasons of
``dataprep.tasks``, ``malformed_entry``, ``missing_file``, ``damaged_file``, ``linked_file``,
``image_size``, and what ``dataprep.images`` finds in an image.

Before the slices one worker reads the annotations and the directories of zip archives, and writes
``annotations.parquet`` into the stage's folder: an example per row, with the records of the members
that hold its images. A slice is a row group of it. Images that are stored already are copied.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dataprep.images import ImageError, ImageRules, StoredImage, check_jpeg, store_image
from dataprep.schemas import EXAMPLES, REJECTS, reject, rejects_table, table_of
from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.members import MemberError
from dataprep.sources.names import safe_name
from dataprep.sources.zips import Member
from dataprep.tasks.example import NO_LABELS, AnnotatedObject, Example
from dataprep.tasks.image_places import ImageMembers, Images, Search
from orchestration import Context, Output, Slice, Stage
from orchestration.errors import StageError
from orchestration.params import StageParams, external_files
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.slices import Process, range_slices
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.finetune.formats.format import StoredFormat, TaskFormat
from pipelines.ingest.source import as_recipe_errors
from pipelines.ingest.store_images import slice_bytes
from pipelines.readers.expected_memory import COPIES, DECODING_BYTES

IMAGE_SIZE: Final = "image_size"
"Reason of a reject: the image has another size than the file of its objects states."
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


class Params(StageParams):
    """The files of a split, and what an example of the task must have."""

    source: TaskFormat
    "The files."
    num_images: int = Field(ge=0)
    "Number of images of an example."
    num_texts: tuple[int, int | None]
    "Fewest and most texts of an example; null sets no limit."
    needs_labels: bool
    "Whether an example without labels is a reject."


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
        version=2,
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
    images = Images(source.image_paths(), members, params.source.search)
    read = lru_cache(_CACHED_IMAGES)(partial(_stored, images, source.image_rules()))
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, str | None]] = []
    num_bytes = 0
    for example in examples:
        made = _made(_judged(params, example), read)
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
    found = [[vars(member) for member in members.find(name)] for name in example.images]
    return {"example": json.dumps(vars(example)), "members": found}


def _example(text: str) -> Example:
    fields = json.loads(text)
    fields |= {key: tuple(fields[key]) for key in ("images", "texts", "labels", "size")}
    return Example(**fields | {"objects": tuple(AnnotatedObject(*o) for o in fields["objects"])})


def _judged(params: Params, example: Example) -> Example:
    """Return an example, as a reject if it is not what the task needs."""
    if example.reason:
        return example
    fewest, most = params.num_texts
    num_images, num_texts = len(example.images), len(example.texts)
    if num_images != params.num_images:
        problem = f"{num_images} images, the task needs {params.num_images}"
        return replace(example, reason=MALFORMED_ENTRY, detail=problem)
    if num_texts < fewest or (most is not None and num_texts > most):
        problem = f"{num_texts} texts, the task needs {fewest} to {most or 'any number'}"
        return replace(example, reason=MALFORMED_ENTRY, detail=problem)
    if params.needs_labels and not example.labels:
        return replace(example, reason=NO_LABELS, detail="the example has no label")
    return example


def _made(example: Example, read: Callable[[str], StoredImage]) -> dict[str, Any] | Example:
    """Return the row of an example with its images, or the example as a reject."""
    if example.reason:
        return example
    images = []
    for name in example.images:
        try:
            stored = read(name)
        except MemberError as error:  # its detail names the image
            return replace(example, reason=error.reason, detail=error.detail)
        except ImageError as error:
            detail = f"{safe_name(name)}: {error.detail}"
            return replace(example, reason=error.reason, detail=detail)
        if problem := _other_size(example, stored):
            return replace(example, reason=IMAGE_SIZE, detail=f"{safe_name(name)}: {problem}")
        images.append(stored.jpeg)
    return {
        "example_id": example.id,
        "images": images,
        "texts": list(example.texts),
        "labels": list(example.labels),
        "main_label": example.main_label,
        "objects": [thing._asdict() for thing in example.objects],
        "size": list(example.size) if any(example.size) else [],
    }


def _other_size(example: Example, stored: StoredImage) -> str | None:
    """Return in words that an image has another size than the file states, or None."""
    sides = stored.original_width, stored.original_height
    if not any(example.size) or sides == example.size:
        return None
    return f"{sides[0]} x {sides[1]} pixels, the file states {example.size[0]} x {example.size[1]}"


def _stored(images: Images, rules: ImageRules, name: str) -> StoredImage:
    """Return an image; ImageError or MemberError if there is none."""
    stored = store_image(images.read(name), rules)
    check_jpeg(stored)
    return stored


def _output(rows: list[dict[str, Any]], rejects: list[dict[str, str | None]]) -> Output:
    tables = {"data": table_of(rows, EXAMPLES), "rejects": rejects_table(rejects)}
    return Output(num_rows_in=len(rows) + len(rejects), tables=tables)
