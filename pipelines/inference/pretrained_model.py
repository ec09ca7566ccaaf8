"""A pretrained or fine-tuned model, with a method for each use.

Every method takes lists and returns results in their order; ``batch_size`` changes speed and
memory alone. The methods compute what the stages ``predict`` and ``evaluate`` compute.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from model.finetuning.finite import require_finite
from model.finetuning.task_networks import TaskNetwork
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.tasks.image_classification import ImageClassification
from pipelines.finetune.tasks.nlvr2 import VisualReasoning
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.tasks.vqa import VisualQuestionAnswering
from pipelines.inference.batching import (
    Example,
    Text,
    at_least_one,
    beside,
    first_images,
    many_texts,
    together,
)
from pipelines.inference.captioning_model import CaptioningModel
from pipelines.inference.detecting_model import DetectingModel
from pipelines.inference.loaded_model import Floats
from pipelines.inference.masked_prediction import (
    FilledPatches,
    Ints,
    best_codes,
    best_tokens,
    codes_of,
    masks_of,
)
from pipelines.inference.masked_texts import MARKER, masked_ids
from pipelines.inference.processor import ImageInput, many
from pipelines.inference.results import Candidate
from pipelines.inference.segmenting_model import SegmentingModel
from pipelines.inference.uses import require
from tokenizer.text import FIRST_PIECE

_ONE: Final = (1, 1)
Chooser = VisualQuestionAnswering | ImageClassification | TextClassification | VisualReasoning


class PretrainedModel(CaptioningModel, DetectingModel, SegmentingModel):
    """A model that is ready for inference."""

    def embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int = 32, normalize: bool = True
    ) -> Floats:
        """Return features (B, D) of images.

        They are those of the head after a fine-tuning for retrieval or for classes by their
        texts, else the mean of the patches, which the k-NN accuracy of ``evaluate`` compares.

        Args:
            images: B images.
            batch_size: images in a forward pass.
            normalize: whether each feature has length 1, so that a product is a cosine.
        """

        require(self, "embed_images")

        def features(batch: TaskBatch) -> Tensor:
            assert batch.images is not None
            return self.image_features(batch.images[:, 0])

        given = many(images, "images")
        return self._features(features, beside(given, [None] * len(given)), batch_size, normalize)

    def embed_texts(
        self, texts: Iterable[str], *, batch_size: int = 32, normalize: bool = True
    ) -> Floats:
        """Return features (B, D) of texts.

        They are those of the head after a fine-tuning for retrieval or for classes by their
        texts, else the mean of the tokens, begin and end included.

        Args:
            texts: B texts; longer ones than the network reads are cut.
            batch_size: texts in a forward pass.
            normalize: whether each feature has length 1, so that a product is a cosine.
        """
        require(self, "embed_texts")

        def features(batch: TaskBatch) -> Tensor:
            assert batch.text_ids is not None and batch.text_padding is not None
            return self.text_features(batch.text_ids, batch.text_padding)

        examples = beside(None, many_texts(texts, "texts"))
        return self._features(features, examples, batch_size, normalize)

    def similarity(
        self, images: Iterable[ImageInput], texts: Iterable[str], *, batch_size: int = 32
    ) -> Floats:
        """Return the cosine (B, B') of each of B images and each of B' texts."""
        require(self, "similarity")
        of_images = self.embed_images(images, batch_size=batch_size)
        return of_images @ self.embed_texts(texts, batch_size=batch_size).T

    def answer(
        self,
        images: Iterable[ImageInput],
        questions: Iterable[str],
        *,
        top_k: int = 1,
        batch_size: int = 32,
    ) -> list[list[Candidate]]:
        """Return the best answers to a question about each image, best first."""
        require(self, "answer")
        examples = beside(images, many_texts(questions, "questions", _ONE))
        return self._choices(examples, top_k, batch_size)

    def classify(
        self, inputs: Iterable[ImageInput] | Iterable[Text], *, top_k: int = 5, batch_size: int = 32
    ) -> list[list[Candidate]]:
        """Return the best classes of each image or text, best first.

        Args:
            inputs: images, or for a classifier of texts, texts or pairs of texts.
            top_k: most classes of each.
            batch_size: inputs in a forward pass.
        """
        require(self, "classify")
        if isinstance(self.task, TextClassification):
            given: list[Any] = many_texts(inputs, "inputs", self.task.num_texts)
            examples = beside(None, given)
        else:
            given = many(inputs, "inputs")
            examples = beside(given, [None] * len(given))
        return self._choices(examples, top_k, batch_size)

    def classify_pairs(
        self,
        pairs: Iterable[tuple[ImageInput, ImageInput]],
        sentences: Iterable[str],
        *,
        top_k: int = 1,
        batch_size: int = 32,
    ) -> list[list[Candidate]]:
        """Return whether a sentence is true of two images, for each pair; best label first."""
        require(self, "classify_pairs")
        given = [tuple(two) for two in many(pairs, "pairs")]
        if wrong := [i for i, two in enumerate(given) if len(two) != 2]:
            raise ValueError(
                f"pairs: number {wrong[0]} has {len(given[wrong[0]])} images; give 2 in each"
            )
        said = many_texts(sentences, "sentences", _ONE)
        together(given, said, ("pairs", "sentences"))
        examples = list(zip(given, said, strict=True))
        return self._choices(examples, top_k, batch_size)

    def fill_mask(
        self,
        texts: Iterable[str],
        images: Iterable[ImageInput] | None = None,
        *,
        top_k: int = 5,
        marker: str = MARKER,
        batch_size: int = 32,
    ) -> list[list[list[Candidate]]]:
        """Return for each text and each marker in it the most likely pieces, best first.

        Each marker stands for one token, see ``masked_texts.py``.

        Args:
            texts: with at least one marker each.
            images: what the texts are about, one for each; None predicts from the text alone.
            top_k: most pieces of each marker.
            marker: what is to be predicted, as it stands in the texts.
            batch_size: texts in a forward pass.
        """
        require(self, "fill_mask")
        written = many_texts(texts, "texts", _ONE)
        tokenizer, length = self.processor.tokenizer, self.source.config.max_text_length
        assert tokenizer is not None
        pieces, most = (FIRST_PIECE, tokenizer.last_piece), at_least_one(top_k, "top_k")

        def fill(batch: TaskBatch) -> list[list[list[Candidate]]]:
            assert batch.text_ids is not None
            encoded = self.encoder(first_images(batch), batch.text_ids, batch.text_padding)
            best = best_tokens(self.encoder, encoded, batch.text_ids, tokenizer.mask, pieces, most)
            return [
                [
                    [Candidate(tokenizer.decode([i]), p) for i, p in zip(*one, strict=True)]
                    for one in some
                ]
                for some in best
            ]

        alone = (text if isinstance(text, str) else text[0] for text in written)
        ids = [masked_ids(text, tokenizer, length, marker) for text in alone]
        return [each for some in self._run(fill, beside(images, ids), batch_size) for each in some]

    def fill_patches(
        self,
        images: Iterable[ImageInput],
        masks: ArrayLike,
        texts: Iterable[str] | None = None,
        *,
        top_k: int = 5,
        batch_size: int = 32,
    ) -> list[FilledPatches]:
        """Return the most likely codes of the masked patches of each image.

        Args:
            images: B images.
            masks: (B, N) or (B, side, side) bool, True = masked, row by row.
            texts: what is said of the images, one for each; None predicts from the image alone.
            top_k: most codes of each patch.
            batch_size: images in a forward pass.
        """
        require(self, "fill_patches")
        given = many(images, "images")
        masked = masks_of(masks, len(given), self.source.config.num_patches)

        def fill(batch: TaskBatch) -> list[FilledPatches]:
            mask = torch.from_numpy(masked[batch.rows]).to(self.device)
            encoded = self.encoder(
                first_images(batch), batch.text_ids, batch.text_padding, image_mask=mask
            )
            return best_codes(self.encoder, encoded, mask, at_least_one(top_k, "top_k"))

        said = [None] * len(given) if texts is None else many_texts(texts, "texts")
        return [each for some in self._run(fill, beside(given, said), batch_size) for each in some]

    def codes(self, images: Iterable[ImageInput], *, batch_size: int = 32) -> Ints:
        """Return the codes (B, N) that the image tokenizer gives the patches of images."""
        require(self, "codes")
        tokenizer = self.image_tokenizer
        assert tokenizer is not None
        given = many(images, "images")
        return codes_of(tokenizer, given, self.processor.crop_mode, batch_size, self.device)

    def _choices(
        self, examples: Sequence[Example], top_k: int, batch_size: int
    ) -> list[list[Candidate]]:
        task, network = self.task, self.network
        assert isinstance(task, Chooser) and isinstance(network, TaskNetwork)
        labels, most = list(self.labels), at_least_one(top_k, "top_k")

        def choose(batch: TaskBatch) -> list[list[Candidate]]:
            found = list(task.predict(network, batch, labels, most))
            require_finite([score for each in found for score in each.scores], "scores")
            pairs = [zip(each.labels, each.scores, strict=True) for each in found]
            return [[Candidate(*pair) for pair in some][:most] for some in pairs]

        return [each for some in self._run(choose, examples, batch_size) for each in some]
