"""Text to ids (SentencePiece) and images to codes (VQ-KD). Free of Ray and MLflow."""

from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD, VQKDConfig

__all__ = ["VQKD", "TextTokenizer", "VQKDConfig"]
