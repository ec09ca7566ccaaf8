"""The health of a codebook: how many of its codes are used, and how evenly.

A code that nothing is assigned to is dead weight in the vocabulary; a vocabulary of which a few
codes take everything teaches nothing. BEiT v2 reports the share of codes in use (its table of
published tokenizers: 97% and 100%).
"""

from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

_HISTOGRAM_BINS: Final = 10


class CodeUse:
    """Counts of codes, apart for each source of images."""

    def __init__(self, num_codes: int, num_sources: int) -> None:
        self.counts = torch.zeros(num_sources, num_codes, dtype=torch.float64)

    @torch.no_grad()
    def add(self, codes: Tensor, sources: Tensor) -> None:
        """Count a batch.

        Args:
            codes: (B, N) long.
            sources: (B,) long, the source of each image.
        """
        num_codes = self.counts.shape[1]
        flat = (sources[:, None].to(codes.device) * num_codes + codes).flatten()
        self.counts += (
            torch.bincount(flat, minlength=self.counts.numel()).cpu().view_as(self.counts)
        )

    def over_workers(self) -> "CodeUse":
        """Return the counts of all workers together; every worker must call it."""
        total = CodeUse(self.counts.shape[1], self.counts.shape[0])
        total.counts = self.counts.clone()
        if dist.is_initialized() and dist.get_world_size() > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            reduced = total.counts.to(device)
            dist.all_reduce(reduced)
            total.counts = reduced.cpu()
        return total

    def numbers(self, sources: list[str]) -> dict[str, float]:
        """Return usage (share of codes) and perplexity over all, and by source."""
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
        """Return the share of all patches that each tenth of the codes takes, most used first."""
        ordered = self.counts.sum(0).sort(descending=True).values
        total = float(ordered.sum())
        return [float(part.sum()) / max(total, 1) for part in ordered.tensor_split(_HISTOGRAM_BINS)]


def usage(counts: Tensor) -> float:
    """Return the share of codes that occur: (K,) counts."""
    return float((counts > 0).double().mean())


def perplexity(counts: Tensor) -> float:
    """Return the number of evenly used codes that would be as hard to guess: (K,) counts."""
    share = counts / counts.sum().clamp(min=1)
    return float(torch.special.entr(share).sum().exp())
