"""What a worker computes of a slice: predictions of masked positions, or features."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from model import BEiT3
from model.training import randomness
from model.training.batch import Stream
from orchestration import Dataset, Output, Slice
from pipelines.pretrain.evaluation import features, shown
from pipelines.pretrain.evaluation.features import FeatureNetworks
from pipelines.pretrain.evaluation.grounding import grounding_rows
from pipelines.pretrain.evaluation.inputs import EvaluationInputs
from pipelines.pretrain.evaluation.likelihood import likelihood_rows
from pipelines.pretrain.evaluation.masked import masked_rows
from pipelines.pretrain.evaluation.params import Params
from pipelines.pretrain.evaluation.patch_drawings import MeanPatches
from pipelines.pretrain.evaluation.slices import (
    FEATURES,
    GROUNDING,
    LIKELIHOOD,
    MASKED,
    SHOWN_IMAGES,
    SHOWN_WORDS,
)
from pipelines.pretrain.samples import FeedParams
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

_PURPOSE: Final = 36
"Of random numbers."


class Predictor:
    """Holds the network and processes slices; a table is named by the use of its slice."""

    def __init__(
        self,
        params: Params,
        feed: FeedParams,
        seed: int,
        load: Callable[[], BEiT3],
        text: Dataset,
        inputs: Mapping[Stream, Dataset],
    ) -> None:
        """Load the network.

        Args:
            params: of the evaluation; a GPU is used if they reserve one.
            feed: how the training's samples are built.
            seed: of the recipe.
            load: returns the network.
            text: output of the stage ``text_tokenizer``.
            inputs: token dataset of each stream.
        """
        torch.set_num_threads(params.cpus_per_actor)
        device = torch.device("cuda" if params.gpus_per_actor else "cpu")
        self.network = load().to(device)
        self.params, self.seed = params, int(randomness.bits(seed, _PURPOSE))
        self.networks = FeatureNetworks(self.network, self.seed, device)
        tokenizer = TextTokenizer.load(text.fetch(MODEL_FILE))
        self.inputs = EvaluationInputs(self.network.config, feed, seed, tokenizer, inputs, device)
        self._uses: Mapping[str, Callable[[Slice], Mapping[str, pa.Table]]] = {
            MASKED: self._masked,
            GROUNDING: self._grounding,
            LIKELIHOOD: self._likelihood,
            FEATURES: self._features,
            SHOWN_IMAGES: self._shown_images,
            SHOWN_WORDS: self._shown_words,
        }

    @torch.no_grad()
    def __call__(self, slice_: Slice) -> Output:
        """Process one slice."""
        tables = self._uses[slice_.payload["use"]](slice_)
        rows = slice_.payload.get("captions", slice_.payload["rows"])
        return Output(num_rows_in=len(rows), tables=tables)

    def _masked(self, slice_: Slice) -> dict[str, pa.Table]:
        rows, numbers = self._rows(slice_)
        batch = self.inputs.batch(slice_.payload["stream"], rows, numbers)
        return {MASKED: masked_rows(self.network, batch, rows["source"].to_pylist())}

    def _grounding(self, slice_: Slice) -> dict[str, pa.Table]:
        numbers = np.array(slice_.payload["rows"])
        pairs = self.inputs.pairs(self.inputs.rows("pair", "held_out", numbers), numbers)
        return {GROUNDING: grounding_rows(self.network, pairs)}

    def _likelihood(self, slice_: Slice) -> dict[str, pa.Table]:
        numbers = np.array(slice_.payload["rows"])
        pairs = self.inputs.pairs(self.inputs.rows("pair", "held_out", numbers), numbers)
        captions, mask_id = slice_.payload["captions"], self.inputs.mask_id
        size = self.params.batch_size
        scored = likelihood_rows(self.network, pairs, numbers.tolist(), captions, mask_id, size)
        return {LIKELIHOOD: scored}

    def _features(self, slice_: Slice) -> dict[str, pa.Table]:
        rows, numbers = self._rows(slice_)
        stream, sources = slice_.payload["stream"], rows["source"].to_pylist()
        origin = features.Origin(stream, slice_.payload["table"], numbers.tolist())
        if stream == "text":
            batch = self.inputs.batch(stream, rows, numbers)
            texts = features.probed_texts(batch, numbers, self.seed)
            found = self.networks.of_texts(texts.ids, texts.padding, texts.documents)
            return {features.TEXTS: features.text_table(found, texts.orders, sources, origin)}
        if stream == "pair":
            batch = self.inputs.pairs(rows, numbers).batch
        else:
            batch = self.inputs.batch(stream, rows, numbers)
        assert batch.images is not None
        labels = rows["label"].to_pylist() if stream == "image" else [None] * len(sources)
        found = self.networks.of_images(batch.images)
        tables = {features.IMAGES: features.image_table(found, labels, sources, origin)}
        if stream == "pair":
            assert batch.text_targets is not None
            found = self.networks.of_texts(batch.text_targets, batch.text_padding)
            orders = [features.INTACT] * len(sources)
            tables[features.TEXTS] = features.text_table(found, orders, sources, origin)
        return tables

    def _shown_images(self, slice_: Slice) -> dict[str, pa.Table]:
        stream, (rows, numbers) = slice_.payload["stream"], self._rows(slice_)
        crops, codes = self.inputs.crops(stream, rows, numbers)
        about = rows.select(["sample_id", "source"]).to_pylist()
        if stream == "pair":
            batch = self.inputs.pairs(rows, numbers).batch
            assert batch.text_targets is not None
            for each, ids in zip(about, batch.text_targets.tolist(), strict=True):
                each["caption"] = self.inputs.text.decode(ids)
        else:
            batch = self.inputs.batch(stream, rows, numbers)
        means = None if codes is None else self._mean_patches(slice_)
        return {shown.IMAGES: shown.image_rows(self.network, batch, crops, means, about)}

    def _mean_patches(self, slice_: Slice) -> MeanPatches:
        """Average the patches of training images by their codes."""
        stream, numbers = slice_.payload["stream"], np.array(slice_.payload["averaged_rows"])

        def batches() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
            for some in np.array_split(numbers, -(-len(numbers) // self.params.batch_size)):
                crops, codes = self.inputs.crops(
                    stream, self.inputs.rows(stream, "train", some), some
                )
                assert codes is not None
                yield crops, codes

        return MeanPatches(batches(), self.network.config.num_codes)

    def _shown_words(self, slice_: Slice) -> dict[str, pa.Table]:
        rows, numbers = self._rows(slice_)
        crops, _ = self.inputs.crops("pair", rows, numbers)
        about = rows.select(["sample_id", "source"]).to_pylist()
        pairs = self.inputs.pairs(rows, numbers)
        return {shown.WORDS: shown.word_rows(self.network, pairs, crops, self.inputs.text, about)}

    def _rows(self, slice_: Slice) -> tuple[pa.Table, NDArray[np.int64]]:
        numbers = np.array(slice_.payload["rows"])
        payload = slice_.payload
        return self.inputs.rows(payload["stream"], payload["table"], numbers), numbers
