"""BEiT-3: embeddings, the stack of Multiway blocks, and the two prediction heads.

One forward serves all uses of the paper's Figure 2: images alone, text alone, both fused, two
calls for a dual encoder, and ``attention="seq2seq"`` for captioning (patches see patches, a
caption token sees patches and what stands to its left).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.network.cache import Cache
from model.network.config import BEiT3Config
from model.network.layer_norm import LAYER_NORM_EPS
from model.network.multiway import Block, Multiway, Parts, Shared, joined

INIT_STD = 0.02


@dataclass(frozen=True)
class Encoded:
    """What the network gives for a batch."""

    hidden: Tensor
    "(B, S, D): class token and patches first, then text."
    image_length: int
    "1 + N, or 0 without images."
    layers: tuple[Tensor, ...] = ()
    "(B, S, D) after each block, where asked for."

    @property
    def patches(self) -> Tensor:
        """(B, N, D)."""
        return self.hidden[:, 1 : self.image_length]

    @property
    def text(self) -> Tensor:
        """(B, T, D)."""
        return self.hidden[:, self.image_length :]


class VisionEmbedding(nn.Module):
    """Patches as a strided convolution, a mask token, a class token, learned positions."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.class_token = nn.Parameter(torch.zeros(config.width))
        self.positions = nn.Parameter(torch.zeros(1 + config.num_patches, config.width))

    def forward(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """(B, 3, H, W), mask (B, N) with True = masked → (B, 1 + N, D)."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_token, x)
        x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1)
        return x + self.positions  # fp32 even under autocast: the residual stream begins here


class LanguageEmbedding(nn.Module):
    """Words and learned positions."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.zeros(config.max_text_length, config.width))

    def forward(self, ids: Tensor, first: int, documents: Tensor | None = None) -> Tensor:
        """(B, T), the position of the first token → (B, T, D).

        With ``documents`` (B, T) positions begin anew where a document does.

        Raises:
            ValueError: there are not so many positions.
        """
        end = first + ids.shape[1]
        if end > len(self.positions):
            raise ValueError(f"texts of {end} tokens, the network takes {len(self.positions)}")
        if documents is None:
            return self.words(ids) + self.positions[first:end]
        place = torch.arange(ids.shape[1], device=ids.device).expand_as(documents)
        begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
        start = torch.where(begins, place, 0).cummax(dim=1).values
        return self.words(ids) + self.positions[place - start]


class BEiT3(nn.Module):
    """The network with its heads for words and codes."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        "Compute a block's activations again in the backward instead of keeping them."
        self.vision = VisionEmbedding(config)
        self.language = LanguageEmbedding(config)
        first_fused = config.depth - config.fusion_layers
        self.blocks = nn.ModuleList(
            Block(config, fusion=layer >= first_fused) for layer in range(config.depth)
        )
        form = Shared if config.attention == "shared" else Multiway
        self.norm = form(lambda: nn.LayerNorm(config.width, LAYER_NORM_EPS))
        self.mlm_head = nn.Linear(config.width, config.vocabulary)
        self.mim_head = nn.Linear(config.width, config.codes)
        self.reset_parameters()

    def forward(
        self,
        images: Tensor | None = None,
        text_ids: Tensor | None = None,
        text_padding: Tensor | None = None,
        image_mask: Tensor | None = None,
        attention: Literal["bidirectional", "seq2seq"] = "bidirectional",
        residual_scale: Tensor | None = None,
        cache: Cache | None = None,
        keep_layers: bool = False,
        text_documents: Tensor | None = None,
    ) -> Encoded:
        """Encode images, texts or pairs.

        Args:
            images: (B, 3, image_size, image_size) float, normalized as the config says.
            text_ids: (B, T) long.
            text_padding: (B, T) bool, True = padded.
            image_mask: (B, N) bool, True = masked.
            attention: who sees whom.
            residual_scale: (depth, 2, B) factors of the residual branches: stochastic depth,
                drawn by the caller so that it depends on the sample and not on the batch.
            cache: for generation with ``seq2seq``: what earlier calls gave; this call adds to it
                and gives hidden states of what is new alone. Give images in the first call.
            keep_layers: return every layer's output too.
            text_documents: (B, T) long, for packed texts: the document that each token belongs to.
                No attention crosses documents, and positions begin anew in each.

        Raises:
            ValueError: neither images nor texts are given, or something does not fit.
        """
        if images is None and text_ids is None:
            raise ValueError("give images, texts or both")
        if text_documents is not None and (images is not None or cache is not None):
            raise ValueError("documents are kept apart in texts alone, without images or cache")
        if cache is not None:
            _check_cached(cache, attention, images, text_padding)
        first = 0 if cache is None else cache.text_length
        vision = None if images is None else self._embed(images, image_mask)
        language = None if text_ids is None else self.language(text_ids, first, text_documents)
        parts: Parts = (vision, language)
        image_length = 0 if vision is None else vision.shape[1]
        text_length = 0 if language is None else language.shape[1]
        fused = vision is not None and language is not None
        seen = (0, 0)
        if cache is not None:
            seen = cache.take(image_length, text_length)
            fused = cache.image_length > 0
        mask = attention_mask(
            seen[0] + image_length,
            seen[1] + text_length,
            text_padding,
            attention,
            self.mlm_head.weight.device,
            seen=sum(seen),
        )
        if text_documents is not None:
            same = (text_documents[:, :, None] == text_documents[:, None, :])[:, None]
            mask = same if mask is None else mask & same

        layers: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            scale = None if residual_scale is None else residual_scale[layer]
            past = None if cache is None else cache.layers[layer]
            if self.recompute and torch.is_grad_enabled():
                parts = checkpoint(block, parts, mask, scale, fused, past, use_reentrant=False)
            else:
                parts = block(parts, mask, scale, fused, past)
            if keep_layers:
                layers.append(joined(parts))
        return Encoded(joined(self.norm(parts)), image_length, tuple(layers))

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        size = self.config.image_size
        if images.shape[-2:] != (size, size):
            raise ValueError(f"images of {tuple(images.shape[-2:])}, the network takes {size}")
        embedded: Tensor = self.vision(images, mask)
        return embedded

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize: as BEiT without sub-LayerNorm, as Magneto with it.

        BEiT (paper, appendix): truncated normal, then the output matrices of layer l divided by
        sqrt(2 l), so that the residual stream keeps its scale however deep it is.
        Magneto: Xavier for attention and the default of a linear layer for experts; value, output
        and expert matrices times sqrt(ln 2 depth); word embeddings normal with D^-0.5.
        """
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2.0, b=2.0)
                if not isinstance(module, nn.Embedding) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (
            self.vision.mask_token,
            self.vision.class_token,
            self.vision.positions,
            self.language.positions,
        ):
            nn.init.trunc_normal_(token, std=INIT_STD, a=-2.0, b=2.0)
        for layer, block in enumerate(self.blocks, start=1):
            assert isinstance(block, Block)
            if self.config.subln:
                _init_magneto(block, self.config.depth)
            else:
                for name, parameter in block.named_parameters():
                    if name.endswith(".weight") and (".out." in name or ".fc2." in name):
                        parameter.div_(math.sqrt(2.0 * layer))
        if self.config.subln:
            nn.init.normal_(self.language.words.weight, std=self.config.width**-0.5)


def attention_mask(
    image_length: int,
    text_length: int,
    text_padding: Tensor | None,
    attention: str,
    device: torch.device,
    seen: int = 0,
) -> Tensor | None:
    """Return who may attend to whom, broadcastable to (B, H, S, S), or None for everyone.

    Args:
        image_length: of the vision part.
        text_length: T.
        text_padding: (B, T) bool, True = padded.
        attention: ``bidirectional`` or ``seq2seq``.
        device: of the result.
        seen: positions at the front that are keys only, as they were queries before.
    """
    mask: Tensor | None = None
    if text_padding is not None:
        mask = F.pad(~text_padding, (image_length, 0), value=True)[:, None, None, :]
    if attention == "seq2seq":
        key = torch.arange(image_length + text_length, device=device)
        query = key[seen:, None]
        allowed = (key < image_length) | ((key <= query) & (query >= image_length))
        mask = allowed if mask is None else mask & allowed
    return mask


def _check_cached(
    cache: Cache, attention: str, images: Tensor | None, text_padding: Tensor | None
) -> None:
    if attention != "seq2seq":
        raise ValueError("a cache serves attention='seq2seq' only: nothing seen may change later")
    if images is not None and cache.length:
        raise ValueError("give images in the first call of a generation")
    if text_padding is not None:
        raise ValueError("a cache holds texts of one length: no padding")


def _init_magneto(block: Block, depth: int) -> None:
    gain = math.sqrt(math.log(2 * depth))
    for name, module in block.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if ".qkv." in f".{name}.":
            for i, part in enumerate(module.weight.chunk(3)):
                nn.init.xavier_uniform_(part, gain=1 / math.sqrt(2))
                if i == 2:
                    part.mul_(gain)
            continue
        if ".out." in f".{name}.":
            nn.init.xavier_uniform_(module.weight)
        else:
            module.reset_parameters()
        module.weight.mul_(gain)
        if module.bias is not None:
            module.bias.mul_(gain)
