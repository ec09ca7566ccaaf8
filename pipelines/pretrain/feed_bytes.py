"""How much host memory the feed of a training worker takes: row groups of windows, and those ahead.

The mean bytes of a row are those of the committed datasets where they are known, else what the
recipe says of a row.
"""

from collections.abc import Mapping
from typing import Final

from model.training.batch import STREAMS, Stream
from orchestration.params import StageParams
from orchestration.reporting.usage import Expected
from pipelines.pretrain.crop_processes import PROCESS_BYTES, num_processes
from pipelines.pretrain.feed import STEPS_HELD
from pipelines.pretrain.params import Params
from pipelines.readers.expected_memory import row_bytes
from pipelines.tokens import image_tokens, text_tokens

_JPEG_BYTES: Final = 25_000
"Mean size of a stored image whose shorter side is 256 pixels."
_BYTES_PER_NUMBER: Final = 2


def process_bytes(params: Params) -> int:
    """Return the memory of the processes that cut the images of one worker."""
    has_images = params.images_per_step or params.pairs_per_step
    return PROCESS_BYTES * num_processes(params.cpus_per_worker) if has_images else 0


def feed_bytes(
    params: Params,
    tokens: Mapping[Stream, StageParams],
    inputs: Mapping[Stream, Expected],
) -> int:
    """Return the bytes of the row groups that the feed of one worker holds.

    Args:
        params: of the training.
        tokens: parameters of the stage that gives each stream.
        inputs: size of each stream's dataset, as far as it is known.
    """
    held = 0.0
    for stream in STREAMS:
        if not params.samples_per_step[stream]:
            continue
        section, size = tokens[stream], inputs.get(stream, Expected())
        assert isinstance(section, image_tokens.Params | text_tokens.Params)
        rows = _num_rows_held(params, stream, section.row_group_rows)
        rows = min(rows, size.rows or rows)
        held += rows * row_bytes({stream: size}, [stream], _by_recipe(params, section))
    return round(held)


def _num_rows_held(params: Params, stream: Stream, row_group_rows: int) -> int:
    """Return the rows of a stream that a worker holds.

    A window begins and ends within a row group, and within the steps that are held the next windows
    of some substreams begin.
    """
    num_substreams = -(-params.substreams // params.min_workers)
    of_windows = (params.shuffle_window + 1) * row_group_rows
    of_steps = STEPS_HELD * params.samples_per_step[stream] // params.substreams
    return num_substreams * (of_windows + of_steps)


def _by_recipe(params: Params, section: image_tokens.Params | text_tokens.Params) -> int:
    """Return the bytes of a row that the feed reads, as the recipe determines them."""
    if isinstance(section, text_tokens.Params):
        return section.length * _BYTES_PER_NUMBER
    num_patches = params.network.config(vocab_size=1, num_codes=1).num_patches
    codes = section.num_views * num_patches * _BYTES_PER_NUMBER
    return _JPEG_BYTES + (codes if params.codes == "stored" else 0)
