"""What a model can be applied for: embed, caption, answer, classify, detect, segment.

A new operation is a class here and a line in ``OPERATIONS``; a command is in
``commands/apply.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import pyarrow as pa

from dataprep.images import Pixels
from pipelines.apply.params import ApplyParams
from pipelines.apply.rows import Kind
from pipelines.finetune.object_views import View
from pipelines.finetune.tasks.detection import Detection
from pipelines.finetune.tasks.nlvr2 import VisualReasoning
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.inference.batching import Text
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.inference.results import Candidate
from pipelines.inference.segmenting_model import MapView
from pipelines.inference.uses import CannotDo, require

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Batch:
    """B rows of one kind."""

    ids: Sequence[str]
    "(B,) ids of the rows."
    views: Sequence[Any] | None
    "(B,) what :meth:`Operation.view` made of their images, pairs of it for rows of two, or None."
    texts: Sequence[Text] | None
    "(B,) texts or pairs of texts, or None for rows without texts."


class Operation(ABC):
    """What a model does with rows."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[Kind]]
    "Kinds of rows that it takes."
    takes_pairs: ClassVar[bool] = False
    "Whether it takes pairs of texts or images that are read together."
    columns: ClassVar[pa.Schema]
    "The columns that it adds to a row."
    batch_size: ClassVar[int] = 32
    "Rows in a forward pass, unless the parameters say another number."
    settings: ClassVar[frozenset[str]] = frozenset()
    "Parameters of ``ApplyParams`` that change its result and not that of every operation."

    def view(self, model: PretrainedModel, image: Pixels) -> Any:
        """Return how a network sees an image (height, width, 3); called in threads."""
        return model.processor.pixels([image])[0]

    def check(self, model: PretrainedModel, kinds: Collection[Kind]) -> None:
        """Check that a model can do this with rows of some kinds.

        Raises:
            CannotDo: it has no head for it; the message says which models have.
        """
        require(model, self.name)

    @abstractmethod
    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """Return the columns for the rows of a batch."""


class Embed(Operation):
    """Features of images, and of texts."""

    name = "embed"
    takes = frozenset({"image", "text"})
    columns = pa.schema([("features", pa.list_(pa.float32()))])

    def check(self, model: PretrainedModel, kinds: Collection[Kind]) -> None:
        """See :class:`Operation`."""
        for kind in kinds:
            require(model, "embed_images" if kind == "image" else "embed_texts")

    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """See :class:`Operation`; features have unit length."""
        size = len(batch.ids)
        if batch.views is not None:
            return {"features": list(model.embed_images(batch.views, batch_size=size))}
        return {"features": list(model.embed_texts(_alone(batch), batch_size=size))}


class Caption(Operation):
    """Captions of images."""

    name = "caption"
    takes = frozenset({"image"})
    columns = pa.schema([("caption", pa.string())])
    settings = frozenset({"decoding"})

    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """See :class:`Operation`; a draw depends on the id of its row, not on the batch."""
        chosen, seed = None, None
        if params.decoding is not None:
            chosen, seed = (
                params.decoding.decoding(params.decoding.max_length),
                params.decoding.seed,
            )
        size = len(batch.ids)
        captions = model.caption(
            batch.views or [], chosen, seed=seed, ids=batch.ids, batch_size=size
        )
        return {"caption": captions}


class Answer(Operation):
    """Answers to questions about images."""

    name = "answer"
    takes = frozenset({"image and text"})
    columns = pa.schema([("answers", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    settings = frozenset({"num_best"})

    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """See :class:`Operation`; best answers first."""
        images, questions = batch.views or [], _alone(batch)
        most, size = params.num_best, len(batch.ids)
        return _best("answers", model.answer(images, questions, top_k=most, batch_size=size))


class Classify(Operation):
    """Classes of images, of texts, or of sentences about two images."""

    name = "classify"
    takes = frozenset({"image", "text", "two images and text"})
    takes_pairs = True
    columns = pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    settings = frozenset({"num_best"})

    def check(self, model: PretrainedModel, kinds: Collection[Kind]) -> None:
        """See :class:`Operation`."""
        if "two images and text" in kinds:
            require(model, "classify_pairs", called=self.name)
            return
        if isinstance(model.task, VisualReasoning):
            if not kinds:
                return  # each row was a reject
            raise CannotDo(
                f"classify: {model.description} and takes two images with a sentence; give "
                "--second-image and --text, or columns of Parquet files: --second-image-column and "
                "--text-column"
            )
        super().check(model, kinds)
        wrong: Kind = "image" if isinstance(model.task, TextClassification) else "text"
        if wrong in kinds:
            instead = (
                "name texts; of a folder with other files, the Parquet files alone"
                if wrong == "image"
                else "name images"
            )
            raise CannotDo(f"classify: {model.description} and takes no {wrong}s; {instead}")

    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """See :class:`Operation`; best labels first."""
        most, size = params.num_best, len(batch.ids)
        if batch.views is not None and batch.texts is not None:
            pairs, said = batch.views, _alone(batch)
            found = model.classify_pairs(pairs, said, top_k=most, batch_size=size)
        else:
            given = batch.views if batch.views is not None else batch.texts or []
            found = model.classify(given, top_k=most, batch_size=size)
        return _best("labels", found)


class Detect(Operation):
    """Objects of images, in pixels of the images."""

    name = "detect"
    takes = frozenset({"image"})
    columns = pa.schema(
        [
            ("labels", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("boxes", pa.list_(pa.list_(pa.float32()))),
            ("masks", pa.list_(pa.string())),
            ("size", pa.list_(pa.int32())),
        ]
    )
    batch_size = 8
    settings = frozenset({"min_score"})

    def view(self, model: PretrainedModel, image: Pixels) -> Any:
        """See :class:`Operation`."""
        return model.object_view(image)

    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """See :class:`Operation`; best objects first, ``masks`` null if only boxes are found."""
        views: Sequence[View] = batch.views or []
        found = model.detect_in_views(views, min_score=params.min_score)
        has_masks = isinstance(model.task, Detection) and model.task.masks
        return {
            "labels": [[each.label for each in some] for some in found],
            "scores": [[each.score for each in some] for some in found],
            "boxes": [[list(each.box) for each in some] for some in found],
            "masks": [[each.run_lengths for each in some] if has_masks else None for some in found],
            "size": [view.annotated[::-1] for view in views],
        }


class Segment(Operation):
    """Classes of the pixels of images."""

    name = "segment"
    takes = frozenset({"image"})
    columns = pa.schema(
        [
            ("labels", pa.list_(pa.string())),
            ("fractions", pa.list_(pa.float32())),
            ("label_map", pa.binary()),
            ("size", pa.list_(pa.int32())),
        ]
    )
    batch_size = 8

    def view(self, model: PretrainedModel, image: Pixels) -> Any:
        """See :class:`Operation`."""
        return model.map_view(image)

    def apply(self, model: PretrainedModel, batch: Batch, params: ApplyParams) -> Columns:
        """See :class:`Operation`; most frequent classes first."""
        views: Sequence[MapView] = batch.views or []
        found = model.segment_views(views)
        return {
            "labels": [each.labels for each in found],
            "fractions": [each.fractions for each in found],
            "label_map": [each.png for each in found],
            "size": [view.size[::-1] for view in views],
        }


OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation
    for operation in (Embed(), Caption(), Answer(), Classify(), Detect(), Segment())
}
SETTINGS: Final = frozenset().union(*(each.settings for each in OPERATIONS.values()))
"Parameters that only some operations use."


def _alone(batch: Batch) -> list[str]:
    """Return texts of an operation that takes no pairs."""
    return [text for text in batch.texts or [] if isinstance(text, str)]


def _best(name: str, found: Sequence[Sequence[Candidate]]) -> Columns:
    return {
        name: [[label for label, _ in row] for row in found],
        "scores": [[score for _, score in row] for row in found],
    }
