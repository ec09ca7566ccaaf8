"""Image tokens: curated pictures → JPEG and views with their codes.

In: curated pictures of one kind, the image tokenizer. Out: ``train`` and ``heldout``:
sample_id, label, jpeg, views: fixed_size_list<uint16, 5 k> (x, y, width, height, flip of each of
k views), codes: fixed_size_list<uint16, k N>. The JPEG is the stored one, unchanged, so that
training cuts exactly the pixels whose codes are here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field

from dataprep.images import decode_stored
from dataprep.views import cut, random_view
from orchestration import Context, Dataset, Output, Slice
from orchestration.params import OPERATIONAL, StageParams
from orchestration.stage import row_slices
from pipelines.heldout import is_heldout
from pipelines.pictures import KeptPictures
from pipelines.vqkd_training import MODEL_FILE
from tokenizer.vqkd import VQKD, to_input

VIEW_NUMBERS: Final = 5
_COLUMNS: Final = ("sample_id", "label", "jpeg", "captions")


class Params(StageParams):
    """Views and their codes."""

    views: int = Field(default=2, ge=1)
    "k, views of each picture."
    min_scale: float = Field(default=0.2, gt=0, le=1)
    "Smallest share of a picture that a view shows."
    heldout_share: float = Field(default=0.005, ge=0, lt=1)
    "Of the pictures, kept from training for evaluation."
    slice_rows: int = Field(default=2048, ge=1)
    "Pictures of a slice."
    row_group_rows: int = Field(default=256, ge=1)
    "Pictures of a row group: what training shuffles as one."
    batch: Annotated[int, OPERATIONAL] = 64
    "Views encoded at once."
    num_actors: Annotated[int, OPERATIONAL] = 1
    cpus_per_actor: Annotated[float, OPERATIONAL] = 1


def run(context: Context, params: Params) -> None:
    """Encode curated pictures without captions."""
    tokenise(context, params, "images", ViewTokeniser)


def tokenise(
    context: Context, params: Params, kind: str, make: "Callable[..., ViewTokeniser]"
) -> None:
    """Encode each slice of one kind of picture in an actor that holds the tokenizer."""
    kept = context.input("curated").of(kind)
    slices = row_slices(kept, params.slice_rows)
    tokenizer, pictures = context.input("tokenizer"), context.inputs("pictures")
    context.map_slices_with_actors(
        slices,
        partial(make, params, context.seed, tokenizer, kept, pictures),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        row_group_rows=params.row_group_rows,
    )
    context.commit(slices)


class ViewTokeniser:
    """Cuts and encodes the views of a slice."""

    def __init__(
        self,
        params: Params,
        seed: int,
        tokenizer: Dataset,
        kept: Dataset,
        images: Sequence[Dataset],
    ) -> None:
        torch.set_num_threads(max(int(params.cpus_per_actor), 1))
        self.params, self.seed = params, seed
        self.tokenizer = VQKD.load(tokenizer.fetch(MODEL_FILE))
        self.pictures = KeptPictures([kept], images, _COLUMNS)

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
        """Return the pictures of a slice."""
        return self.pictures.take(np.arange(piece.payload["start"], piece.payload["stop"]))

    def split(self, table: pa.Table) -> Output:
        """Part a table into training and held-out rows."""
        share = self.params.heldout_share
        out = np.array([is_heldout(name, share) for name in table["sample_id"].to_pylist()], bool)
        tables = {"train": table.filter(pa.array(~out)), "heldout": table.filter(pa.array(out))}
        return Output(num_rows_in=table.num_rows, tables=tables)

    def encode(self, table: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the views of each picture and their codes, as two fixed-size lists."""
        views, crops = [], []
        for name, jpeg in zip(table["sample_id"].to_pylist(), table["jpeg"], strict=True):
            pixels = decode_stored(jpeg.as_py())
            height, width = pixels.shape[:2]
            for index in range(self.params.views):
                view = random_view(width, height, self.params.min_scale, self.seed, name, index)
                views.append(view)
                crops.append(cut(pixels, view, self.tokenizer.config.image_size))
        codes = np.concatenate(
            [
                self._codes(np.stack(crops[i : i + self.params.batch]))
                for i in range(0, len(crops), self.params.batch)
            ]
        )
        return (
            _fixed_lists(np.array(views, np.uint16), self.params.views),
            _fixed_lists(codes, self.params.views),
        )

    def _codes(self, crops: NDArray[np.uint8]) -> NDArray[np.uint16]:
        codes = self.tokenizer.encode(to_input(crops))
        return codes.numpy().astype(np.uint16)


def _fixed_lists(values: NDArray[np.uint16], views: int) -> pa.Array:
    """(rows * views, n) → one list of views * n numbers per row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), views * values.shape[1])
