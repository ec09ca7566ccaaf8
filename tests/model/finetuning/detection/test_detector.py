"""The whole detector: losses of a batch and of its images, what is learned, several scales."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model.finetuning.detection.multiscale import ScaledImage, detect_multiscale
from model.finetuning.detection.settings import Choice
from tests.model.finetuning.detection.scenes import (
    IMAGES,
    SIZES,
    detector,
    images,
    joined,
    objects,
)

SEEDS = [11, 12, 13]
LOW = Choice(min_score=0.0, most=20)


def test_the_losses_of_a_batch_are_those_of_its_images_one_by_one():
    network = detector()
    together = network.losses(images(), joined(IMAGES), SEEDS)
    for i, some in enumerate(IMAGES):
        alone = network.losses(images()[i : i + 1], joined([some]), SEEDS[i : i + 1])
        for name, loss in together.items():
            torch.testing.assert_close(loss[i], alone[name][0], atol=1e-4, rtol=1e-4, msg=name)


def test_every_parameter_is_trained_also_without_any_object():
    for some, idle in ((IMAGES, set()), ([objects([], [])] * 3, {"box", "mask"})):
        network = detector()
        losses = network.losses(images(), joined(some), SEEDS)
        sum(loss.sum() for loss in losses.values()).backward()
        for name, loss in losses.items():
            assert loss.isfinite().all()
            if any(word in name for word in idle):
                assert (loss == 0).all(), name
        missing = {name for name, p in network.named_parameters() if p.grad is None}
        assert missing == {"network.vision.mask_token"}
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_objects_without_an_annotated_mask_are_left_out_of_the_mask_loss():
    network = detector()
    both = IMAGES[0]
    first = replace(both, has_mask=torch.tensor([True, False]))
    spoiled = replace(first, masks=torch.stack([both.masks[0], ~both.masks[1]]))
    losses = [network.losses(images(1), joined([some]), [1]) for some in (first, spoiled, both)]
    torch.testing.assert_close(losses[0]["mask"], losses[1]["mask"])
    assert losses[0]["mask"] != losses[2]["mask"]
    none = replace(both, has_mask=torch.tensor([False, False]))
    assert network.losses(images(1), joined([none]), [1])["mask"].tolist() == [0.0]


def test_without_a_mask_head_there_are_boxes_alone():
    network = detector(replace(SIZES, with_masks=False))
    bare = [replace(some, masks=torch.zeros(len(some), 0, 0)) for some in IMAGES]
    assert "mask" not in network.losses(images(), joined(bare), SEEDS)
    assert all(found.masks is None for found in network.detect(images(), [(64, 64)] * 3, LOW))


def test_detections_stay_within_the_image_without_its_padding():
    for found in detector().detect(images(2), [(64, 64), (40, 24)], LOW)[1:]:
        assert len(found.boxes) == 20
        assert (found.boxes[:, 2] <= 24).all() and (found.boxes[:, 3] <= 40).all()
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.masks.shape == (20, 28, 28)


@pytest.mark.parametrize("side", [32, 48, 96])
def test_images_of_whole_strides_have_detections_and_others_are_refused(side):
    network = detector()
    if side % 32:
        with pytest.raises(ValueError, match="pad both sides to a multiple of 32, which is four"):
            network.detect(images(1, side), [(side, side)], LOW)
    else:
        assert len(network.detect(images(1, side), [(side, side)], LOW)) == 1


def test_several_scales_of_one_image_are_joined():
    network = detector()
    image, size = images(1)[0], (64, 64)
    plain = ScaledImage(image, size, flipped=False)
    (alone,) = network.detect(image[None], [size], LOW)
    once = detect_multiscale(network, [plain], size, LOW)
    torch.testing.assert_close(once.boxes, alone.boxes)
    torch.testing.assert_close(once.masks, alone.masks)
    # A view that is the mirrored image has the mirrored candidates of a network of that image.
    mirrored = ScaledImage(image.flip(2), size, flipped=True)
    (other,) = network.detect(image.flip(2)[None], [size], LOW)
    flipped = detect_multiscale(network, [mirrored], size, LOW)
    torch.testing.assert_close(flipped.boxes[:, 0], 64 - other.boxes[:, 2])
    torch.testing.assert_close(flipped.boxes[:, [1, 3]], other.boxes[:, [1, 3]])
    torch.testing.assert_close(flipped.masks, other.masks.flip(2))
    larger = ScaledImage(F.interpolate(image[None], scale_factor=2)[0], (128, 128), flipped=False)
    both = detect_multiscale(network, [plain, larger], size, LOW)
    assert (both.boxes <= 64).all() and both.masks.shape == (20, 28, 28)
    assert both.scores.min() >= once.scores.min()
