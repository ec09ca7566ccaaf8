"""BEiT-3: embeddings, the stack of Multiway blocks, and the two prediction heads.

One forward serves all uses of the paper's Figure 2: images alone, text alone, both fused, two
calls for a dual encoder, and ``attention="seq2seq"`` for captioning (a patch attends to patches, a
caption token to patches and to the tokens up to itself).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.attention_mask import Attending, attention_mask
from model.network.cache import Cache
from model.network.config import BEiT3Config, Recomputing
from model.network.input_checks import check_batch, check_cached, check_mask
from model.network.layer_norm import LAYER_NORM_EPS
from model.network.multiway import Block, Multiway, Parts, Shared, joined
from model.network.pretrained import HEADS, Pretrained

INIT_STD = 0.02


@dataclass(frozen=True)
class Encoded:
    """Hidden states of a batch."""

    hidden: Tensor
    "(B, S, D) float: class token and patches first, then text."
    image_length: int
    "Positions of the image in S: 1 + N, or 0 without images."
    layers: tuple[Tensor, ...] = ()
    "(B, S, D) after each block if ``keep_layers`` was set, otherwise empty."

    @property
    def patches(self) -> Tensor:
        """Return the hidden states of the patches, (B, N, D)."""
        return self.hidden[:, 1 : self.image_length]

    @property
    def text(self) -> Tensor:
        """Return the hidden states of the text, (B, T, D)."""
        return self.hidden[:, self.image_length :]


class VisionEmbedding(nn.Module):
    """Patch embedding, mask token, class token and learned position embeddings."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.class_token = nn.Parameter(torch.zeros(config.width))
        self.positions = nn.Parameter(torch.zeros(1 + config.num_patches, config.width))

    def forward(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """Embed images (B, 3, image_size, image_size); ``mask`` is (B, N) → (B, 1 + N, D)."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_token, x)
        x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1)
        return x + self.positions  # fp32 even under autocast: start of the residual stream


class LanguageEmbedding(nn.Module):
    """Token embedding and learned position embeddings."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.zeros(config.max_text_length, config.width))

    def forward(self, ids: Tensor, first: int, documents: Tensor | None = None) -> Tensor:
        """Embed token ids (B, T) → (B, T, D).

        Args:
            ids: (B, T) long.
            first: position of the first token.
            documents: (B, T) long, the document of each token; the positions of each document
                start at 0. None numbers the positions through the whole text.

        Raises:
            ValueError: a text is longer than the position table.
        """
        end = first + ids.shape[1]
        if end > len(self.positions):
            raise ValueError(
                f"a text of {end} tokens is longer than max_text_length {len(self.positions)}"
            )
        if documents is None:
            return self.tokens(ids) + self.positions[first:end]
        index = torch.arange(ids.shape[1], device=ids.device).expand_as(documents)
        is_start = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
        start = torch.where(is_start, index, 0).cummax(dim=1).values
        return self.tokens(ids) + self.positions[index - start]


class BEiT3(Pretrained):
    """The network with its prediction heads for text tokens and image codes."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__(config)
        self.activation_checkpointing: Recomputing = "none"
        "What the backward computes again instead of keeping it, see ``recomputing.py``."
        self.vision = VisionEmbedding(config)
        self.language = LanguageEmbedding(config)
        first_fused = config.depth - config.fusion_layers
        self.blocks = nn.ModuleList(
            Block(config, fusion=layer >= first_fused) for layer in range(config.depth)
        )
        form = Shared if config.attention == "shared" else Multiway
        self.norm = (
            form(lambda: nn.LayerNorm(config.width, LAYER_NORM_EPS)) if config.final_norm else None
        )
        self.mlm_head = nn.Linear(config.width, config.vocab_size)
        self.mim_head = nn.Linear(config.width, config.image_outputs)
        self.reset_parameters()

    def forward(
        self,
        images: Tensor | None = None,
        text_ids: Tensor | None = None,
        text_padding: Tensor | None = None,
        image_mask: Tensor | None = None,
        attention: Attending = "bidirectional",
        residual_scale: Tensor | None = None,
        cache: Cache | None = None,
        keep_layers: bool = False,
        text_documents: Tensor | None = None,
        last_token: bool = False,
    ) -> Encoded:
        """Encode images, texts or pairs.

        Args:
            images: (B, 3, image_size, image_size) float, normalized with the configuration's
                pixel_mean and pixel_std.
            text_ids: (B, T) long.
            text_padding: (B, T) bool, True = padded.
            image_mask: (B, N) bool, True = replaced by the mask token.
            attention: ``bidirectional``, or ``seq2seq`` for captioning.
            residual_scale: (depth, 2, B) float, factors of the residual branches (stochastic
                depth), drawn by the caller so that they depend on the sample alone.
            cache: keys and values of earlier ``seq2seq`` calls. This call appends to it and
                returns the hidden states of the new positions alone. Images are given in the
                first call. Texts of a later call have B rows, which all R texts of an image then
                begin with, or B * R rows, the texts of an image one after the other.
            keep_layers: also return the output of every block.
            text_documents: (B, T) long, the document of each token of packed texts. Attention
                does not cross documents, and the positions of each document start at 0.
            last_token: return the hidden state of the last token of each text alone; the last
                block then computes no other.

        Raises:
            ValueError: neither images nor texts are given, a type or size is not as above, or two
                arguments exclude each other.
        """
        check_batch(images, text_ids, attention, self.config.image_size)
        if text_documents is not None and (images is not None or cache is not None):
            raise ValueError(
                "text_documents are for texts alone; give no images and no cache with them"
            )
        if last_token and text_ids is None:
            raise ValueError("last_token is set without text_ids; give texts")
        check_mask("text_padding", text_padding, "text_ids", text_ids)
        check_mask("image_mask", image_mask, "images", images, self.config.num_patches)
        if cache is not None:
            check_cached(cache, attention, images, text_ids, text_padding)
        first = 0 if cache is None else cache.text_length
        vision = None if images is None else self.vision(images, image_mask)
        language = None if text_ids is None else self.language(text_ids, first, text_documents)
        parts: Parts = (vision, language)
        image_length = 0 if vision is None else vision.shape[1]
        text_length = 0 if language is None else language.shape[1]
        fused = vision is not None and language is not None
        device = self.language.positions.device
        if cache is not None:
            num_rows = len(joined(parts))
            mask = cache.begin_call(num_rows, image_length, text_length, device)
            fused = cache.image_length > 0
        else:
            mask = attention_mask(
                image_length,
                text_length,
                attention,
                text_padding=text_padding,
                text_documents=text_documents,
                device=device,
            )

        layers: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            scale = None if residual_scale is None else residual_scale[layer]
            past = None if cache is None else cache.layers[layer]
            last = last_token and layer == len(self.blocks) - 1
            parts = block(parts, mask, scale, fused, past, last, self.activation_checkpointing)
            if keep_layers:
                layers.append(joined(parts))
        hidden = joined(parts if self.norm is None else self.norm(parts))
        return Encoded(hidden, 0 if last_token else image_length, tuple(layers))

    def drop_heads(self) -> None:
        """Remove the prediction heads, which networks of downstream tasks do not have."""
        for head in HEADS:
            if hasattr(self, head):
                delattr(self, head)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize every parameter: as BEiT without sub-LayerNorm, as Magneto with it.

        BEiT (arXiv:2106.08254, section 2.5): truncated normal; the output matrices of layer l are
        then divided by sqrt(2 l), so that the residual stream keeps its scale at any depth.
        Magneto (arXiv:2210.06423): Xavier for attention, the default of a linear layer for experts;
        value, output and expert matrices times sqrt(ln(2 depth)); token embedding normal with
        standard deviation D^-0.5.
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
            nn.init.normal_(self.language.tokens.weight, std=self.config.width**-0.5)


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
