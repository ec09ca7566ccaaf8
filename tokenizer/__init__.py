"""The tokenizers: text to token ids (SentencePiece) and images to codes (VQ-KD).

- ``text.py``, ``packing.py``: the text tokenizer and its training; packing of documents.
- ``vqkd.py``: the image tokenizer, of an encoder and decoder (``vit.py``) and a ``quantizer.py``.
- ``teachers.py``: the frozen networks whose features VQ-KD learns to predict.
- ``code_usage.py``: codebook usage and perplexity.
- ``beit_v2.py``: the file layout of the published image tokenizers.
- ``weight_files.py``: reading weights that other programs saved.

Only strings, arrays and tensors reach this package. It imports torch, timm and sentencepiece, never
Ray, MLflow or another top-level package of the project. Reading datasets, the training loop and
reports belong to ``pipelines/tokens``. The shape letters in docstrings are those of ``model``.
"""

from typing import TYPE_CHECKING, Any

from tokenizer.text import TextTokenizer

if TYPE_CHECKING:
    from tokenizer.vqkd import VQKD, VQKDConfig

__all__ = ["VQKD", "TextTokenizer", "VQKDConfig"]


def __getattr__(name: str) -> Any:
    """Import VQ-KD on first use, so that the text tokenizer alone does not import torch."""
    if name not in ("VQKD", "VQKDConfig"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tokenizer import vqkd

    return getattr(vqkd, name)
