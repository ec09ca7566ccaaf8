"""The head from transformers' parts against transformers' whole Mask2Former."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoBackbone,
    BackboneMixin,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.backbone_utils import BackboneConfigMixin
from transformers.modeling_outputs import BackboneOutput

from model.finetuning.segmentation.mask2former import Mask2FormerHead, config_of, semantic_scores
from tests.model.finetuning.segmentation.shapes import MASKS, NUM_CLASSES, labels

WIDTH = 24


class GivenConfig(BackboneConfigMixin, PreTrainedConfig):
    """Of a backbone that gives the maps it was given."""

    model_type = "given_maps"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stage_names = ["stem", "stage1", "stage2", "stage3", "stage4"]
        self.set_output_features_output_indices(self.stage_names[1:], None)


class Given(BackboneMixin, PreTrainedModel):
    """The maps of ``maps``, whatever the image."""

    config_class = GivenConfig
    maps: tuple[torch.Tensor, ...] = ()

    def __init__(self, config):
        super().__init__(config)
        self.num_features = [WIDTH] * 5
        self.post_init()

    def forward(self, pixel_values, **_):
        return BackboneOutput(feature_maps=self.maps)


AutoBackbone.register(GivenConfig, Given)


def maps(batch: int, side: int = 32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    return [
        torch.randn(batch, WIDTH, side // stride, side // stride, generator=rng)
        for stride in (4, 8, 16, 32)
    ]


def head() -> Mask2FormerHead:
    torch.manual_seed(0)
    made = Mask2FormerHead(WIDTH, NUM_CLASSES, MASKS).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


@pytest.fixture(scope="module")
def whole() -> Mask2FormerForUniversalSegmentation:
    config = config_of(NUM_CLASSES, MASKS)
    config.backbone_config = GivenConfig()
    made = Mask2FormerForUniversalSegmentation(config).eval()
    renamed = {
        "pixel_decoder.": "model.pixel_level_module.decoder.",
        "query_decoder.": "model.transformer_module.",
    }
    state = {}
    for name, tensor in head().state_dict().items():
        for mine, theirs in renamed.items():
            name = name.replace(mine, theirs) if name.startswith(mine) else name
        state[name] = tensor
    left = made.load_state_dict(state, strict=False)
    assert left.missing_keys == ["criterion.empty_weight"] and not left.unexpected_keys
    return made


def test_predictions_of_every_layer_are_those_of_transformers(whole):
    whole.model.pixel_level_module.encoder.maps = tuple(maps(2))
    theirs = whole(torch.zeros(2, 3, 32, 32), output_auxiliary_logits=True)
    mine = head()(maps(2))
    assert len(mine) == MASKS.query_layers + 1 == len(theirs.auxiliary_logits) + 1
    for layer, expected in zip(mine, [*theirs.auxiliary_logits, theirs], strict=True):
        for name in ("class_queries_logits", "masks_queries_logits"):
            torch.testing.assert_close(layer[name], expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_of_an_image_is_that_of_transformers_for_it_alone(whole, number):
    given = [map_[number : number + 1] for map_ in maps(3)]
    wanted = labels()[number]
    whole.model.pixel_level_module.encoder.maps = tuple(given)
    classes = torch.tensor(sorted(set(wanted.flatten().tolist()) - {255}))
    torch.manual_seed(7)
    theirs = whole(
        torch.zeros(1, 3, 32, 32),
        mask_labels=[torch.stack([(wanted == c).float() for c in classes])],
        class_labels=[classes],
    ).loss
    mine = head().losses(maps(3), labels(), [7, 7, 7])
    total = sum(loss[number] for loss in mine.values())
    torch.testing.assert_close(total, theirs.reshape(()), atol=1e-4, rtol=1e-4)


def test_losses_depend_on_the_seed_of_the_image_alone():
    network = head()
    torch.manual_seed(1)
    first = network.losses(maps(3), labels(), [1, 2, 3])
    state = torch.get_rng_state()
    torch.rand(3)
    again = network.losses(maps(3), labels(), [1, 9, 3])
    for name in ("mask", "dice"):
        assert first[name][0] == again[name][0] and first[name][1] != again[name][1]
    torch.set_rng_state(state)
    network.losses(maps(3), labels(), [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), state), "other draws are not disturbed"


def test_an_image_without_labels_teaches_that_all_queries_are_none():
    network = head()
    losses = network.losses(maps(3), labels(), [1, 2, 3])
    assert losses["mask"][2] == losses["dice"][2] == 0
    logits = [layer["class_queries_logits"][2] for layer in network(maps(3))]
    expected = sum(-F.log_softmax(each, dim=1)[:, -1].mean() for each in logits)
    torch.testing.assert_close(losses["cross_entropy"][2], 2.0 * expected)


def test_scores_are_those_that_transformers_makes_its_label_maps_of():
    processor = Mask2FormerImageProcessor()
    rng = torch.Generator().manual_seed(0)
    made = {
        "class_queries_logits": torch.randn(2, 6, NUM_CLASSES + 1, generator=rng),
        "masks_queries_logits": torch.randn(2, 6, 8, 8, generator=rng),
    }
    outputs = SimpleNamespace(**made)
    theirs = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(384, 384)] * 2, return_segmentation_scores=True
    )
    mine = semantic_scores(**made, size=(384, 384))
    for scores, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(scores, expected["segmentation_scores"])
    assert mine.min() >= 0
