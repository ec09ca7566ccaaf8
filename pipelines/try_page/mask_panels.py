"""Panels of a pretrained network: what it predicts for masked patches and words.

Each is predicted from its own modality alone and with the other one beside it, which shows what
the network has learned of the two together.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataprep.text import clean_caption
from model.training.masking import mask_patches, num_masked_patches
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.try_page.code_patches import CodePatches
from pipelines.try_page.panel import (
    NUM_BEST,
    Panel,
    Unusable,
    bars,
    data_address,
    image_of,
    text_of,
    written,
)

_MASK_RATIO: Final = 0.4
_MARKERS: Final = ("[MASK]", "<mask>")


class PatchPanel(Panel):
    """Masked patches, drawn as patches that stand for the predicted codes."""

    kind = "patches"
    title = "Masked patches"

    def __init__(self, model: PretrainedModel, name: str) -> None:
        """See :class:`Panel`."""
        super().__init__(model, name)
        self.side = model.source.config.grid
        self.patches = CodePatches(model)

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`; ``seed`` asks for a mask to be drawn, ``patches`` names them."""
        image = image_of(values)
        view, codes = self.model.processor.pixels([image])[0], self.model.codes([image])[0]
        mask = self._mask(values)
        answer = {"view": data_address(view), "patches": np.flatnonzero(mask).tolist()}
        if not mask.any():
            return {**answer, "note": "no patch is masked"}
        said = clean_caption(written(values))
        found = []
        for key, texts in (("without_text", None), ("with_text", [said])):
            if texts == [""]:
                continue
            (filled,) = self.model.fill_patches([image], mask[None], texts, top_k=1)
            predicted = filled.codes[:, 0]
            answer[key] = data_address(self.patches.draw(view, codes, mask, predicted))
            found.append(f"{np.mean(predicted == codes[mask]):.0%} {key.replace('_', ' ')}")
        note = f"predicted codes that are those of the image tokenizer: {', '.join(found)}"
        return {**answer, "note": note}

    def _mask(self, values: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Return the mask (N,): drawn by a seed, or of the patches that are named."""
        seed, patches = values.get("seed"), values.get("patches", [])
        num_patches = self.side**2
        if isinstance(seed, int) and 0 <= seed < 2**63:
            count = num_masked_patches(num_patches, _MASK_RATIO)
            return mask_patches(self.side, count, seed, 0, np.zeros(1, np.int64))[0]
        mask = np.zeros(num_patches, bool)
        if not isinstance(patches, list) or not all(
            isinstance(i, int) and 0 <= i < num_patches for i in patches
        ):
            raise Unusable(f"patches are numbers from 0 to {num_patches - 1}")
        mask[np.array(patches, np.int64)] = True
        return mask


class WordPanel(Panel):
    """Masked words of a text."""

    kind = "words"
    title = "Masked words"

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Panel`; without an image only the text predicts."""
        text = text_of(values, "type a text with [MASK] in place of a word")
        marker = next((each for each in _MARKERS if each in text), None)
        if marker is None:
            raise Unusable("write [MASK] in place of a word")
        image = [image_of(values)] if values.get("image") else None
        found = {}
        try:
            for title, images in (("from the text alone", None), ("with the image", image)):
                if images is not None or title != "with the image":
                    (found[title],) = self.model.fill_mask(
                        [text], images, top_k=NUM_BEST, marker=marker
                    )
        except ValueError as error:
            raise Unusable(str(error)) from None
        num_masks = len(found["from the text alone"])
        return {
            "masks": [
                [
                    {"title": f"{_ordinal(i, num_masks)}{title}", "rows": bars(masks[i])}
                    for title, masks in found.items()
                ]
                for i in range(num_masks)
            ]
        }


def _ordinal(number: int, total: int) -> str:
    """Return how one of several masks is called, or nothing if there is no other."""
    return f"{_MARKERS[0]} {number + 1} " if total > 1 else ""
