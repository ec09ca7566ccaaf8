"""The backbone of dense prediction against the plain encoder and against loops over windows."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model import BEiT3, BEiT3Config
from model.finetuning.dense_backbone import DenseBackbone, keep_vision
from model.finetuning.released import ENCODER_PREFIX
from model.finetuning.starting import fit_encoder, load_given
from model.finetuning.task_networks import ForImageClassification
from model.network.layouts import StartMismatch
from model.network.loading import load
from tests.model.networks import RELEASED, SHARED, network, random_images

SIZES = [(32, 32), (48, 72), (104, 40)]


def images_of(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def scales(depth: int, batch: int) -> torch.Tensor:
    return torch.rand(depth, 2, batch, generator=torch.Generator().manual_seed(4)) * 2


@pytest.mark.parametrize("config", [SHARED, RELEASED, replace(RELEASED, final_norm=False)])
@torch.no_grad()
def test_with_one_window_it_is_the_plain_encoder(config):
    plain, images = network(config), random_images(config)
    scale = scales(config.depth, len(images))
    expected = plain(images=images, residual_scale=scale).patches.transpose(1, 2)
    kept = deepcopy(plain)
    keep_vision(kept)
    for window in (config.grid, 1000):
        found = DenseBackbone(kept, window=window, num_global=1)(images, scale)
        assert found.shape == (2, config.width, config.grid, config.grid)
        torch.testing.assert_close(found.flatten(2), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_at_another_resolution_it_is_the_encoder_with_interpolated_positions():
    plain = network(RELEASED)
    larger = BEiT3(replace(RELEASED, image_size=72)).eval()
    load(larger, plain.state_dict())
    images = images_of(72, 72)
    found = DenseBackbone(plain)(images)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), larger(images=images).patches)


def looped(backbone: DenseBackbone, images: torch.Tensor) -> torch.Tensor:
    """Each window of each image alone, without padding, block by block."""
    network = backbone.network
    maps = []
    for image in images:
        x, (rows, columns) = backbone.embed(image[None])
        token, patches = x[0, 0], x[0, 1:].reshape(rows, columns, -1)
        copies = None
        for number, block in enumerate(network.blocks):
            if number in backbone.global_blocks:
                if copies is not None:
                    token, copies = torch.stack(list(copies.values())).mean(0), None
                sequence = torch.cat([token[None], patches.flatten(0, 1)])
                found = block((sequence[None], None), None, None, False)[0][0]
                token, patches = found[0], found[1:].reshape(patches.shape)
                continue
            after, w = patches.clone(), backbone.window
            corners = [(i, j) for i in range(0, rows, w) for j in range(0, columns, w)]
            copies = copies or dict.fromkeys(corners, token)
            for i, j in corners:
                window = patches[i : i + w, j : j + w]
                sequence = torch.cat([copies[i, j][None], window.flatten(0, 1)])
                found = block((sequence[None], None), None, None, False)[0][0]
                copies[i, j] = found[0]
                after[i : i + w, j : j + w] = found[1:].reshape(window.shape)
            patches = after
        normed = network.norm((patches.flatten(0, 1)[None], None))[0][0]
        maps.append(normed.T.reshape(-1, rows, columns))
    return torch.stack(maps)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 3, 4])
@torch.no_grad()
def test_windows_are_those_of_plain_loops(size, window):
    config = replace(RELEASED, depth=5)
    backbone = DenseBackbone(network(config), window=window, num_global=2)
    assert backbone.global_blocks == (1, 4)
    images = images_of(*size)
    torch.testing.assert_close(backbone(images), looped(backbone, images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_blocks_may_be_applied_in_parts_and_each_sample_has_its_own_depth():
    config = replace(RELEASED, depth=6)
    backbone = DenseBackbone(network(config), window=3, num_global=3)
    images, scale = images_of(64, 48), scales(6, 2)
    whole = backbone(images, scale)
    x, grid = backbone.embed(images)
    for first in (0, 2, 4):
        x = backbone.through(x, grid, first, first + 2, scale)
    torch.testing.assert_close(backbone.feature_map(x, grid), whole)
    alone = [backbone(images[i : i + 1], scale[:, :, i : i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.cat(alone), whole)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(3, (0, 1, 2)), (12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (40, (9, 19, 29, 39))],
)
def test_blocks_over_the_whole_image_stand_at_even_places(depth, expected):
    """ViTDet's configurations name the first three of 12 and of 24 blocks."""
    with torch.device("meta"):
        made = BEiT3(replace(RELEASED, depth=depth))
    assert DenseBackbone(made).global_blocks == expected


@pytest.mark.parametrize("recomputing", ["full", "selective"])
def test_recomputing_blocks_changes_no_gradient(recomputing):
    gradients = []
    for kept in ("none", recomputing):
        made = network(replace(SHARED, depth=4))
        keep_vision(made)
        made.activation_checkpointing = kept
        DenseBackbone(made, window=3, num_global=2)(images_of(40, 32)).square().mean().backward()
        gradients.append({name: p.grad for name, p in made.named_parameters()})
    unused = {name for name, gradient in gradients[0].items() if gradient is None}
    heads = {f"{head}.{kind}" for head in ("mlm_head", "mim_head") for kind in ("weight", "bias")}
    assert unused == {"vision.mask_token", *heads}
    for name in gradients[0].keys() - unused:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], msg=name)


@pytest.mark.parametrize("shape", [(2, 3, 32, 33), (2, 1, 32, 32), (3, 32, 32)])
def test_images_that_are_no_whole_patches_are_refused(shape):
    with pytest.raises(ValueError, match=r"give \(B, 3, height, width\), both multiples of patch"):
        DenseBackbone(network(RELEASED))(torch.zeros(shape))


def test_a_network_of_images_alone_takes_the_encoder_of_a_whole_one():
    whole = network(SHARED)
    weights, _ = fit_encoder(whole.state_dict(), SHARED)
    made = ForImageClassification(BEiT3(SHARED), 5)
    keep_vision(made.network)
    lines = load_given(made, weights)
    for name, tensor in made.network.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], msg=name)
    assert any(line.startswith("not used: network.blocks.0.experts.language") for line in lines)
    del weights[f"{ENCODER_PREFIX}vision.class_token"]
    with pytest.raises(StartMismatch, match=r"network\.vision\.class_token"):
        load_given(made, weights)


def test_a_resized_kernel_gives_an_enlarged_image_the_embedding_of_the_image_itself():
    """Which is FlexiViT's definition; an interpolated kernel is far from it."""
    config = BEiT3Config.named("tiny", image_size=56, patch_size=14, vocab_size=60, num_codes=20)
    whole = network(config)
    wanted = replace(config, image_size=64, patch_size=16)
    weights, report = fit_encoder(whole.state_dict(), wanted)
    assert report.adapted == ("vision.patch.weight: resized from 14x14 to 16x16 pixels",)
    kernel, name = whole.vision.patch.weight, "network.vision.patch.weight"
    patch = torch.randn(7, 3, 14, 14)
    larger = F.interpolate(patch, size=(16, 16), mode="bicubic", antialias=True)
    expected = F.conv2d(patch, kernel)
    torch.testing.assert_close(F.conv2d(larger, weights[name]), expected, atol=1e-3, rtol=1e-3)
    plain = F.interpolate(kernel.detach(), size=(16, 16), mode="bicubic", antialias=True)
    assert (F.conv2d(larger, plain) - expected).abs().max() > 0.05 * expected.abs().max()
    outline = {name: tensor.to("meta") for name, tensor in whole.state_dict().items()}
    assert fit_encoder(outline, wanted)[0][name].shape == (config.width, 3, 16, 16)
