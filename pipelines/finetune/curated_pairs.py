"""The curated pairs of a pretraining's workdir, split as its stage ``pair_tokens`` splits them.

The workdir's records of workflows lead to ``pair_tokens``, whose identity says which ``curate`` and
which images it reads, and by which seed, fraction and group rows are held out. Its own output is
not read, and it need not be complete.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from dataprep.schemas import EXAMPLES
from orchestration import Dataset
from orchestration.errors import RecipeError, StoreError
from orchestration.fingerprint import canonical_json
from orchestration.manifest import MANIFEST, manifest_sha256, read_manifest
from orchestration.plan import IDENTITY, records_of
from orchestration.storage.store import Store
from pipelines.readers.kept_images import KeptImages
from pipelines.tokens.held_out import COLUMNS, Split

Part = Literal["train", "held_out"]

_STAGE: Final = "pair_tokens"
_TABLE: Final = "pairs"
"Table of ``curate``."
_COLUMNS: Final = ("sample_id", *COLUMNS)
_SPLIT: Final = ("held_out_fraction", "held_out_by", "seed")
"Parameters of ``pair_tokens`` that split the pairs."


@dataclass(frozen=True)
class CuratedPairs:
    """Where the pairs lie, and how they are split."""

    kept: Store
    "Output of ``curate``."
    images: Sequence[Store]
    "Outputs whose images curation read, in its order."
    whole: Sequence[int]
    "Numbers of those that are held out as a whole."
    params: dict[str, Any]
    "Of ``pair_tokens``."

    @property
    def split(self) -> Split:
        """Which pairs are held out."""
        return Split(*(self.params[key] for key in ("held_out_fraction", "seed", "held_out_by")))

    def digest(self) -> str:
        """Return a digest of the pairs and their split, the same wherever the workdir lies."""
        content = {
            # This manifest has the digests of those of the images.
            "curate": manifest_sha256(self.kept),
            "split": {key: self.params[key] for key in _SPLIT},
            "whole": list(self.whole),
        }
        return f"sha256:{hashlib.sha256(canonical_json(content)).hexdigest()}"

    def num_rows(self) -> int:
        """Return the number of images of both parts."""
        return read_manifest(self.kept).num_rows(_TABLE)

    def image_bytes(self) -> int:
        """Estimate the bytes of the images of both parts."""
        manifests = [read_manifest(folder) for folder in self.images]
        num_bytes = sum(manifest.num_bytes for manifest in manifests)
        num_images = sum(manifest.num_rows("data") for manifest in manifests)
        return num_bytes * self.num_rows() // max(num_images, 1)

    def reader(self, part: Part, *, with_images: bool = True) -> "PairReader":
        """Return what reads one part; without images, those of the examples are empty lists."""
        return PairReader(self, part, with_images=with_images)


class PairReader:
    """Reads the pairs of one part."""

    def __init__(self, pairs: CuratedPairs, part: Part, *, with_images: bool) -> None:
        images = [Dataset.open(folder) for folder in pairs.images]
        columns = [*_COLUMNS, *(["jpeg"] if with_images else [])]
        self._images = KeptImages([Dataset.open(pairs.kept, _TABLE)], images, columns)
        self._whole, self._split = pairs.whole, pairs.split
        self._is_held_out = part == "held_out"

    def __call__(self, start: int, stop: int) -> pa.Table:
        """Return those of the curated images ``start`` to ``stop`` that are in the part.

        They are rows of ``dataprep.schemas.EXAMPLES``: an image with all its captions of this side.
        """
        numbers = np.arange(start, stop)
        rows = self._images.take(numbers)
        whole = np.isin(self._images.locations(numbers)[0], self._whole)
        captions, _ = self._split.captions_of_sides(rows, whole)
        mine = self._split.held_out(rows, whole) == self._is_held_out
        if "jpeg" in rows.column_names:
            images = [[jpeg] for jpeg in rows["jpeg"].filter(pa.array(mine)).to_pylist()]
        else:
            images = [[] for _ in range(int(mine.sum()))]
        return pa.table(
            {
                "example_id": rows["sample_id"].filter(pa.array(mine)),
                "images": images,
                "texts": [some for some, is_mine in zip(captions, mine, strict=True) if is_mine],
                "labels": [[]] * len(images),
                "main_label": [""] * len(images),
                "objects": [[]] * len(images),
                "size": [[]] * len(images),
                "label_map": [None] * len(images),
            },
            schema=EXAMPLES,
        )


def open_pairs(location: str) -> CuratedPairs:
    """Find the curated pairs in a workdir.

    Args:
        location: path or ``s3://`` URI of the workdir of a pretraining.

    Raises:
        RecipeError: it is none, or an output is missing.
    """
    try:
        return _found(Store(location))
    except StoreError as error:
        raise RecipeError(str(error)) from None


def digest_of_pairs(location: str) -> str:
    """Return the digest of the curated pairs in a workdir.

    Raises:
        RecipeError: it is no workdir of a pretraining, or an output is missing.
    """
    return open_pairs(location).digest()


def _found(workdir: Store) -> CuratedPairs:
    records = [record for record in records_of(workdir) if _STAGE in record["stages"]]
    if not records:
        raise RecipeError(f"{workdir.uri}: no workdir of a pretraining, whose pairs could be read")
    newest = max(records, key=lambda record: float(record["started_at"]))
    folder = workdir.sub(f"{_STAGE}/{newest['stages'][_STAGE]}")
    if not folder.exists(IDENTITY):
        raise RecipeError(
            f"{workdir.uri}: its stage {_STAGE} was never started, which says which pairs are held "
            f"out; run that recipe --until {_STAGE}"
        )
    identity = folder.read_json(IDENTITY, {"inputs": dict, "params": dict})
    inputs: dict[str, list[list[str]]] = identity["inputs"]
    (kept,), images = (
        [workdir.sub(f"{name}/{content.partition('+')[0]}") for name, content in inputs[role]]
        for role in ("curated", "images")
    )
    for output in (kept, *images):
        if not output.exists(MANIFEST):
            raise RecipeError(f"{output.uri}: not complete or removed; run that pretraining again")
    held_out = {name for name, _ in inputs["held_out"]}
    whole = [number for number, (name, _) in enumerate(inputs["images"]) if name in held_out]
    return CuratedPairs(kept, images, whole, identity["params"])
