"""The quantizer against plain loops in float64: k-means, dead codes, several workers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.processes import run_processes
from tokenizer.quantizer import Quantizer

ROUNDS = 10
DIM = 4
CODES = 6


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.sum(x * x))


def nearest(feature: np.ndarray, codebook: list[np.ndarray]) -> int:
    """Nearest by distance, as in BEiT v2; codes are unit vectors."""
    distances = [float(np.sum((feature - code) ** 2)) for code in codebook]
    return distances.index(min(distances))


def kmeans(features: list[np.ndarray], first: list[int]) -> list[np.ndarray]:
    """Lloyd's rounds on the sphere, from the features at ``first``."""
    centers = [features[i] for i in first]
    for _ in range(ROUNDS):
        members: list[list[np.ndarray]] = [[] for _ in centers]
        for feature in features:
            cosines = [float(feature @ center) for center in centers]
            members[cosines.index(max(cosines))].append(feature)
        centers = [
            unit(sum(mine[1:], mine[0]) / len(mine)) if mine else center
            for mine, center in zip(members, centers, strict=True)
        ]
    return centers


def as_list(z: torch.Tensor) -> list[np.ndarray]:
    return [unit(row) for row in z.double().numpy().reshape(-1, z.shape[-1])]


def test_fifty_steps_equal_plain_loops_in_float64():
    """Restates BEiT v2's k-means, assignment, loss and moving average."""
    torch.manual_seed(0)
    decay = 0.9
    quantizer = Quantizer(CODES, DIM, decay, dead_code_threshold=0).double().train()
    batches = torch.randn(51, 5, 8, DIM).double()
    first = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:CODES].tolist()
    codebook = kmeans(as_list(batches[0]), first)
    sizes = np.full(CODES, 40 / CODES)
    generator = torch.Generator().manual_seed(1)
    for z in batches:
        quantized, codes, commitment = quantizer(z, generator)
        features = as_list(z)
        chosen = [nearest(feature, codebook) for feature in features]
        assert codes.flatten().tolist() == chosen
        np.testing.assert_allclose(
            quantized.reshape(-1, DIM).numpy(), [codebook[c] for c in chosen], atol=1e-12
        )
        errors = [(codebook[c] - f) ** 2 for c, f in zip(chosen, features, strict=True)]
        np.testing.assert_allclose(float(commitment), np.mean(errors), rtol=1e-12)
        for code in range(CODES):
            mine = [f for f, c in zip(features, chosen, strict=True) if c == code]
            sizes[code] = decay * sizes[code] + (1 - decay) * len(mine)
            if mine:
                mean = unit(sum(mine[1:], mine[0]) / len(mine))
                codebook[code] = unit(decay * codebook[code] + (1 - decay) * mean)
        np.testing.assert_allclose(quantizer.embedding.weight.numpy(), codebook, atol=1e-12)
        np.testing.assert_allclose(quantizer.embedding.cluster_size.numpy(), sizes, atol=1e-12)


def test_without_k_means_the_initial_codes_are_random_unit_vectors():
    quantizer = Quantizer(CODES, DIM, 0.9, 0, kmeans=False).train()
    before = quantizer.embedding.weight.clone()
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(CODES))
    quantizer.eval()(torch.randn(2, 5, DIM), torch.Generator())
    assert torch.equal(quantizer.embedding.weight, before)


def codebook_after(steps: torch.Tensor, part: slice) -> torch.Tensor:
    """Train on this worker's samples of each step, replacing dead codes."""
    quantizer = Quantizer(16, DIM, 0.9, dead_code_threshold=0.3).double().train()
    generator = torch.Generator().manual_seed(3)
    for z in steps:
        quantizer(z[part], generator)
    return quantizer.embedding.weight


def _work(rank: int, folder: str, steps: torch.Tensor) -> None:
    half = steps.shape[1] // 2
    torch.save(codebook_after(steps, slice(rank * half, (rank + 1) * half)), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_workers_have_the_codebook_of_one(tmp_path):
    torch.manual_seed(0)
    steps = torch.randn(20, 4, 9, DIM).double()
    run_processes(2, _work, str(tmp_path), steps)
    books = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert torch.equal(books[0], books[1])
    torch.testing.assert_close(books[0], codebook_after(steps, slice(None)), atol=1e-12, rtol=0)


def test_the_gradient_passes_straight_through():
    quantizer = Quantizer(4, 3, 0.9, 0).train()
    z = torch.randn(2, 5, 3, requires_grad=True)
    quantized, _, _ = quantizer(z, torch.Generator().manual_seed(0))
    (quantized * torch.ones(3)).sum().backward()
    expected = torch.autograd.grad(F.normalize(z, dim=-1).sum(), z)[0]
    torch.testing.assert_close(z.grad, expected)


def test_a_dead_code_is_replaced_by_a_feature_only_above_a_threshold_of_0():
    for dead_code_threshold, alive in ((0.0, False), (0.5, True)):
        quantizer = Quantizer(4, 2, 0.5, dead_code_threshold).train()
        generator = torch.Generator().manual_seed(0)
        quantizer(F.normalize(torch.randn(1, 64, 2), dim=-1), generator)
        quantizer.embedding.weight[3] = torch.tensor([-1.0, 0.0])
        for _ in range(10):  # nothing lies near the last code
            z = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.9, 0.3]]).repeat(20, 1)[None]
            quantizer(z, generator)
        assert (float(quantizer.embedding.weight[3, 0]) > 0) is alive


def test_evaluation_does_not_change_the_codebook():
    quantizer = Quantizer(4, 3, 0.9, 0.5).train()
    generator = torch.Generator().manual_seed(0)
    quantizer(torch.randn(2, 5, 3), generator)
    before = quantizer.embedding.weight.clone()
    quantizer.eval()(torch.randn(2, 5, 3), generator)
    assert torch.equal(quantizer.embedding.weight, before)


def test_k_means_takes_its_features_evenly_from_all_batches():
    torch.manual_seed(0)
    batches = [F.normalize(torch.randn(12, DIM), dim=-1) for _ in range(3)]
    quantizer = Quantizer(CODES, DIM, 0.9, 0)
    quantizer.initialize(batches, torch.Generator().manual_seed(1))
    taken = torch.cat([batch[i::3] for i, batch in enumerate(batches)])
    one = Quantizer(CODES, DIM, 0.9, 0)
    one.initialize([taken], torch.Generator().manual_seed(1))
    assert torch.equal(quantizer.embedding.weight, one.embedding.weight)
    first = torch.randperm(12, generator=torch.Generator().manual_seed(1))[:CODES].tolist()
    np.testing.assert_allclose(
        one.embedding.weight.numpy(), kmeans(as_list(taken), first), atol=1e-6
    )


def test_k_means_over_batches_of_different_classes_covers_all_classes():
    # Each batch shows one direction; a start from the first batch alone would miss the others.
    directions = torch.eye(DIM)[:3]
    batches = [F.normalize(d + 0.1 * torch.randn(60, DIM), dim=-1) for d in directions]
    quantizer = Quantizer(12, DIM, 0.9, 0)
    quantizer.initialize(batches, torch.Generator().manual_seed(0))
    cosines = quantizer.embedding.weight @ directions.T
    assert set(cosines.argmax(-1).tolist()) == {0, 1, 2}
