"""Image tokens: curated images → JPEG and views with their codes.

In: curated images of one kind, the image tokenizer. Out: ``train`` and ``held_out``:
sample_id, label, jpeg, views: fixed_size_list<uint16, 5 k> (x, y, width, height, flip of each of
k views), codes: fixed_size_list<uint16, k N>. The JPEG is the stored one, unchanged, so that
training cuts exactly the pixels whose codes are here.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field

from dataprep.images import decode_stored
from dataprep.views import View, random_cut
from orchestration import Context, Dataset, Output, Slice
from orchestration.params import OPERATIONAL, StageParams
from orchestration.slices import row_slices
from pipelines.readers.prefetch import prefetch
from pipelines.readers.rows import KeptImages
from pipelines.tokens.held_out import is_held_out
from pipelines.tokens.vqkd_training import MODEL_FILE
from tokenizer.vqkd import VQKD, to_input

VIEW_NUMBERS: Final = 5
_COLUMNS: Final = ("sample_id", "label", "jpeg", "captions")


class Params(StageParams):
    """Views and their codes."""

    views: int = Field(default=2, ge=1)
    "k, views of each image."
    min_scale: float = Field(default=0.2, gt=0, le=1)
    "Smallest share of an image that a view shows."
    held_out_share: float = Field(default=0.005, ge=0, lt=1)
    "Of the images, kept from training for evaluation."
    slice_rows: int = Field(default=2048, ge=1)
    "Images of a slice."
    row_group_rows: int = Field(default=256, ge=1)
    "Images of a row group: what training shuffles as one."
    batch: Annotated[int, OPERATIONAL] = Field(default=64, ge=1)
    "Views encoded at once."
    num_actors: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    cpus_per_actor: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "As many threads decode and cut images, and encode where there is no GPU."
    use_gpu: Annotated[bool, OPERATIONAL] = False
    "One GPU for each actor."


def run(context: Context, params: Params) -> None:
    """Encode curated images without captions."""
    tokenize(context, params, "images", ViewTokenizer)


def tokenize(
    context: Context, params: Params, kind: str, make: "Callable[..., ViewTokenizer]"
) -> None:
    """Encode each slice of one kind of image in an actor that holds the tokenizer."""
    kept = context.input("curated").table(kind)
    slices = row_slices(kept, params.slice_rows)
    tokenizer, images = context.input("tokenizer"), context.inputs("images")
    context.map_slices_with_actors(
        slices,
        partial(make, params, context.seed, tokenizer, kept, images),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=int(params.use_gpu),
        row_group_rows=params.row_group_rows,
    )
    context.commit(slices)


class ViewTokenizer:
    """Cuts and encodes the views of a slice."""

    def __init__(
        self,
        params: Params,
        seed: int,
        tokenizer: Dataset,
        kept: Dataset,
        images: Sequence[Dataset],
    ) -> None:
        torch.set_num_threads(params.cpus_per_actor)
        self.params, self.seed = params, seed
        self.device = torch.device("cuda" if params.use_gpu else "cpu")
        self.tokenizer = VQKD.load(tokenizer.fetch(MODEL_FILE)).to(self.device)
        self.threads = ThreadPoolExecutor(params.cpus_per_actor)
        self.images = KeptImages([kept], images, _COLUMNS)

    def __call__(self, piece: Slice) -> Output:
        """Process one slice."""
        table = self.read(piece)
        views, codes = self.encode(table)
        columns = {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "jpeg": table["jpeg"],
            "views": views,
            "codes": codes,
        }
        return self.split(pa.table(columns))

    def read(self, piece: Slice) -> pa.Table:
        """Return the images of a slice."""
        return self.images.take(np.arange(piece.payload["start"], piece.payload["stop"]))

    def split(self, table: pa.Table) -> Output:
        """Part a table into training and held-out rows."""
        share = self.params.held_out_share
        out = np.array([is_held_out(name, share) for name in table["sample_id"].to_pylist()], bool)
        tables = {"train": table.filter(pa.array(~out)), "held_out": table.filter(pa.array(out))}
        return Output(num_rows_in=table.num_rows, tables=tables)

    def encode(self, table: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the views of each image and their codes, as two fixed-size lists."""
        views, codes = [], []
        batch = self.params.batch
        chunks = [table.slice(i, batch) for i in range(0, table.num_rows, batch)]
        # The next images are decoded and cut while the present ones are encoded.
        for cuts in prefetch(lambda i: self._cut_batch(chunks[i]), 0, len(chunks)):
            for mine, crops in cuts:
                views += mine
                codes.append(self._codes(crops))
        numbers = np.array(views, np.uint16).reshape(-1, VIEW_NUMBERS)
        shape = (0, self.tokenizer.config.grid**2)
        all_codes = np.concatenate([np.empty(shape, np.uint16), *codes])
        return _fixed_lists(numbers, self.params.views), _fixed_lists(all_codes, self.params.views)

    def _cut_batch(self, rows: pa.Table) -> list[tuple[list[View], NDArray[np.uint8]]]:
        """Return the views of some images with their crops, an image's after one another."""
        images = zip(rows["sample_id"].to_pylist(), rows["jpeg"].to_pylist(), strict=True)
        cuts = list(self.threads.map(lambda image: self._cut(*image), images))
        views = [view for mine, _ in cuts for view in mine]
        crops = np.concatenate([crops for _, crops in cuts])
        step = self.params.batch
        return [(views[i : i + step], crops[i : i + step]) for i in range(0, len(views), step)]

    def _cut(self, name: str, jpeg: bytes) -> tuple[list[View], NDArray[np.uint8]]:
        pixels = decode_stored(jpeg)
        size = self.tokenizer.config.image_size
        views, crops = zip(
            *(
                random_cut(pixels, self.params.min_scale, self.seed, name, index, size)
                for index in range(self.params.views)
            ),
            strict=True,
        )
        return list(views), np.stack(crops)

    def _codes(self, crops: NDArray[np.uint8]) -> NDArray[np.uint16]:
        codes = self.tokenizer.encode(to_input(crops).to(self.device))
        return codes.cpu().numpy().astype(np.uint16)


def _fixed_lists(values: NDArray[np.uint16], views: int) -> pa.Array:
    """(rows * views, n) → one list of views * n numbers per row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), views * values.shape[1])
