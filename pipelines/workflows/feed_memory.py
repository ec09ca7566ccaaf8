"""How much host memory the feed of a training worker needs for the windows that it shuffles."""

from collections.abc import Iterator
from typing import Final

from model.training.batch import STREAMS
from orchestration.reporting.results import human_bytes
from pipelines.workflows.pretrain_recipe import PretrainRecipe

_JPEG_BYTES: Final = 25_000
"Mean size of a stored image whose shorter side is 256 pixels."
_BYTES_PER_NUMBER: Final = 2
_SHOWN_BYTES: Final = 1 << 30
_LARGE_BYTES: Final = 16 << 30


def feed_memory(recipe: PretrainRecipe) -> Iterator[str]:
    """Yield what a worker's feed holds if that is more than a gigabyte, and what makes it less."""
    held = held_bytes(recipe)
    if held < _SHOWN_BYTES:
        return
    train = recipe.train
    line = (
        f"train: the feed of a worker holds about {human_bytes(held)} of row groups: "
        f"{train.substreams} substreams / {train.min_workers} workers x shuffle_window = "
        f"{train.shuffle_window} row groups of each stream"
    )
    less = "; it is less with more workers, fewer train.substreams or smaller row_group_rows"
    yield line + (less if held > _LARGE_BYTES else "")


def held_bytes(recipe: PretrainRecipe) -> int:
    """Return the bytes of the row groups that the feed of one worker holds."""
    train = recipe.train
    num_patches = train.network.config(vocab_size=1, num_codes=1).num_patches
    rows = 0
    for stream in STREAMS:
        if not train.samples_per_step[stream]:
            continue
        tokens = getattr(recipe, f"{stream}_tokens")
        if stream == "text":
            each = tokens.length * _BYTES_PER_NUMBER
        else:
            codes = tokens.num_views * num_patches * _BYTES_PER_NUMBER
            each = _JPEG_BYTES + (codes if train.codes == "stored" else 0)
        rows += each * tokens.row_group_rows
    return rows * train.num_groups_held
