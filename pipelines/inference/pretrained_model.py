"""A pretrained or fine-tuned model: its network, its processor, and a method for each use.

Every method takes lists and returns results in their order; ``batch_size`` changes speed and
memory alone. The methods compute what the stages ``predict`` and ``evaluate`` compute.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model import BEiT3
from model.finetuning.task_networks import ForRetrieval, TaskNetwork
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.task import Task
from pipelines.finetune.tasks.image_classification import ImageClassification
from pipelines.finetune.tasks.nlvr2 import VisualReasoning
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.tasks.vqa import VisualQuestionAnswering
from pipelines.inference.batching import Example, Text, many, task_batches, together
from pipelines.inference.building import build_network
from pipelines.inference.processor import ImageInput, Processor
from pipelines.inference.source import Source, open_source
from pipelines.inference.uses import possible, require
from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD

T = TypeVar("T")
Floats = NDArray[np.float32]
Chooser = VisualQuestionAnswering | ImageClassification | TextClassification | VisualReasoning


class Candidate(NamedTuple):
    """One of several answers, labels or words."""

    label: str
    score: float
    "Probability; of a regression the value itself."


class PretrainedModel:
    """A model that is loaded and ready for inference."""

    def __init__(
        self,
        source: Source,
        *,
        device: str | torch.device | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        """Build the model from its parts; :meth:`from_pretrained` reads them."""
        self.source, self.precision = source, precision
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        path = source.text_tokenizer
        tokenizer = None if path is None else TextTokenizer.load(path)
        self.network: BEiT3 | TaskNetwork = build_network(source, tokenizer).to(self.device)
        self.image_tokenizer: VQKD | None = (
            None
            if source.image_tokenizer is None
            else VQKD.load(source.image_tokenizer).to(self.device)
        )
        crop_mode = "squash" if source.task is None else source.task.crop_mode
        self.processor = Processor(source.config, crop_mode=crop_mode, tokenizer=tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str | torch.device | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> Self:
        """Load a model.

        Args:
            source: an export's folder, a workdir, a file of weights, or a name on the hub; see
                ``source.py``.
            device: where the network computes; None takes a GPU if there is one.
            precision: of the forward; weights stay in fp32.

        Raises:
            NotAModel: there is no model, or it is not whole.
        """
        return cls(open_source(source), device=device, precision=precision)

    @property
    def encoder(self) -> BEiT3:
        """Return the network without the head of a task."""
        return self.network.network if isinstance(self.network, TaskNetwork) else self.network

    @property
    def task(self) -> Task | None:
        """Return what the model was fine-tuned for; None after a pretraining."""
        return self.source.task

    @property
    def labels(self) -> tuple[str, ...]:
        """Return what the model chooses from, in the order of its scores."""
        return self.source.labels

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the names of the methods that this model can do."""
        return possible(self)

    @property
    def description(self) -> str:
        """Return what the model is, in words."""
        kind = "pretrained" if self.task is None else f"fine-tuned for {self.task.name}"
        return f"{self.source.name} is {kind} and"

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

        def features(batch: TaskBatch) -> Tensor:
            assert batch.images is not None
            encoded = self.encoder(images=batch.images[:, 0])
            if isinstance(self.network, ForRetrieval):
                return self.network.vision_head(encoded.hidden[:, 0])
            return encoded.patches.mean(1)

        examples: list[Example] = [((image,), None) for image in many(images, "images")]
        return self._features(features, examples, batch_size, normalize)

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
            assert batch.text_padding is not None
            hidden = self.encoder(text_ids=batch.text_ids, text_padding=batch.text_padding).hidden
            if isinstance(self.network, ForRetrieval):
                return self.network.language_head(hidden[:, 0])
            kept = ~batch.text_padding[..., None]
            return (hidden * kept).sum(1) / kept.sum(1)

        examples: list[Example] = [((), text) for text in many(texts, "texts")]
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
        pictured, asked = many(images, "images"), many(questions, "questions")
        together(pictured, asked, ("images", "questions"))
        examples = [((image,), text) for image, text in zip(pictured, asked, strict=True)]
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
        given: list[Any] = many(inputs, "inputs")
        of_texts = isinstance(self.task, TextClassification)
        examples: list[Example] = [((), x) if of_texts else ((x,), None) for x in given]
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
        given, said = many(pairs, "pairs"), many(sentences, "sentences")
        together(given, said, ("pairs", "sentences"))
        examples = [(tuple(two), text) for two, text in zip(given, said, strict=True)]
        return self._choices(examples, top_k, batch_size)

    def _choices(
        self, examples: Sequence[Example], top_k: int, batch_size: int
    ) -> list[list[Candidate]]:
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be 1 or more")
        task, network = self.task, self.network
        assert isinstance(task, Chooser) and isinstance(network, TaskNetwork)
        labels = list(self.labels)
        found = self._run(
            lambda batch: list(task.predict(network, batch, labels, top_k)), examples, batch_size
        )
        return [
            [Candidate(*pair) for pair in zip(each.labels, each.scores, strict=True)][:top_k]
            for some in found
            for each in some
        ]

    def _features(
        self,
        features: Callable[[TaskBatch], Tensor],
        examples: Sequence[Example],
        batch_size: int,
        normalize: bool,
    ) -> Floats:
        def one_batch(batch: TaskBatch) -> Floats:
            found = features(batch)
            found = F.normalize(found, dim=-1) if normalize else found
            return found.float().cpu().numpy()

        some = list(self._run(one_batch, examples, batch_size))
        width = self.source.config.width
        return np.concatenate(some) if some else np.empty((0, width), np.float32)

    def _run(
        self, call: Callable[[TaskBatch], T], examples: Sequence[Example], batch_size: int
    ) -> Iterator[T]:
        """Yield what ``call`` returns for each batch."""
        for batch in task_batches(self.processor, examples, batch_size):
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
            ):
                yield call(batch.to(self.device))
