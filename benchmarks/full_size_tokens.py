"""The token tables of a rehearsal at full row counts: the real stages with drawn codes.

Images are read, split and committed by the stages themselves; only the image tokenizer's network
is replaced by random codes and views, so this takes minutes and no accelerator.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from orchestration import Context, Stage
from pipelines.tokens import image_tokens, pair_tokens
from pipelines.tokens.held_out import Split
from pipelines.tokens.image_tokens import VIEW_NUMBERS, CropParams, ViewTokenizer
from pipelines.tokens.pair_tokens import PairTokenizer
from pipelines.tokens.vqkd_training import MODEL_FILE
from tokenizer.vqkd import VQKD, VQKDConfig

NAMES: Final = ("image_tokenizer", "image_tokens", "pair_tokens")


def drawn(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Yield all stages, those named in ``NAMES`` with a ``run`` that draws codes."""
    runs = {
        "image_tokenizer": _run_tokenizer,
        "image_tokens": _run_images,
        "pair_tokens": _run_pairs,
    }
    for stage in stages:
        run = runs.get(stage.name)
        yield replace(stage, run=partial(run, stage)) if run else stage


class _DrawnCodes(ViewTokenizer):
    """Draws views and codes in place of cutting and encoding images."""

    def _encode(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        num_views, config = self.params.num_views, self.tokenizer.config
        # A slice that is repeated must give the same bytes.
        rng = np.random.default_rng(rows.num_rows)
        views = rng.integers(1, 256, (rows.num_rows * num_views, VIEW_NUMBERS), np.uint16)
        shape = rows.num_rows * num_views, config.grid**2
        codes = rng.integers(0, config.num_codes, shape, np.uint16)
        return (
            image_tokens._fixed_lists(views, num_views),
            image_tokens._fixed_lists(codes, num_views),
        )


class _DrawnPairs(_DrawnCodes, PairTokenizer):
    """The same for pairs, whose captions are encoded as usual."""


def _run_tokenizer(stage: Stage, context: Context) -> None:
    """Commit a small network of the real grid and number of codes."""
    params = stage.params
    config = VQKDConfig(
        image_size=params.image_size,
        patch_size=params.patch_size,
        num_codes=params.num_codes,
        width=96,
        depth=1,
        num_heads=3,
        teacher_dim=512,
    )
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / MODEL_FILE
        VQKD(config).save(path)
        context.folder.write_file(MODEL_FILE, path)
    context.commit(files=[MODEL_FILE])


def _run_images(stage: Stage, context: Context) -> None:
    assert isinstance(stage.params, CropParams)
    split = Split(stage.params.held_out_fraction, context.seed)
    context.commit(image_tokens.tokenize(context, stage.params, "images", split, _DrawnCodes))


def _run_pairs(stage: Stage, context: Context) -> None:
    assert isinstance(stage.params, pair_tokens.CropParams)
    with patch.object(pair_tokens, "PairTokenizer", _DrawnPairs):
        pair_tokens.run(context, stage.params)
