"""A model that writes captions, by a search or by draws.

A draw depends on the seed and on the image's id alone, not on the other images: without ids, on the
image's number among those that are given.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final

import numpy as np

from model.finetuning.generation import Decoding, generate
from model.finetuning.task_networks import ForCaptioning
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.caption_params import DecodingParams, draw_seeds
from pipelines.finetune.tasks.captioning import Captioning
from pipelines.inference.batching import beside, together
from pipelines.inference.loaded_model import LoadedModel
from pipelines.inference.processor import ImageInput, many
from pipelines.inference.uses import require

_ID_BYTES: Final = 7
"Of the digest of an id, which is a positive int64."
_SEEDS: Final = 2**63
"Number of seeds, as in a recipe."


class CaptioningModel(LoadedModel):
    """A loaded model with the method ``caption``."""

    def caption(
        self,
        images: Iterable[ImageInput],
        decoding: Decoding | None = None,
        *,
        seed: int | None = None,
        ids: Iterable[str] | None = None,
        batch_size: int = 32,
    ) -> list[str]:
        """Return the best caption of each image.

        Args:
            images: B images.
            decoding: how captions are generated; None takes that of the recipe. A caption is
                never longer than the texts that the network reads.
            seed: of the draws of a decoding with a temperature; None takes that of the recipe.
            ids: a name for each image, on which its draws depend; None takes their numbers.
            batch_size: images that are captioned side by side.

        Raises:
            TypeError: an id is no str.
            ValueError: there are more or fewer ids than images, or the seed is out of range.
        """
        require(self, "caption")
        network, tokenizer = self.network, self.processor.tokenizer
        assert isinstance(network, ForCaptioning) and tokenizer is not None
        longest = self.source.config.max_text_length
        of_recipe = self.task.decoding if isinstance(self.task, Captioning) else DecodingParams()
        chosen = decoding or of_recipe.decoding(longest)
        chosen = replace(chosen, max_length=min(chosen.max_length, longest))
        drawn_by = of_recipe.seed if seed is None else seed
        if not 0 <= drawn_by < _SEEDS:
            raise ValueError(f"seed is {drawn_by}; give 0 or more, less than 2**63")
        given = many(images, "images")
        numbers = np.arange(len(given))
        if ids is not None:
            names = many(ids, "ids")
            if wrong := [each for each in names if not isinstance(each, str)]:
                raise TypeError(f"ids: {wrong[0]!r:.60} is no text; give a str for each image")
            together(given, names, ("images", "ids"))
            numbers = _numbers_of(names)

        def describe(batch: TaskBatch) -> list[str]:
            assert batch.images is not None
            seeds = None
            if chosen.temperature is not None:
                seeds = draw_seeds(drawn_by, numbers[batch.rows])
            found = generate(network, batch.images[:, 0], chosen, seeds=seeds)
            return [tokenizer.decode(captions[0].ids) for captions in found]

        some = self._run(describe, beside(given, [None] * len(given)), batch_size)
        return [caption for captions in some for caption in captions]


def _numbers_of(ids: Sequence[str]) -> Ints:
    """Return a number for each id, which depends on it alone."""
    digests = (
        blake2b(each.encode(errors="surrogateescape"), digest_size=_ID_BYTES) for each in ids
    )
    return np.array([int.from_bytes(each.digest()) for each in digests], np.int64)
