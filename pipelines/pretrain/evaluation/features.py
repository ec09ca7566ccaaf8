"""Frozen features of images and texts, and the features that they are compared with.

=========  ==================================================  ==================================
kind       of an image                                         of a text
=========  ==================================================  ==================================
trained    mean of the patches' last hidden states             mean of the tokens' last hidden
                                                               states
untrained  the same of a network with random weights           the same
plain      its pixels, averaged to a grid of 16 x 16           how often each piece occurs
=========  ==================================================  ==================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model import BEiT3
from model.training import randomness
from model.training.batch import MicroBatch, Stream
from tokenizer.text import FIRST_PIECE

Kind = Literal["trained", "untrained", "plain"]
KINDS: Final[tuple[Kind, ...]] = ("trained", "untrained", "plain")
IMAGES: Final = "image_features"
TEXTS: Final = "text_features"
"Names of the tables of features."
INTACT: Final = "intact"
EXCHANGED: Final = "exchanged"
_GRID: Final = 16
_NUM_COUNTS: Final = 1024
"Pieces are counted in so many bins; of larger vocabularies several pieces share one."
_PROBED_TOKENS: Final = 32
"Tokens of a packed text of which features are computed."
_EXCHANGE: Final = 34
"Purpose of random numbers."


class FeatureNetworks:
    """The trained network, and an untrained one of the same form."""

    def __init__(self, trained: BEiT3, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            untrained = BEiT3(trained.config).eval()
        self._networks: Mapping[Kind, BEiT3] = {
            "trained": trained,
            "untrained": untrained.to(device),
        }

    def of_images(self, images: Tensor) -> dict[Kind, Tensor]:
        """Return the features (B, D) of images (B, 3, H, W), by kind."""
        found = {kind: n(images=images).patches.mean(1) for kind, n in self._networks.items()}
        side = min(_GRID, images.shape[-1])
        return {**found, "plain": F.adaptive_avg_pool2d(images, side).flatten(1)}

    def of_texts(
        self, ids: Tensor, padding: Tensor | None, documents: Tensor | None = None
    ) -> dict[Kind, Tensor]:
        """Return the features (B, D) of token ids (B, T), by kind."""
        kept = torch.ones_like(ids, dtype=torch.bool) if padding is None else ~padding
        weight = kept[..., None] / kept.sum(1)[:, None, None]
        found: dict[Kind, Tensor] = {}
        for kind, network in self._networks.items():
            encoded = network(text_ids=ids, text_padding=padding, text_documents=documents)
            found[kind] = (encoded.text * weight).sum(1)
        counts = torch.zeros(len(ids), _NUM_COUNTS, device=ids.device)
        return {**found, "plain": counts.scatter_add_(1, ids % _NUM_COUNTS, kept.float())}


@dataclass(frozen=True)
class Origin:
    """The rows of a token table of which features are computed."""

    stream: Stream
    table: str
    "``train`` or ``held_out``."
    rows: Sequence[int]
    "Row numbers within the table."


def image_table(
    features: Mapping[Kind, Tensor],
    labels: Sequence[str | None],
    sources: Sequence[str],
    origin: Origin,
) -> pa.Table:
    """Return features (B, D) of images as a table of B rows."""
    return _table(features, {"label": labels, "source": sources}, origin)


def text_table(
    features: Mapping[Kind, Tensor],
    orders: Sequence[str],
    sources: Sequence[str],
    origin: Origin,
) -> pa.Table:
    """Return features (B, D) of texts as a table of B rows."""
    return _table(features, {"label": orders, "source": sources}, origin)


def features_of(table: pa.Table, kind: Kind) -> Tensor:
    """Return the features (N, D) of a kind in a table of features."""
    values = table[kind].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(values.reshape(table.num_rows, -1).copy())


@dataclass(frozen=True)
class ProbedTexts:
    """Beginnings of texts, in half of which two neighboring pieces are exchanged."""

    ids: Tensor
    "(B, T) long, without masks."
    orders: list[str]
    "``intact`` or ``exchanged``, of each text."
    padding: Tensor | None
    "(B, T) bool, True = padded."
    documents: Tensor | None
    "(B, T) long, the document of each token, where attention does not cross documents."


def probed_texts(batch: MicroBatch, numbers: NDArray[np.int64], seed: int) -> ProbedTexts:
    """Exchange two neighboring pieces in half of the texts of a micro-batch.

    Whether a text is intact is what a probe must tell: the task "bigram shift" of SentEval
    (arXiv:1805.01070, section 2), which the pieces without their order cannot answer.

    Args:
        batch: packed texts.
        numbers: (B,) row numbers, which with the seed decide what is exchanged.
        seed: of the draws.
    """
    assert batch.text_targets is not None
    ids = batch.text_targets[:, :_PROBED_TOKENS].clone()
    left, right = ids[:, :-1], ids[:, 1:]
    possible = (left >= FIRST_PIECE) & (right >= FIRST_PIECE) & (left != right)
    wanted = randomness.uniform(seed, _EXCHANGE, numbers, 0) < 0.5
    where = randomness.uniform(seed, _EXCHANGE, numbers, 1)
    orders = []
    for row, (may, u, is_wanted) in enumerate(zip(possible, where, wanted, strict=True)):
        places = may.nonzero()[:, 0]
        is_exchanged = bool(is_wanted) and len(places) > 0
        if is_exchanged:
            place = int(places[int(u * len(places))])
            ids[row, [place, place + 1]] = ids[row, [place + 1, place]]
        orders.append(EXCHANGED if is_exchanged else INTACT)
    padding, documents = (
        None if tensor is None else tensor[:, :_PROBED_TOKENS]
        for tensor in (batch.text_padding, batch.text_documents)
    )
    return ProbedTexts(ids, orders, padding, documents)


def _table(
    features: Mapping[Kind, Tensor], texts: Mapping[str, Sequence[str | None]], origin: Origin
) -> pa.Table:
    columns: dict[str, pa.Array] = {n: pa.array(v, pa.string()) for n, v in texts.items()}
    columns["stream"] = pa.array([origin.stream] * len(origin.rows), pa.string())
    columns["table"] = pa.array([origin.table] * len(origin.rows), pa.string())
    columns["row"] = pa.array(origin.rows, pa.int64())
    for kind, values in features.items():
        flat = values.float().cpu().numpy()
        columns[kind] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return pa.table(columns)
