"""What a model can be applied for: embed, caption, answer, classify.

A new operation is a class here and a line in ``OPERATIONS``; a command is in
``commands/apply.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Final

import pyarrow as pa

from dataprep.images import Pixels
from pipelines.apply.inputs import Kind
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.inference.results import Candidate
from pipelines.inference.uses import CannotDo, require

Columns = Mapping[str, Sequence[Any]]


class Operation(ABC):
    """What a model does with rows; an image of a row is given as its view of the network's size."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[Kind]]
    "Kinds of rows that it takes."
    columns: ClassVar[pa.Schema]
    "The columns that it adds to a row."

    def check(self, model: PretrainedModel, kinds: Collection[Kind]) -> None:
        """Check that a model can do this with rows of some kinds.

        Raises:
            CannotDo: it has no head for it; the message says which models have.
        """
        require(model, self.name)

    @abstractmethod
    def apply(
        self,
        model: PretrainedModel,
        images: Sequence[Pixels] | None,
        texts: Sequence[str] | None,
        num_best: int,
    ) -> Columns:
        """Return the columns for a batch of rows of one kind.

        Args:
            model: the model.
            images: (B,) views, or None for rows without images.
            texts: (B,) texts, or None for rows without texts.
            num_best: largest number of answers or labels of a row.
        """


class Embed(Operation):
    """Features of images, and of texts."""

    name = "embed"
    takes = frozenset({"image", "text"})
    columns = pa.schema([("features", pa.list_(pa.float32()))])

    def check(self, model: PretrainedModel, kinds: Collection[Kind]) -> None:
        """See :class:`Operation`."""
        for kind in kinds:
            require(model, "embed_images" if kind == "image" else "embed_texts")

    def apply(
        self,
        model: PretrainedModel,
        images: Sequence[Pixels] | None,
        texts: Sequence[str] | None,
        num_best: int,
    ) -> Columns:
        """See :class:`Operation`; features have unit length."""
        if images is not None:
            return {"features": list(model.embed_images(images, batch_size=len(images)))}
        texts = texts or []
        return {"features": list(model.embed_texts(texts, batch_size=len(texts) or 1))}


class Caption(Operation):
    """Captions of images."""

    name = "caption"
    takes = frozenset({"image"})
    columns = pa.schema([("caption", pa.string())])

    def apply(
        self,
        model: PretrainedModel,
        images: Sequence[Pixels] | None,
        texts: Sequence[str] | None,
        num_best: int,
    ) -> Columns:
        """See :class:`Operation`."""
        images = images or []
        return {"caption": model.caption(images, batch_size=len(images) or 1)}


class Answer(Operation):
    """Answers to questions about images."""

    name = "answer"
    takes = frozenset({"image and text"})
    columns = pa.schema([("answers", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])

    def apply(
        self,
        model: PretrainedModel,
        images: Sequence[Pixels] | None,
        texts: Sequence[str] | None,
        num_best: int,
    ) -> Columns:
        """See :class:`Operation`; best answers first."""
        images, texts = images or [], texts or []
        size = len(images) or 1
        return _best("answers", model.answer(images, texts, top_k=num_best, batch_size=size))


class Classify(Operation):
    """Classes of images, or of texts."""

    name = "classify"
    takes = frozenset({"image", "text"})
    columns = pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])

    def check(self, model: PretrainedModel, kinds: Collection[Kind]) -> None:
        """See :class:`Operation`."""
        super().check(model, kinds)
        wrong: Kind = "image" if isinstance(model.task, TextClassification) else "text"
        if wrong in kinds:
            raise CannotDo(f"classify: {model.description} and takes no {wrong}s")

    def apply(
        self,
        model: PretrainedModel,
        images: Sequence[Pixels] | None,
        texts: Sequence[str] | None,
        num_best: int,
    ) -> Columns:
        """See :class:`Operation`; best labels first."""
        given = images if images is not None else texts or []
        return _best("labels", model.classify(given, top_k=num_best, batch_size=len(given) or 1))


OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation for operation in (Embed(), Caption(), Answer(), Classify())
}


def _best(name: str, found: Sequence[Sequence[Candidate]]) -> Columns:
    return {
        name: [[label for label, _ in row] for row in found],
        "scores": [[score for _, score in row] for row in found],
    }
