"""BEiT-3: one Multiway Transformer for images, texts and pairs, and its masked pretraining.

Shape letters used throughout: B batch, N patches, T text tokens, S = 1 + N + T sequence,
D width, H heads, V vocabulary rows, K codes, C substreams.
"""

from model.network.beit3 import BEiT3, Encoded
from model.network.config import BEiT3Config

__all__ = ["BEiT3", "BEiT3Config", "Encoded"]
