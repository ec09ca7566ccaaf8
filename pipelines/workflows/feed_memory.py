"""How much host memory the feed of a training worker needs for the windows that it shuffles."""

from collections.abc import Iterator
from typing import Final

from model.training.batch import STREAMS
from orchestration.reporting.results import human_bytes
from pipelines.pretrain.feed_bytes import feed_bytes
from pipelines.workflows.pretrain_recipe import PretrainRecipe

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
        f"{train.shuffle_window} row groups of each stream, and those that come next"
    )
    less = "; it is less with more workers, fewer train.substreams or smaller row_group_rows"
    yield line + (less if held > _LARGE_BYTES else "")


def held_bytes(recipe: PretrainRecipe) -> int:
    """Return the bytes of the row groups that the feed of one worker holds, by the recipe alone."""
    tokens = {stream: getattr(recipe, f"{stream}_tokens") for stream in STREAMS}
    return feed_bytes(recipe.train, tokens, {})
