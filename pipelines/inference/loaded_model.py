"""A model that is loaded: its network, its processor, its parts, and the run of a batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model import BEiT3
from model.finetuning.finite import NotFinite, require_finite
from model.finetuning.task_networks import ForRetrieval, TaskNetwork
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.task import Task
from pipelines.inference.batching import Example, task_batches
from pipelines.inference.building import build_image_tokenizer, build_network
from pipelines.inference.onnx_export import write_onnx
from pipelines.inference.parts import Source
from pipelines.inference.processor import Processor
from pipelines.inference.saving import save
from pipelines.inference.source import open_source
from pipelines.inference.uses import CannotDo, possible, require
from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD

Precision = Literal["fp32", "bf16"]
T = TypeVar("T")
Floats = NDArray[np.float32]


class LoadedModel:
    """A model that is loaded and ready for inference."""

    def __init__(
        self,
        source: Source,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Build the model from its parts; :meth:`from_pretrained` reads them."""
        if precision not in get_args(Precision):
            raise ValueError(f"precision is {precision!r}; give one of {get_args(Precision)}")
        self.precision = precision
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        path = source.text_tokenizer
        tokenizer = None if path is None else TextTokenizer.load(path)
        self.network: BEiT3 | TaskNetwork = build_network(source, tokenizer).to(self.device)
        self.source = replace(source, state={})  # the network has them now
        image_tokenizer = build_image_tokenizer(source)
        self.image_tokenizer: VQKD | None = image_tokenizer and image_tokenizer.to(self.device)
        crop_mode = "squash" if source.task is None else source.task.crop_mode
        self.processor = Processor(source.config, crop_mode=crop_mode, tokenizer=tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        tokenizer: str | Path | None = None,
        labels: str | Path | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load a model.

        Args:
            source: an export's folder, a workdir, a file of weights, or a name on the hub; see
                ``source.py``.
            tokenizer: SentencePiece model of the texts, for weights that come without theirs.
            labels: file of the labels that the head scores (``answer2label.txt``, or one in a
                line), for a file of weights, which has none.
            device: where the network computes; None takes a GPU if there is one.
            precision: of the forward; weights stay in fp32.

        Raises:
            NotAModel: there is no model, or it is not whole.
        """
        return cls(open_source(source, tokenizer, labels), device=device, precision=precision)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as the stage ``export`` does; :meth:`from_pretrained` reads it.

        Raises:
            OSError: the folder has files, a file stands in its place, or it cannot be written.
        """
        save(folder, self.source, self.network)

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
        return f"{self.source.name} is {kind}"

    def image_features(self, images: Tensor) -> Tensor:
        """Return features (B, D) of normalized images (B, 3, H, W), of any length."""
        encoded = self.encoder(images=images)
        if isinstance(self.network, ForRetrieval):
            of_head: Tensor = self.network.vision_head(encoded.hidden[:, 0])
            return of_head
        return encoded.patches.mean(1)

    def text_features(self, ids: Tensor, padding: Tensor) -> Tensor:
        """Return features (B, D) of texts (B, T), whose padding is (B, T) bool, of any length."""
        hidden = self.encoder(text_ids=ids, text_padding=padding).hidden
        if isinstance(self.network, ForRetrieval):
            of_head: Tensor = self.network.language_head(hidden[:, 0])
            return of_head
        kept = ~padding[..., None]
        return (hidden * kept).sum(1) / kept.sum(1)

    def export_onnx(self, folder: str | Path) -> list[Path]:
        """Write the image and the text encoder as ONNX files, see ``onnx_export.py``.

        Raises:
            CannotDo: the model finds objects or classes of pixels, and has no such encoders.
        """
        require(self, "embed_images", called="export_onnx")
        return write_onnx(self, folder)

    def _features(
        self,
        features: Callable[[TaskBatch], Tensor],
        examples: Sequence[Example],
        batch_size: int,
        normalize: bool,
    ) -> Floats:
        def one_batch(batch: TaskBatch) -> Floats:
            found = features(batch).float()
            lengths = found.norm(dim=-1) if normalize else found  # 0 if a length overflows
            require_finite(lengths.cpu().numpy(), "features")
            return (F.normalize(found, dim=-1) if normalize else found).cpu().numpy()

        some = list(self._run(one_batch, examples, batch_size))
        width = self.source.config.width
        return np.concatenate(some) if some else np.empty((0, width), np.float32)

    def _run(
        self, call: Callable[[TaskBatch], T], examples: Sequence[Example], batch_size: int
    ) -> Iterator[T]:
        """Yield what ``call`` returns for each batch of examples, see :meth:`_computed`."""
        return self._computed(call, task_batches(self.processor, examples, batch_size))

    def _computed(
        self, call: Callable[[TaskBatch], T], batches: Iterable[TaskBatch]
    ) -> Iterator[T]:
        """Yield what ``call`` returns for each batch.

        Raises:
            CannotDo: the weights give no finite numbers.
        """
        for batch in batches:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
            ):
                try:
                    found = call(batch.to(self.device))
                except NotFinite as error:
                    raise CannotDo(f"{self.description}, but its {error}") from None
                yield found
