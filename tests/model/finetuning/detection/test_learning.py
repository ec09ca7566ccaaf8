"""A small detector learns to find what is drawn: all of its heads together, with their losses."""

import pytest
import torch
from torchvision.ops import box_iou

from model.finetuning.detection.masks import pasted
from model.finetuning.detection.settings import Choice
from model.finetuning.detection.targets import Targets
from tests.model.finetuning.detection.scenes import detector, joined, objects

STEPS, BATCH, LR = 300, 8, 4e-3
MAX_GRAD_NORM = 3.0
NUM_TESTED = 10


def scene(generator: torch.Generator) -> tuple[torch.Tensor, Targets]:
    """A dark and a bright rectangle on gray noise; the class is the brightness."""
    image = torch.randn(3, 64, 64, generator=generator) * 0.1
    boxes, classes = [], []
    for class_, half in ((0, 0), (1, 32)):
        x, y = (int(torch.randint(1, 10, (), generator=generator)) for _ in range(2))
        w, h = (int(torch.randint(14, 22, (), generator=generator)) for _ in range(2))
        box = [half + x, x + y, min(half + x + w, 64), x + y + h]
        image[:, box[1] : box[3], box[0] : box[2]] += 2.0 if class_ else -2.0
        boxes.append([float(v) for v in box])
        classes.append(class_)
    return image, joined([objects(boxes, classes)])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_it_learns_to_find_rectangles_with_masks():
    network, generator = detector().train(), torch.Generator().manual_seed(5)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LR * min((step + 1) / 10, 1, 2 * (1 - step / STEPS))
        drawn = [scene(generator) for _ in range(BATCH)]
        targets = joined([each.objects for _, each in drawn])
        seeds = range(BATCH * step, BATCH * (step + 1))
        losses = network.losses(torch.stack([image for image, _ in drawn]), targets, seeds)
        optimizer.zero_grad()
        (sum(loss.sum() for loss in losses.values()) / BATCH).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimizer.step()
    network.eval()
    overlaps = []
    for _ in range(NUM_TESTED):
        image, wanted = scene(generator)
        (found,) = network.detect(image[None], [(64, 64)], Choice(min_score=0.05))
        masks, true = pasted(found.masks, found.boxes, 64, 64), wanted.objects
        for class_, box, mask in zip(true.classes, true.boxes, true.masks, strict=True):
            best = (found.classes == class_).nonzero()[:1, 0]
            assert len(best), "nothing of this class was found"
            shared, whole = (masks[best] & mask).sum(), (masks[best] | mask).sum()
            overlaps.append([box_iou(found.boxes[best], box[None]).item(), float(shared / whole)])
    of_boxes, of_masks = torch.tensor(overlaps).mean(dim=0).tolist()
    assert of_boxes > 0.8 and of_masks > 0.8
