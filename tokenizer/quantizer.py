"""The vector quantizer of BEiT v2: the nearest code on the unit sphere, an EMA codebook.

The codebook is a buffer, not a parameter. It is initialized by k-means over features; then each
code moves towards the mean of the features assigned to it (exponential moving average). A code that
is rarely used is replaced by a feature of the batch. All statistics are summed over workers, so the
codebook is the same on each.
"""

from collections.abc import Iterable
from typing import Final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_KMEANS_ROUNDS: Final = 10
_ROWS_AT_ONCE: Final = 16_384
"Features that k-means compares with all centers at once; it bounds the memory."


class Embedding(nn.Module):
    """The codebook (K, dim) and the moving average of the number of features of each code (K,)."""

    weight: Tensor
    cluster_size: Tensor
    initted: Tensor

    def __init__(self, num_codes: int, dim: int, kmeans: bool) -> None:
        super().__init__()
        start = torch.zeros(num_codes, dim) if kmeans else torch.randn(num_codes, dim)
        self.register_buffer("weight", F.normalize(start, dim=-1))
        self.register_buffer("cluster_size", torch.full((num_codes,), float(not kmeans)))
        self.register_buffer("initted", torch.full((1,), float(not kmeans)))


class Quantizer(nn.Module):
    """Assigns a code to each feature and, in training, updates the codebook."""

    def __init__(
        self,
        num_codes: int,
        dim: int,
        ema_decay: float,
        dead_code_threshold: float,
        kmeans: bool = True,
    ) -> None:
        """Create the codebook.

        Args:
            num_codes: K.
            dim: dimensions of a code.
            ema_decay: decay of the moving averages per step.
            dead_code_threshold: fraction of an even share of the features; a code whose moving
                average falls below it is replaced. 0 replaces none.
            kmeans: initialize by k-means, over the features of :meth:`initialize` or, without that
                call, of the first training batch; otherwise by random codes.
        """
        super().__init__()
        self.embedding = Embedding(num_codes, dim, kmeans)
        self.ema_decay = ema_decay
        self.dead_code_threshold = dead_code_threshold

    @property
    def num_codes(self) -> int:
        """Return K."""
        return self.embedding.weight.shape[0]

    def assign(self, z: Tensor) -> Tensor:
        """Return the code with the largest cosine: (…, dim) → (…,) long."""
        return (F.normalize(z, dim=-1) @ self.embedding.weight.T).argmax(-1)

    def forward(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize features and, in training, update the codebook.

        Args:
            z: (B, N, dim) features, any norm.
            generator: random numbers of k-means and of replaced codes; the same on every worker.

        Returns:
            (quantized features (B, N, dim) with straight-through gradient, codes (B, N) long,
            scalar commitment loss).
        """
        z = F.normalize(z.to(self.embedding.weight.dtype), dim=-1)
        flat = z.detach().reshape(-1, z.shape[-1])
        if self.training and not bool(self.embedding.initted):
            self.initialize([flat], generator)
        codes = self.assign(flat)
        quantized = self.embedding.weight[codes].view_as(z)
        if self.training:
            self._update(flat, codes, generator)
        commitment = F.mse_loss(quantized, z)
        return z + (quantized - z).detach(), codes.view(z.shape[:-1]), commitment

    @torch.no_grad()
    def initialize(self, batches: Iterable[Tensor], generator: torch.Generator) -> None:
        """Start the codebook by spherical k-means; a cluster that becomes empty keeps its center.

        Of k batches each gives every k-th feature, so that k-means costs as much as for one.

        Args:
            batches: (…, dim) features of this worker, any norm; equally many on every worker.
            generator: the same on every worker.
        """
        dim = self.embedding.weight.shape[1]
        normal = [F.normalize(z.to(self.embedding.weight.dtype), dim=-1) for z in batches]
        gathered = [_gather(z.reshape(-1, dim)) for z in normal]
        features = torch.cat([z[i :: len(gathered)] for i, z in enumerate(gathered)])
        num = self.num_codes
        centers = features[_choose(len(features), num, generator)]
        for _ in range(_KMEANS_ROUNDS):
            nearest = torch.cat(
                [(some @ centers.T).argmax(-1) for some in features.split(_ROWS_AT_ONCE)]
            )
            count = torch.bincount(nearest, minlength=num)[:, None]
            total = torch.zeros_like(centers).index_add_(0, nearest, features)
            centers = torch.where(count > 0, F.normalize(total, dim=-1), centers)
        self.embedding.weight.copy_(centers)
        # Even counts: with zeros every code would look dead in the first steps.
        self.embedding.cluster_size.fill_(len(features) / num)
        self.embedding.initted.fill_(1)

    @torch.no_grad()
    def _update(self, features: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        weight, size = self.embedding.weight, self.embedding.cluster_size
        count = torch.bincount(codes, minlength=self.num_codes).to(weight.dtype)
        total = torch.zeros_like(weight).index_add_(0, codes, features)
        _all_reduce(count)
        _all_reduce(total)
        size.mul_(self.ema_decay).add_(count, alpha=1 - self.ema_decay)
        mean = F.normalize(total, dim=-1)
        moved = F.normalize(weight * self.ema_decay + mean * (1 - self.ema_decay), dim=-1)
        weight.copy_(torch.where((count > 0)[:, None], moved, weight))
        if self.dead_code_threshold > 0:
            even = float(size.sum()) / self.num_codes
            dead = (size < self.dead_code_threshold * even).nonzero().squeeze(-1)
            if len(dead):
                pool = _gather(features)
                weight[dead] = pool[_choose(len(pool), len(dead), generator)]
                size[dead] = even


def _choose(population: int, number: int, generator: torch.Generator) -> Tensor:
    """Return ``number`` row numbers, distinct if the population is large enough."""
    order = torch.randperm(population, generator=generator)
    return order.repeat(-(-number // population))[:number]


def _all_reduce(tensor: Tensor) -> None:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)


def _gather(tensor: Tensor) -> Tensor:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
