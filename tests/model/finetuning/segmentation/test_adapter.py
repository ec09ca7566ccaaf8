"""ViT-Adapter: its maps, what it leaves of the encoder at first, and what it depends on."""

from dataclasses import replace

import pytest
import torch

from model import BEiT3, BEiT3Config
from model.finetuning.dense_backbone import DenseBackbone
from model.finetuning.segmentation.adapter import ViTAdapter, group
from tests.model.finetuning.segmentation.shapes import ADAPTER, CONFIG, images
from tests.model.networks import RELEASED, network


def built(config: BEiT3Config = CONFIG) -> tuple[DenseBackbone, ViTAdapter]:
    plain = network(config)
    torch.manual_seed(1)
    return DenseBackbone(plain, window=3, num_global=2), ViTAdapter(config.width, ADAPTER).eval()


@pytest.mark.parametrize(
    ("patch_size", "size"), [(8, (32, 64)), (16, (96, 32)), (14, (224, 224)), (32, (64, 32))]
)
@torch.no_grad()
def test_it_gives_maps_of_four_strides_for_patches_of_any_size(patch_size, size):
    config = replace(CONFIG, patch_size=patch_size, image_size=2 * patch_size)
    backbone, adapter = built(config)
    maps = adapter(backbone, torch.randn(2, 3, *size))
    assert [map_.shape for map_ in maps] == [
        (2, config.width, size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)
    ]


@torch.no_grad()
def test_at_first_the_encoder_is_the_pretrained_one():
    """Injectors are multiplied by 0. With other factors they change what the blocks see."""
    backbone, adapter = built()
    x, grid = backbone.embed(images())
    expected = backbone.through(x, grid, 0, CONFIG.depth)[:, 1:]
    seen = []
    adapter.extractors[-1].register_forward_hook(lambda _, args, __: seen.append(args[2]))
    adapter(backbone, images())
    torch.testing.assert_close(seen[0], expected)
    adapter.injectors[2].scale.fill_(0.5)
    adapter(backbone, images())
    assert (seen[1] - expected).abs().max() > 0.01


@torch.no_grad()
def test_each_map_has_the_patches_after_its_own_group_of_blocks():
    """What a group sees changes the maps from its own on."""
    backbone, adapter = built()
    before = adapter(backbone, images())
    scale = torch.ones(CONFIG.depth, 2, 3)
    scale[2] = 0.0  # the block of the third group
    for extractor in adapter.extractors:  # what remains are the patches themselves
        extractor.attention.output_proj.weight.zero_()
        extractor.fc2.weight.zero_()
    before = adapter(backbone, images())
    after = adapter(backbone, images(), scale)
    same = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


def test_groups_have_all_blocks_in_order():
    for depth, expected in (
        (12, [(0, 3), (3, 6), (6, 9), (9, 12)]),
        (40, [(0, 10), (10, 20), (20, 30), (30, 40)]),
        (3, [(0, 0), (0, 1), (1, 2), (2, 3)]),
    ):
        backbone = DenseBackbone(BEiT3(replace(CONFIG, depth=depth)))
        assert [group(i, backbone) for i in range(4)] == expected


@torch.no_grad()
def test_maps_of_an_image_do_not_depend_on_the_others():
    backbone, adapter = built(RELEASED)
    together = adapter.train()(backbone, images())
    alone = adapter(backbone, images()[1:2])
    for some, one in zip(together, alone, strict=True):
        torch.testing.assert_close(some[1:2], one, atol=1e-5, rtol=1e-5)


def test_every_parameter_is_trained_with_and_without_recomputing():
    gradients = []
    for kept in ("none", "selective", "full"):
        backbone, adapter = built()
        backbone.network.activation_checkpointing = kept
        with torch.no_grad():
            for injector in adapter.injectors:
                injector.scale.fill_(0.1)
        sum(map_.square().sum() for map_ in adapter(backbone, images())).backward()
        missing = {name for name, p in adapter.named_parameters() if p.grad is None}
        assert not missing
        found = {name: p.grad for name, p in adapter.named_parameters()}
        gradients.append(found | {"": backbone.network.vision.patch.weight.grad})
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, msg=name, atol=1e-5, rtol=1e-4)
