"""The quantizer of BEiT v2: nearest code on the unit sphere, a codebook that follows its features.

The codebook is no parameter. It starts from k-means over real features, then each code moves
towards the mean of what is assigned to it (exponential moving average); codes that nothing is
assigned to for long are set anew on features of the batch. All statistics are summed over
workers, so the codebook is the same on each.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_KMEANS_ROUNDS = 10


class Embedding(nn.Module):
    """The codebook and the moving average of how often each code is used."""

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
    """Turns features into codes."""

    def __init__(
        self, num_codes: int, dim: int, decay: float, revive_below: float, kmeans: bool = True
    ) -> None:
        """Make a codebook that waits for its first features.

        Args:
            num_codes: K.
            dim: of a code.
            decay: of the moving averages.
            revive_below: a code whose share of use stays under this part of an even share is set
                anew; 0 never does.
            kmeans: start from k-means over the first batch; if not, from random codes.
        """
        super().__init__()
        self.embedding = Embedding(num_codes, dim, kmeans)
        self.decay = decay
        self.revive_below = revive_below

    @property
    def num_codes(self) -> int:
        """K."""
        return self.embedding.weight.shape[0]

    def assign(self, z: Tensor) -> Tensor:
        """(…, dim) → (…,) long: the code with the largest cosine."""
        return (F.normalize(z, dim=-1) @ self.embedding.weight.T).argmax(-1)

    def forward(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize, and in training let the codebook follow.

        Args:
            z: (B, N, dim) features.
            generator: for k-means and revival; the same on every worker.

        Returns:
            (quantized (B, N, dim) with straight-through gradient, codes (B, N), commitment loss).
        """
        z = F.normalize(z.to(self.embedding.weight.dtype), dim=-1)
        flat = z.detach().reshape(-1, z.shape[-1])
        if self.training and not bool(self.embedding.initted):
            self._start(_gather(flat), generator)
        codes = self.assign(flat)
        quantized = self.embedding.weight[codes].view_as(z)
        if self.training:
            self._follow(flat, codes, generator)
        commitment = F.mse_loss(quantized, z)
        return z + (quantized - z).detach(), codes.view(z.shape[:-1]), commitment

    @torch.no_grad()
    def _start(self, features: Tensor, generator: torch.Generator) -> None:
        """Spherical k-means; a cluster that becomes empty keeps its center."""
        num = self.num_codes
        centers = features[_choose(len(features), num, generator)]
        for _ in range(_KMEANS_ROUNDS):
            nearest = (features @ centers.T).argmax(-1)
            count = torch.bincount(nearest, minlength=num)[:, None]
            total = torch.zeros_like(centers).index_add_(0, nearest, features)
            centers = torch.where(count > 0, F.normalize(total, dim=-1), centers)
        self.embedding.weight.copy_(centers)
        # An even start: with zeros every code would look dead in the first steps.
        self.embedding.cluster_size.fill_(len(features) / num)
        self.embedding.initted.fill_(1)

    @torch.no_grad()
    def _follow(self, features: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        weight, size = self.embedding.weight, self.embedding.cluster_size
        count = torch.bincount(codes, minlength=self.num_codes).to(weight.dtype)
        total = torch.zeros_like(weight).index_add_(0, codes, features)
        _all_reduce(count)
        _all_reduce(total)
        size.mul_(self.decay).add_(count, alpha=1 - self.decay)
        mean = F.normalize(total, dim=-1)
        moved = F.normalize(weight * self.decay + mean * (1 - self.decay), dim=-1)
        weight.copy_(torch.where((count > 0)[:, None], moved, weight))
        if self.revive_below > 0:
            even = float(size.sum()) / self.num_codes
            dead = (size < self.revive_below * even).nonzero().squeeze(-1)
            if len(dead):
                pool = _gather(features)
                weight[dead] = pool[_choose(len(pool), len(dead), generator)]
                size[dead] = even


def _choose(population: int, number: int, generator: torch.Generator) -> Tensor:
    """Distinct places while there are enough, else repeated ones."""
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
