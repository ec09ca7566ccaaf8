"""Inputs: what the user names → rows, each with an image, a text, or a text about one or two.

In: image files, folders of images, Parquet files, files with a text per line, texts. Out: ``data``
(see ``rows.ROWS``) and ``rejects``: every file, row and line ends in exactly one of the two, except
that an image is read only by the stage that uses it. Drops: ``empty_text``, ``missing_file`` (a row
that names no image), ``malformed_line``, ``too_long``, ``damaged_file``.
"""

import os
from collections.abc import Iterator, Sequence
from errno import ENOENT
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Self

import pyarrow as pa

from dataprep.schemas import REJECTS, rejects_table, table_of
from dataprep.sources.folders import files_in
from dataprep.sources.lines import ListError, line_ranges
from dataprep.sources.names import safe_name
from dataprep.sources.parquet_files import is_text, open_parquet
from orchestration import Context, Output, Slice, Stage
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.reporting.usage import Expected
from pipelines.apply.listing import list_slice
from pipelines.apply.rows import ROWS, Kind, image_type

STAGE: Final = "inputs"
SOURCE: Final = "inputs"
"What the rejects name as their source."
_SLICE_ROWS: Final = 4096
_PARQUET: Final = (".parquet", ".parq")
IMAGE_COLUMN: Final = "image"
"Column of Parquet files that is read if no other is named."


class Location(StageParams):
    """A file or folder of inputs."""

    path: str
    "Absolute path, which ids and paths of the output begin with."
    content: Annotated[str, EXTERNAL_FILE]
    "The same path, which stands for the content."

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the location of a path.

        Raises:
            RecipeError: its name cannot stand in a recipe, or its home is unknown.
        """
        try:
            absolute = os.path.abspath(path.expanduser())  # noqa: PTH100  # links stay as written
            absolute.encode()
        except RuntimeError:
            raise RecipeError(
                f"no home is known for {path.parts[0]}; give the whole path"
            ) from None
        except UnicodeEncodeError:
            raise RecipeError(
                f"{safe_name(absolute)}: the name is not UTF-8; rename it, or name the folder that "
                "it lies in"
            ) from None
        return cls(path=absolute, content=absolute)


class InputParams(StageParams):
    """The inputs of a model, in their order."""

    images: tuple[Location, ...] = ()
    "Image files, folders of images, and Parquet files or folders of them."
    text_files: tuple[Location, ...] = ()
    "Files with a text per line."
    texts: tuple[str, ...] = ()
    "Texts themselves."
    second_texts: tuple[str, ...] = ()
    "The second text of a pair for each of the texts; empty if they are read alone."
    image_column: str | None = None
    "Column of Parquet files with images, as bytes or as paths; null reads no images of them."
    text_column: str | None = None
    "Column of Parquet files with texts or questions; null reads none."
    second_text_column: str | None = None
    "Column of Parquet files with the second texts of pairs; null reads texts alone."
    second_images: tuple[Location, ...] = ()
    "The second image of a pair for each of the images, which are files then."
    second_image_column: str | None = None
    "Column of Parquet files with the second images of pairs; null reads images alone."
    question: str | None = None
    "Question that is asked about each image."

    @property
    def has_pairs(self) -> bool:
        """Return whether two texts are read together."""
        return bool(self.second_texts) or self.second_text_column is not None

    @property
    def has_image_pairs(self) -> bool:
        """Return whether each text is about two images."""
        return bool(self.second_images) or self.second_image_column is not None

    @property
    def kinds(self) -> frozenset[Kind]:
        """Return the kinds of rows that are listed."""
        if self.has_image_pairs:
            return frozenset({"two images and text"})
        found: set[Kind] = {"text"} if self.text_files or self.texts else set()
        has_texts = self.question is not None or self.text_column is not None
        if self.images and self.image_column is None and self.text_column is not None:
            found.add("text")
        elif self.images:
            found.add("image and text" if has_texts else "image")
        return frozenset(found)

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns of Parquet files that are named, by the option that names them."""
        asks = None not in (self.image_column, self.text_column) and not self.has_image_pairs
        given = {
            "--image-column": self.image_column,
            "--second-image-column": self.second_image_column,
            "--question-column" if asks else "--text-column": self.text_column,
            "--second-text-column": self.second_text_column,
        }
        return {option: name for option, name in given.items() if name is not None}

    def folder_around(self, path: Path) -> str | None:
        """Return the folder of inputs in which a path lies, or None."""
        above = {path.resolve(), *path.resolve().parents}
        return next((each.path for each in self.images if Path(each.path).resolve() in above), None)


def stage(params: InputParams) -> Stage:
    """Declare the stage."""
    return Stage(
        STAGE,
        lambda context: run(context, params),
        params,
        version=2,
        expects=partial(expects, params),
    )


def run(context: Context, params: InputParams) -> None:
    """List the rows of all slices."""
    slices = list(input_slices(params))
    context.map_slices(slices, partial(list_slice_tables, params))
    context.commit(slices, schemas={"data": ROWS, "rejects": REJECTS})


def list_slice_tables(params: InputParams, slice_: Slice) -> Output:
    """List the rows of one slice."""
    rows, rejects = list_slice(slice_.payload, params.image_column, params.question, SOURCE)
    return Output(
        len(rows) + len(rejects),
        {"data": table_of(rows, ROWS), "rejects": rejects_table(rejects)},
    )


def expects(params: InputParams) -> Expected:
    """Count the rows.

    Raises:
        RecipeError: a file or folder cannot be used.
    """
    return Expected(rows=sum(slice_.num_rows or 0 for slice_ in input_slices(params)))


def input_slices(params: InputParams) -> Iterator[Slice]:
    """Cut the inputs into slices; ``listing.list_slice`` lists the rows of each.

    Raises:
        RecipeError: a file or folder cannot be used.
    """
    number = 0
    try:
        for payload, num_rows in _payloads(params):
            yield Slice(f"{number:06d}", payload, num_rows)
            number += 1
    except ListError as error:
        raise RecipeError(str(error)) from None
    except OSError as error:
        words = "no such file; correct the path" if error.errno == ENOENT else error.strerror
        raise RecipeError(f"{error.filename}: {words}" if words else str(error)) from None


def _payloads(params: InputParams) -> Iterator[tuple[dict[str, object], int]]:
    """Yield the payload of each slice with its number of rows."""
    if params.second_images:
        yield from _image_pairs(params)
        return
    files: list[str] = []
    has_parquet = False
    is_about_images = None not in (params.image_column, params.text_column)
    lacking = {"lacks_column": params.text_column} if is_about_images else {}
    for path in _files(params.images):
        is_parquet = path.lower().endswith(_PARQUET)
        has_parquet |= is_parquet
        if not is_parquet:
            files.append(path)
        if files and (len(files) == _SLICE_ROWS or is_parquet):
            yield {"files": files, **lacking}, len(files)
            files = []
        if is_parquet:
            yield from _row_groups(Path(path), params)
    if not has_parquet:
        _refuse_columns(params)
    if files:
        yield {"files": files, **lacking}, len(files)
    for location in params.text_files:
        if Path(location.path).is_dir():
            raise ListError(f"{location.path}: a folder; name a file with a text per line")
        for lines in line_ranges(Path(location.path), _SLICE_ROWS):
            yield {"lines": location.path, **vars(lines)}, lines.num_lines
    for start in range(0, len(params.texts), _SLICE_ROWS):
        texts, seconds = (
            some[start : start + _SLICE_ROWS] for some in (params.texts, params.second_texts)
        )
        yield {"texts": texts, "second_texts": seconds, "first": start + 1}, len(texts)


def _image_pairs(params: InputParams) -> Iterator[tuple[dict[str, object], int]]:
    """Yield the payloads of pairs of image files, each with its text."""
    some = zip(params.images, params.second_images, params.texts, strict=True)
    pairs = [(one.path, other.path, text) for one, other, text in some]
    for path in (path for pair in pairs for path in pair[:2]):
        if not Path(path).is_file() or path.lower().endswith(_PARQUET):
            raise ListError(f"{path}: no image file; a pair is two files, or columns of Parquet")
    for start in range(0, len(pairs), _SLICE_ROWS):
        yield {"pairs": pairs[start : start + _SLICE_ROWS]}, len(pairs[start : start + _SLICE_ROWS])


def _files(locations: Sequence[Location]) -> Iterator[str]:
    """Yield the paths of all files, those of a folder in the order of their names."""
    for location in locations:
        folder = Path(location.path)
        if folder.is_dir():
            yield from (f"{location.path.rstrip('/')}/{name}" for name in files_in(folder, "*"))
        elif os.path.lexists(folder):
            yield location.path
        else:
            raise ListError(f"{folder}: no such file or folder; correct the path")


def _refuse_columns(params: InputParams) -> None:
    """Refuse columns that are named where no Parquet file is among the inputs.

    Raises:
        ListError: a column is named; that of images only if it is not the default.
    """
    for option, name in params.columns.items():
        if (option, name) != ("--image-column", IMAGE_COLUMN):
            raise ListError(
                f"{option} {name}: there is no Parquet file among the inputs, and no other file "
                "has columns; leave it out, or write the table as Parquet"
            )


def _row_groups(path: Path, params: InputParams) -> Iterator[tuple[dict[str, object], int]]:
    with open_parquet(path) as file:
        _check_columns(path, file.schema_arrow, params)
        metadata, first = file.metadata, 1
        for group in range(metadata.num_row_groups):
            num_rows = metadata.row_group(group).num_rows
            payload = {"parquet": str(path), "group": group, "first": first}
            text_columns = [params.text_column, params.second_text_column]
            columns = [name for name in text_columns if name is not None]
            payload |= {"second_image_column": params.second_image_column}
            yield {**payload, "num_rows": num_rows, "text_columns": columns}, num_rows
            first += num_rows


def _check_columns(path: Path, schema: pa.Schema, params: InputParams) -> None:
    """Check that a Parquet file has the columns, and of the right types.

    Raises:
        ListError: it has not; the message names the columns that there are.
    """
    for option, name in params.columns.items():
        if schema.names.count(name) != 1:
            raise ListError(
                f"{path}: no column {name}; it has {', '.join(schema.names)}; name one "
                f"with {option}"
            )
        kind = schema.field(name).type
        if "image" in option and image_type(kind) is None:
            raise ListError(
                f"{path}: column {name} is of type {kind}; images are bytes, a struct with a field "
                "bytes, or paths"
            )
        if "image" not in option and not is_text(kind):
            raise ListError(f"{path}: column {name} is of type {kind}, expected string or binary")
