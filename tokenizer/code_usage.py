"""Codebook usage and perplexity: how many codes are used, and how evenly.

An unused code wastes an output of the MIM head; a codebook of which a few codes cover nearly all
patches makes the pretraining target trivial. BEiT v2 publishes the usage of its tokenizers.
"""

from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

_HISTOGRAM_BINS: Final = 10


class CodeCounts:
    """Number of patches of each code, counted per source of images."""

    def __init__(self, num_codes: int, num_sources: int) -> None:
        self.counts = torch.zeros(num_sources, num_codes, dtype=torch.float64)

    @torch.no_grad()
    def add(self, codes: Tensor, sources: Tensor) -> None:
        """Count the codes of a batch.

        Args:
            codes: (B, N) long, below K.
            sources: (B,) long, the index of each image's source.
        """
        num_codes = self.counts.shape[1]
        flat = (sources[:, None].to(codes.device) * num_codes + codes).flatten()
        self.counts += (
            torch.bincount(flat, minlength=self.counts.numel()).cpu().view_as(self.counts)
        )

    def add_over_workers(self, codes: Tensor, sources: Tensor) -> None:
        """Count the codes of the batches of all workers; every worker must call it."""
        batch = CodeCounts(self.counts.shape[1], self.counts.shape[0])
        batch.add(codes, sources)
        if dist.is_initialized() and dist.get_world_size() > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            reduced = batch.counts.to(device)
            dist.all_reduce(reduced)
            batch.counts = reduced.cpu()
        self.counts += batch.counts

    def numbers(self, sources: list[str]) -> dict[str, float]:
        """Return usage, perplexity and the number of dead codes over all sources, and by source."""
        total = self.counts.sum(0)
        numbers = {
            "codebook_usage": usage(total),
            "codebook_perplexity": perplexity(total),
            "num_dead_codes": float((total == 0).sum()),
        }
        for source, counts in zip(sources, self.counts, strict=True):
            numbers[f"codebook_usage/{source}"] = usage(counts)
            numbers[f"codebook_perplexity/{source}"] = perplexity(counts)
        return numbers

    def histogram(self) -> list[float]:
        """Return the fraction of all patches in each tenth of the codes, most used codes first."""
        ordered = self.counts.sum(0).sort(descending=True).values
        total = float(ordered.sum())
        return [float(part.sum()) / max(total, 1) for part in ordered.tensor_split(_HISTOGRAM_BINS)]


def usage(counts: Tensor) -> float:
    """Return the fraction of codes that occur, from counts (K,)."""
    return float((counts > 0).double().mean())


def perplexity(counts: Tensor) -> float:
    """Return the exponential of the entropy of the codes, from counts (K,); at most K."""
    probabilities = counts / counts.sum().clamp(min=1)
    return float(torch.special.entr(probabilities).sum().exp())
