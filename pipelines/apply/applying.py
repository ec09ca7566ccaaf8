"""Apply: an operation on listed rows, in this process or as a stage of actors.

In: ``inputs``. Out: ``data``, the rows with the columns of the operation, and ``rejects``. Drops:
what ``rows.image_bytes`` and ``dataprep.images`` find in an image, and ``killed_worker``.
"""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import torch

from dataprep.images import decode_image
from dataprep.row_errors import RowError
from dataprep.schemas import REJECTS, reject, rejects_table, table_of
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.errors import RecipeError
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.slices import read_slice, row_slices
from pipelines.apply.inputs import SOURCE, InputParams
from pipelines.apply.model_location import as_recipe_error
from pipelines.apply.operations import OPERATIONS, Batch, Operation
from pipelines.apply.params import ApplyParams
from pipelines.apply.rows import ROWS, Which, image_bytes, kind_of
from pipelines.inference.batching import Text
from pipelines.inference.loaded_model import Precision
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.readers.expected_memory import CUDA_BYTES, DECODING_BYTES
from pipelines.readers.prefetch import prefetch
from pipelines.tokens.image_tokens import KILLED_WORKER

Row = dict[str, Any]
KEPT: Final = pa.schema(
    [ROWS.field(name) for name in ("id", "path", "row", "second_path", "text", "second_text")]
)
"Columns of the listed rows that the output keeps."
_MODEL_BYTES: Final = 2_000_000_000
"Memory of a model of the base size while it is loaded."


class StageOfApply(ApplyParams):
    """The parameters of the stage: also the files that its rows name, which it reads."""

    inputs: InputParams
    "What was listed."


def stage(operation: Operation, params: ApplyParams, inputs: Stage) -> Stage:
    """Declare the stage, which has the operation's name."""
    assert isinstance(inputs.params, InputParams)
    whole = StageOfApply(**dict(params), inputs=inputs.params)
    return Stage(
        operation.name,
        lambda context: run(context, operation.name, whole),
        whole,
        feeding(rows=inputs),
        requires=partial(requires, operation, whole),
        resources=params.resources,
        workers=partial(workers, params),
    )


def requires(operation: Operation, params: StageOfApply) -> str | None:
    """Return why the model cannot do what is asked of it, or None."""
    try:
        with as_recipe_error():
            model = load_model(params.model, params.text_tokenizer, params.labels, "cpu")
            operation.check(model, params.inputs.kinds)
    except RecipeError as error:
        return str(error)
    return None


def workers(params: ApplyParams, inputs: Mapping[str, Expected]) -> Workers:
    """Predict an actor's memory: a model of the base size, and a decode per thread."""
    held = _MODEL_BYTES + (CUDA_BYTES if params.gpus_per_actor else 0)
    held += params.cpus_per_actor * DECODING_BYTES
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.num_actors)


def run(context: Context, operation: str, params: ApplyParams) -> None:
    """Process slice by slice in actors that hold the model."""
    rows = context.input("rows")
    slices = row_slices(rows, params.slice_rows)
    context.map_slices_with_actors(
        slices,
        partial(SliceApplier, operation, params, rows),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=params.gpus_per_actor,
        quarantine=partial(quarantined, rows),
    )
    schemas = {"data": output_schema(OPERATIONS[operation]), "rejects": REJECTS}
    context.commit(slices, schemas=schemas)


def quarantined(rows: Dataset, slice_: Slice, detail: str) -> Output:
    """Return rows as rejects, because processing them ends the worker."""
    rejects = [
        reject(row["id"], SOURCE, KILLED_WORKER, detail, row["path"])
        for row in read_slice(rows, slice_, ["id", "path"]).to_pylist()
    ]
    return Output(len(rejects), {"rejects": rejects_table(rejects)})


class SliceApplier:
    """Applies an operation to the rows of a slice."""

    def __init__(self, operation: str, params: ApplyParams, rows: Dataset) -> None:
        torch.set_num_threads(params.cpus_per_actor)
        self.rows = rows
        self.apply = Applier(
            OPERATIONS[operation], params, "cuda" if params.gpus_per_actor else "cpu"
        )

    def __call__(self, slice_: Slice) -> Output:
        """Process one slice."""
        rows = read_slice(self.rows, slice_).to_pylist()
        done: list[Row] = []
        rejects: list[dict[str, str | None]] = []
        with closing(self.apply(rows)) as results:
            for row, problem in results:
                if problem is None:
                    done.append(row)
                else:
                    rejects.append(
                        reject(row["id"], SOURCE, problem.reason, problem.detail, row["path"])
                    )
        data = table_of(done, output_schema(self.apply.operation))
        return Output(len(rows), {"data": data, "rejects": rejects_table(rejects)})


class Applier:
    """Holds a model and applies an operation to rows."""

    def __init__(self, operation: Operation, params: ApplyParams, device: str | None) -> None:
        """Load the model.

        Raises:
            RecipeError: there is none, or it cannot be loaded.
        """
        self.operation, self.params = operation, params
        self.model = load_model(
            params.model, params.text_tokenizer, params.labels, device, params.precision
        )

    def __call__(self, rows: Sequence[Row]) -> Generator[tuple[Row, RowError | None], None, None]:
        """Yield each row in order, with the operation's columns or with why it cannot be used.

        Raises:
            RecipeError: the model has no head for the operation.
        """
        with as_recipe_error():
            self.operation.check(self.model, sorted({kind_of(row) for row in rows}))
        size = self.params.batch_size or self.operation.batch_size
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        # The next images are decoded while the network computes the current ones.
        with (
            ThreadPoolExecutor(self.params.cpus_per_actor) as threads,
            prefetch(lambda i: list(threads.map(self._view, batches[i])), 0, len(batches)) as views,
        ):
            for batch, some_views in zip(batches, views, strict=True):
                yield from self._apply(batch, some_views)

    def _view(self, row: Row) -> Any:
        """Return the view of a row's image, or of both, or what is wrong; None without an image."""
        views: list[Any] = []
        prefixes: tuple[Which, ...] = ("", "second_")
        for which in prefixes:
            if row[f"{which}file"] is None:
                break
            try:
                views.append(self.operation.view(self.model, decode_image(image_bytes(row, which))))
            except RowError as error:
                words = f"second image: {error.detail}" if which else error.detail
                return RowError(error.reason, words)
        return tuple(views) if len(views) > 1 else next(iter(views), None)

    def _apply(
        self, rows: Sequence[Row], views: Sequence[Any]
    ) -> list[tuple[Row, RowError | None]]:
        done: list[tuple[Row, RowError | None]] = []
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for i, (row, view) in enumerate(zip(rows, views, strict=True)):
            done.append((row, view if isinstance(view, RowError) else None))
            if not isinstance(view, RowError):
                kinds.setdefault((view is not None, row["text"] is not None), []).append(i)
        for (has_image, has_text), numbers in kinds.items():
            batch = Batch(
                ids=[rows[i]["id"] for i in numbers],
                views=[views[i] for i in numbers] if has_image else None,
                texts=[_text_of(rows[i]) for i in numbers] if has_text else None,
            )
            with as_recipe_error():
                found = self.operation.apply(self.model, batch, self.params)
            for number, *values in zip(numbers, *found.values(), strict=True):
                kept = {name: rows[number][name] for name in KEPT.names}
                done[number] = {**kept, **dict(zip(found, values, strict=True))}, None
        return done


def _text_of(row: Row) -> Text:
    """Return the text of a row, or its pair of texts."""
    text, second = str(row["text"]), row["second_text"]
    return text if second is None else (text, str(second))


def output_schema(operation: Operation) -> pa.Schema:
    """Return the schema of the rows that an operation puts out."""
    return pa.schema([*KEPT, *operation.columns])


def load_model(
    location: str,
    tokenizer: str | Path | None = None,
    labels: str | Path | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
) -> PretrainedModel:
    """Load a model, onto a GPU if there is one and ``device`` is None.

    Raises:
        RecipeError: there is none, or it is not whole.
    """
    with as_recipe_error():
        return PretrainedModel.from_pretrained(
            location, tokenizer=tokenizer, labels=labels, device=device, precision=precision
        )
