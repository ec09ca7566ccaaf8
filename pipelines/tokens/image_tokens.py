"""Image tokens: curated images → JPEG and views with their codes.

In: curated images of one kind, the image tokenizer. Out: ``train`` and ``held_out``:
sample_id, source, label, jpeg, views: fixed_size_list<uint16, 5 k> (x, y, width, height, flip of
each of k views), codes: fixed_size_list<uint16, k N>. The JPEG is the stored one, unchanged, so
training cuts exactly the pixels that the codes were computed from.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field

from dataprep.images import decode_stored
from dataprep.schemas import reject, rejects_table
from dataprep.views import View, random_cut
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.actor_params import ActorParams
from orchestration.params import OPERATIONAL
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.slices import row_slices
from orchestration.suspects import KILLED_WORKER
from pipelines.readers.expected_memory import (
    COPIES,
    CUDA_BYTES,
    IMAGE_BYTES,
    kept_images_bytes,
    row_bytes,
)
from pipelines.readers.kept_images import CACHED_GROUPS, KeptImages
from pipelines.readers.prefetch import prefetch
from pipelines.tokens import held_out
from pipelines.tokens.vqkd_training import MODEL_FILE
from tokenizer.vqkd import VQKD, to_input

VIEW_NUMBERS: Final = 5
"Numbers that describe a view: x, y, width, height, flip."
_NETWORK_BYTES: Final = 450_000_000
"Weights of the image tokenizer of the default size."
_ENCODED_BYTES: Final = 10_000_000
"Memory of a view while the CPU encodes it."
_CUT_BYTES: Final = 500_000
"Memory of a view that is cut: its crop, the next batch's, and its part of the image."
_COLUMNS: Final = ("sample_id", "source", "label", "jpeg", *held_out.COLUMNS)


class Params(ActorParams):
    """Views of the images and their codes."""

    num_views: int = Field(default=2, ge=1)
    "Number of views (random crops) stored per image; training picks one at each visit."
    min_crop_scale: float = Field(default=0.2, gt=0, le=1)
    "Smallest fraction of an image's area that a view covers."
    held_out_fraction: float = Field(default=0.005, ge=0, lt=1)
    "Expected fraction of images held out for evaluation, where the sources do not say which."
    slice_rows: int = Field(default=2048, ge=1)
    "Number of images in a slice."
    row_group_rows: int = Field(default=256, ge=1)
    "Number of images in a row group, the unit that training reads and shuffles."
    batch_size: Annotated[int, OPERATIONAL] = Field(default=64, ge=1)
    "Number of views that the tokenizer encodes at once."


class CropParams(Params):
    """The section, and the recipe's ``flip``."""

    flip: bool
    "Whether half of the views are mirrored."


def stage(
    params: Params,
    *,
    seed: int,
    flip: bool,
    curated: Stage,
    images: Sequence[Stage],
    held_out: Sequence[Stage],
    tokenizer: Stage,
) -> Stage:
    """Return the stage ``image_tokens``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        flip: of the recipe.
        curated: ``curate``.
        images: the stages whose images curation read, in its order.
        held_out: those of them whose images are all held out.
        tokenizer: ``image_tokenizer``.
    """
    complete = CropParams(**params.model_dump(exclude_unset=True), flip=flip)
    return Stage(
        "image_tokens",
        lambda context: run(context, complete),
        complete,
        feeding(curated=curated, images=images, held_out=held_out, tokenizer=tokenizer),
        seed=seed,
        version=3,
        resources=complete.resources,
        workers=partial(workers, complete, [each.name for each in images]),
    )


def workers(params: Params, images: Sequence[str], inputs: Mapping[str, Expected]) -> Workers:
    """Predict an actor's memory: the network, cached row groups, a slice and a batch.

    Args:
        params: of the stage.
        images: names of the inputs that hold the images.
        inputs: size of each input by name.
    """
    network = _NETWORK_BYTES + params.batch_size * _ENCODED_BYTES
    if params.gpus_per_actor:
        network = CUDA_BYTES
    held = kept_images_bytes(inputs, images, CACHED_GROUPS)
    held += round(params.slice_rows * row_bytes(inputs, images, IMAGE_BYTES) * COPIES)
    held += params.batch_size * params.num_views * _CUT_BYTES
    return Workers(WORKER_BYTES + TORCH_BYTES + network + held, params.num_actors)


def run(context: Context, params: CropParams) -> None:
    """Encode curated images without captions."""
    split = held_out.Split(params.held_out_fraction, context.seed)
    context.commit(tokenize(context, params, "images", split, ViewTokenizer))


def tokenize(
    context: Context,
    params: CropParams,
    kind: str,
    split: held_out.Split,
    make: "Callable[..., ViewTokenizer]",
) -> list[Slice]:
    """Encode each slice of one kind of image in an actor that holds the tokenizer."""
    kept = context.input("curated").table(kind)
    slices = row_slices(kept, params.slice_rows)
    tokenizer, images = context.input("tokenizer"), context.inputs("images")
    names, held_out_names = (context.stage.inputs[role] for role in ("images", "held_out"))
    whole = [number for number, name in enumerate(names) if name in held_out_names]
    context.map_slices_with_actors(
        slices,
        partial(make, params, split, whole, tokenizer, kept, images),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=params.gpus_per_actor,
        row_group_rows=params.row_group_rows,
        quarantine=partial(quarantined, kept, images),
    )
    return slices


def quarantined(kept: Dataset, images: Sequence[Dataset], slice_: Slice, detail: str) -> Output:
    """Return curated images as rejects, because encoding them ends the worker."""
    rows = KeptImages([kept], images, ["sample_id", "source"]).take(
        np.arange(slice_.payload["start"], slice_.payload["stop"])
    )
    rejects = [
        reject(row["sample_id"], row["source"], KILLED_WORKER, detail) for row in rows.to_pylist()
    ]
    return Output(len(rejects), {"rejects": rejects_table(rejects)})


class ViewTokenizer:
    """Cuts and encodes the views of a slice."""

    def __init__(
        self,
        params: CropParams,
        split: held_out.Split,
        whole: Sequence[int],
        tokenizer: Dataset,
        kept: Dataset,
        images: Sequence[Dataset],
    ) -> None:
        """Load the tokenizer.

        Args:
            params: of the stage.
            split: which images are held out.
            whole: numbers of the datasets in ``images`` that are held out as a whole.
            tokenizer: dataset of ``image_tokenizer``.
            kept: table of curation.
            images: the datasets that curation read.
        """
        torch.set_num_threads(params.cpus_per_actor)
        self.params, self.split, self.whole = params, split, whole
        self.device = torch.device("cuda" if params.gpus_per_actor else "cpu")
        self.tokenizer = VQKD.load(tokenizer.fetch(MODEL_FILE)).to(self.device)
        self.threads = ThreadPoolExecutor(params.cpus_per_actor)
        self.images = KeptImages([kept], images, _COLUMNS)

    def __call__(self, slice_: Slice) -> Output:
        """Process one slice."""
        numbers = np.arange(slice_.payload["start"], slice_.payload["stop"])
        rows = self.images.take(numbers)
        whole = np.isin(self.images.locations(numbers)[0], self.whole)
        is_held_out = self.split.held_out(rows, whole)
        captions, num_dropped = self.split.captions_of_sides(rows, whole)
        table = pa.table(self.columns(rows, captions))
        return Output(
            num_rows_in=table.num_rows,
            tables={
                "train": table.filter(pa.array(~is_held_out)),
                "held_out": table.filter(pa.array(is_held_out)),
            },
            counters={
                "num_held_out": int(is_held_out.sum()),
                "num_captions_dropped": num_dropped,
            },
        )

    def columns(
        self, rows: pa.Table, captions: list[list[str]]
    ) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Return the output columns of some images; ``captions`` are those to keep."""
        views, codes = self._encode(rows)
        return {
            "sample_id": rows["sample_id"],
            "source": rows["source"].cast(pa.string()),
            "label": rows["label"],
            "jpeg": rows["jpeg"],
            "views": views,
            "codes": codes,
        }

    def _encode(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the views of each image and their codes, as two fixed-size lists."""
        views, codes = [], []
        batch_size = self.params.batch_size
        chunks = [rows.slice(i, batch_size) for i in range(0, rows.num_rows, batch_size)]
        # The next images are decoded and cut while the current ones are encoded.
        with prefetch(lambda i: self._cut_batch(chunks[i]), 0, len(chunks)) as batches:
            for some_views, crops in chain.from_iterable(batches):
                views += some_views
                codes.append(self._codes(crops))
        numbers = np.array(views, np.uint16).reshape(-1, VIEW_NUMBERS)
        shape = (0, self.tokenizer.config.grid**2)
        all_codes = np.concatenate([np.empty(shape, np.uint16), *codes])
        num_views = self.params.num_views
        return _fixed_lists(numbers, num_views), _fixed_lists(all_codes, num_views)

    def _cut_batch(self, rows: pa.Table) -> list[tuple[list[View], NDArray[np.uint8]]]:
        """Return batches of views with their crops; the views of an image are consecutive."""
        images = zip(rows["sample_id"].to_pylist(), rows["jpeg"].to_pylist(), strict=True)
        cuts = list(self.threads.map(lambda image: self._cut(*image), images))
        views = [view for some_views, _ in cuts for view in some_views]
        crops = np.concatenate([crops for _, crops in cuts])
        step = self.params.batch_size
        return [(views[i : i + step], crops[i : i + step]) for i in range(0, len(views), step)]

    def _cut(self, sample_id: str, jpeg: bytes) -> tuple[list[View], NDArray[np.uint8]]:
        pixels = decode_stored(jpeg, sample_id)
        size, scale = self.tokenizer.config.image_size, self.params.min_crop_scale
        seed, flip = self.split.seed, self.params.flip
        views, crops = zip(
            *(
                random_cut(pixels, scale, seed, sample_id, view, size, flip=flip)
                for view in range(self.params.num_views)
            ),
            strict=True,
        )
        return list(views), np.stack(crops)

    def _codes(self, crops: NDArray[np.uint8]) -> NDArray[np.uint16]:
        codes = self.tokenizer.encode(to_input(crops).to(self.device))
        return codes.cpu().numpy().astype(np.uint16)


def _fixed_lists(values: NDArray[np.uint16], num_views: int) -> pa.Array:
    """(rows * num_views, n) → one list of num_views * n numbers per row."""
    size = num_views * values.shape[1]
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), size)
