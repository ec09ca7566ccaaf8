"""Patches that stand for codes, to draw what a network predicts for masked patches.

A code has no pixels of its own: VQ-KD decodes to features of its teacher. A code is drawn as the
mean of the patches that the image tokenizer gave it, in drawn scenes and in the visible part of the
image at hand; a code that none of them has is drawn as the most similar one of the codebook.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataprep.images import Pixels
from dataprep.miniweb.drawing import draw
from dataprep.miniweb.drawn_images import numbered_rng
from dataprep.miniweb.grammar import random_scene
from pipelines.inference.pretrained_model import PretrainedModel

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_NUM_SCENES: Final = 96
_SCENE_SIDE: Final = 224
_SEED: Final = 41


class CodePatches:
    """Mean patches of codes."""

    def __init__(self, model: PretrainedModel) -> None:
        """Measure the patches of drawn scenes.

        Args:
            model: with its image tokenizer.
        """
        assert model.image_tokenizer is not None
        self.side = model.source.config.patch_size
        codebook = model.image_tokenizer.quantize.embedding.weight.detach().float().cpu().numpy()
        self.codebook = codebook / np.linalg.norm(codebook, axis=1, keepdims=True).clip(1e-12)
        self.sums = np.zeros((len(codebook), self.side, self.side, 3), np.float32)
        self.counts = np.zeros(len(codebook), np.int64)
        rngs = [numbered_rng(_SEED, i) for i in range(_NUM_SCENES)]
        scenes = [draw(random_scene(rng), _SCENE_SIDE, _SCENE_SIDE, rng) for rng in rngs]
        codes = model.codes(scenes)
        for view, some_codes in zip(model.processor.pixels(scenes), codes, strict=True):
            self._add(self.sums, self.counts, patches_of(view, self.side), some_codes)

    def draw(self, view: Pixels, codes: Ints, mask: Bools, predicted: Ints) -> Pixels:
        """Return a view whose masked patches are those of predicted codes.

        Args:
            view: (S, S, 3), the network's view of an image.
            codes: (N,) its codes.
            mask: (N,) True = masked.
            predicted: (M,) a code for each masked patch, in their order.
        """
        patches = patches_of(view, self.side)
        sums, counts = self.sums.copy(), self.counts.copy()
        self._add(sums, counts, patches[~mask], codes[~mask])
        known = np.flatnonzero(counts)
        alike = (self.codebook[predicted] @ self.codebook[known].T).argmax(1)
        nearest = np.where(counts[predicted] > 0, predicted, known[alike])
        drawn = patches.copy()
        means = sums[nearest] / counts[nearest, None, None, None]
        drawn[mask] = np.rint(means).astype(np.uint8)
        return joined(drawn)

    @staticmethod
    def _add(sums: NDArray[np.float32], counts: Ints, patches: Pixels, codes: Ints) -> None:
        np.add.at(sums, codes, patches)
        np.add.at(counts, codes, 1)


def patches_of(view: Pixels, side: int) -> Pixels:
    """Return the patches (N, side, side, 3) of a view (S, S, 3), row by row."""
    grid = len(view) // side
    split = view.reshape(grid, side, grid, side, 3).swapaxes(1, 2)
    return split.reshape(grid * grid, side, side, 3)


def joined(patches: Pixels) -> Pixels:
    """Return the view of patches: the inverse of :func:`patches_of`."""
    grid, side = round(len(patches) ** 0.5), patches.shape[1]
    rows = patches.reshape(grid, grid, side, side, 3).swapaxes(1, 2)
    return rows.reshape(grid * side, grid * side, 3)
