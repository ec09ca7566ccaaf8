"""The encoder with the head of a downstream task, in the form that the authors released.

Parameters of a head have the names of the released files. New heads begin as the authors' do:
truncated normal of 0.02, biases 0; some are then multiplied by 0.001, so that fine-tuning begins
with nearly equal scores. A network of an evaluation is called with the same arguments.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.beit3 import INIT_STD, BEiT3

BOS: Final = 0
"Id of ``<s>`` in every vocabulary of the project, as in XLM-R."
EOS: Final = 2
"Id of ``</s>``."
FIRST_PIECE: Final = 4
"Id of the first piece of a vocabulary; ``<unk>`` is before it."
_TEMPERATURE: Final = 0.07
_SMALL: Final = 1e-3
"Factor of the heads that begin with nearly equal scores."


class Pooler(nn.Module):
    """LayerNorm, linear layer and tanh on the first position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool hidden states (B, S, D) → (B, D)."""
        return torch.tanh(self.dense(self.norm(hidden[:, 0])))


class NormedMLP(nn.Module):
    """LayerNorm, linear layer, LayerNorm, GELU, linear layer."""

    def __init__(self, width_in: int, width: int, width_out: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width_in)
        self.dense1 = nn.Linear(width_in, width)
        self.norm2 = nn.LayerNorm(width)
        self.dense2 = nn.Linear(width, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width_in) → (B, width_out)."""
        hidden: Tensor = self.dense2(F.gelu(self.norm2(self.dense1(self.norm1(x)))))
        return hidden


class TaskNetwork(nn.Module):
    """Base of the networks: an encoder without prediction heads."""

    def __init__(self, network: BEiT3) -> None:
        """Take over a network; its prediction heads are removed."""
        super().__init__()
        network.drop_heads()
        self.network = network

    @torch.no_grad()
    def _begin(self, *heads: nn.Module, small: bool = False) -> None:
        """Initialize new heads."""
        for module in (module for head in heads for module in head.modules()):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2.0, b=2.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if small:
                    module.weight.mul_(_SMALL)


class ForRetrieval(TaskNetwork):
    """Two encoders with one set of attention weights: features of images and of texts."""

    def __init__(self, network: BEiT3) -> None:
        super().__init__(network)
        width = network.config.width
        self.vision_head = nn.Linear(width, width, bias=False)
        self.language_head = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / _TEMPERATURE)))
        "Logarithm of the factor of the scores; learned and not limited."
        self._begin(self.vision_head, self.language_head)

    def encode_images(self, images: Tensor, residual_scale: Tensor | None = None) -> Tensor:
        """Return features (B, D) of length 1 of images (B, 3, H, W)."""
        hidden = self.network(images=images, residual_scale=residual_scale).hidden
        return F.normalize(self.vision_head(hidden[:, 0]), dim=-1)

    def encode_texts(
        self, ids: Tensor, padding: Tensor | None = None, residual_scale: Tensor | None = None
    ) -> Tensor:
        """Return features (B, D) of length 1 of texts (B, T), whose padding is (B, T) bool."""
        hidden = self.network(
            text_ids=ids, text_padding=padding, residual_scale=residual_scale
        ).hidden
        return F.normalize(self.language_head(hidden[:, 0]), dim=-1)


class ForVisualQuestionAnswering(TaskNetwork):
    """Scores of a fixed list of answers, from the class token of image and question."""

    def __init__(self, network: BEiT3, num_answers: int) -> None:
        super().__init__(network)
        width = network.config.width
        self.pooler = Pooler(width)
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.GELU(),
            nn.Linear(2 * width, num_answers),
        )
        self._begin(self.pooler, self.head)

    def forward(
        self,
        images: Tensor,
        ids: Tensor,
        padding: Tensor | None = None,
        residual_scale: Tensor | None = None,
    ) -> Tensor:
        """Return scores (B, answers) of images (B, 3, H, W) and questions (B, T)."""
        encoded = self.network(
            images=images, text_ids=ids, text_padding=padding, residual_scale=residual_scale
        )
        scores: Tensor = self.head(self.pooler(encoded.hidden))
        return scores


class ForVisualReasoning(TaskNetwork):
    """Whether a sentence is true of two images, from the first token of each modality."""

    def __init__(self, network: BEiT3, num_labels: int = 2) -> None:
        super().__init__(network)
        width = network.config.width
        self.head = NormedMLP(4 * width, 2 * width, num_labels)
        self._begin(self.head, small=True)

    def forward(
        self,
        images: Tensor,
        ids: Tensor,
        padding: Tensor | None = None,
        residual_scale: Tensor | None = None,
    ) -> Tensor:
        """Return scores (B, labels) of image pairs (B, 2, 3, H, W) and sentences (B, T).

        ``residual_scale`` is (depth, 2, 2B): of all first images, then of all second ones.
        """
        both = images.transpose(0, 1).flatten(0, 1)
        encoded = self.network(
            images=both,
            text_ids=ids.repeat(2, 1),
            text_padding=None if padding is None else padding.repeat(2, 1),
            residual_scale=residual_scale,
        )
        features = torch.cat([encoded.hidden[:, 0], encoded.text[:, 0]], dim=-1)
        scores: Tensor = self.head(torch.cat(features.chunk(2), dim=-1))
        return scores


class ForImageClassification(TaskNetwork):
    """Scores of a fixed list of classes, from the mean of the patches."""

    def __init__(self, network: BEiT3, num_classes: int) -> None:
        super().__init__(network)
        width = network.config.width
        self.fc_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self._begin(self.head, small=True)

    def forward(self, images: Tensor, residual_scale: Tensor | None = None) -> Tensor:
        """Return scores (B, classes) of images (B, 3, H, W)."""
        patches = self.network(images=images, residual_scale=residual_scale).patches
        scores: Tensor = self.head(self.fc_norm(patches.mean(dim=1)))
        return scores


class ForCaptioning(TaskNetwork):
    """Scores of the words of captions: patches attend to patches, a token to what precedes it."""

    def __init__(self, network: BEiT3, mask_id: int) -> None:
        """Build the network.

        Args:
            network: pretrained.
            mask_id: id of [MASK] in the vocabulary, which follows the last piece.

        Raises:
            ValueError: the vocabulary has no such row.
        """
        super().__init__(network)
        if not EOS < mask_id < network.config.vocab_size:
            raise ValueError(
                f"mask_id is {mask_id}, the network has {network.config.vocab_size} rows of tokens"
            )
        self.mask_id = mask_id
        self.mlm_head = nn.Linear(network.config.width, network.config.vocab_size)
        self._begin(self.mlm_head)

    def forward(
        self,
        images: Tensor,
        ids: Tensor,
        positions: Tensor,
        padding: Tensor | None = None,
        residual_scale: Tensor | None = None,
    ) -> Tensor:
        """Return scores (M, V) of the tokens at some positions of captions.

        Args:
            images: (B, 3, H, W).
            ids: (B, T) long, captions after masking, with ``<s>`` and ``</s>``.
            positions: (M,) long, numbers of tokens in the flattened ``ids``.
            padding: (B, T) bool, True = padded.
            residual_scale: (depth, 2, B), see the network's forward.
        """
        encoded = self.network(
            images=images,
            text_ids=ids,
            text_padding=padding,
            attention="seq2seq",
            residual_scale=residual_scale,
        )
        # index_select instead of an index: its backward adds rows without sorting the indices.
        asked = encoded.text.flatten(0, 1).index_select(0, positions)
        scores: Tensor = self.mlm_head(asked)
        return scores


class ForTextClassification(TaskNetwork):
    """Scores of labels of a sentence or a pair of sentences, from its first token (GLUE)."""

    def __init__(self, network: BEiT3, num_labels: int) -> None:
        """Build the network; a regression has one label."""
        super().__init__(network)
        width = network.config.width
        self.pooler = Pooler(width)
        self.head = nn.Linear(width, num_labels)
        self._begin(self.pooler, self.head)

    def forward(
        self, ids: Tensor, padding: Tensor | None = None, residual_scale: Tensor | None = None
    ) -> Tensor:
        """Return scores (B, labels) of texts (B, T)."""
        encoded = self.network(text_ids=ids, text_padding=padding, residual_scale=residual_scale)
        scores: Tensor = self.head(self.pooler(encoded.hidden))
        return scores
