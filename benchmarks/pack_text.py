"""Packing documents against SentencePiece alone, on the same texts in one run.

    python benchmarks/pack_text.py

Prints tokens per second of both, alternating, and the ratio of their medians.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sentencepiece as spm

from dataprep.miniweb.grammar import document, random_scene
from tokenizer.packing import pack
from tokenizer.text import TextTokenizer, train

NUM_DOCUMENTS = 20_000
LENGTH = 128
ROUNDS = 7


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    texts = [document(random_scene(rng), rng) for _ in range(NUM_DOCUMENTS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spm.model"
        path.write_bytes(train(texts[:2000], vocab_size=170, character_coverage=0.9995))
        ours = TextTokenizer.load(path)
        raw = spm.SentencePieceProcessor(model_file=str(path))
    num_tokens = sum(map(len, raw.encode(texts)))
    seconds: dict[str, list[float]] = {"sentencepiece": [], "pack": []}
    for _ in range(ROUNDS):
        seconds["sentencepiece"].append(timed(lambda: raw.encode(texts)))
        seconds["pack"].append(timed(lambda: pack(*ours.encode_flat(texts), LENGTH)))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        sys.stdout.write(f"{name:<14} {num_tokens / value / 1e6:6.2f} M tokens/s\n")
    ratio = medians["sentencepiece"] / medians["pack"]
    sys.stdout.write(f"packing runs at {ratio:.2f}x of SentencePiece alone\n")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
