"""Timm's teachers: the features of other programs for the same weights, and refused files."""

import pytest
import timm
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.scripted import scripted
from tokenizer.teachers import make_teacher, unreachable
from tokenizer.weight_files import UnreadableWeights

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
GRID = 14


def transformers_clip() -> CLIPVisionModelWithProjection:
    """CLIP's ViT-B/16 of transformers with random weights of the size that training gives."""
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=16, projection_dim=512))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def openai_state(model: CLIPVisionModelWithProjection) -> dict[str, torch.Tensor]:
    """Rename transformers' weights to OpenAI's, the inverse of transformers' conversion script."""
    vision = model.vision_model
    state = {
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.proj": model.visual_projection.weight.T,
    }
    norms = {"ln_pre": vision.pre_layrnorm, "ln_post": vision.post_layernorm}
    for i, layer in enumerate(vision.encoder.layers):
        block, attention = f"transformer.resblocks.{i}", layer.self_attn
        for kind in ("weight", "bias"):
            parts = [getattr(attention, f"{x}_proj") for x in "qkv"]
            joined = torch.cat([getattr(part, kind) for part in parts])
            state[f"visual.{block}.attn.in_proj_{kind}"] = joined
        norms |= {
            f"{block}.ln_1": layer.layer_norm1,
            f"{block}.ln_2": layer.layer_norm2,
            f"{block}.attn.out_proj": attention.out_proj,
            f"{block}.mlp.c_fc": layer.mlp.fc1,
            f"{block}.mlp.c_proj": layer.mlp.fc2,
        }
    for name, module in norms.items():
        state |= {f"visual.{name}.{k}": getattr(module, k) for k in ("weight", "bias")}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.mark.slow
def test_the_clip_teacher_gives_the_features_of_transformers_clip(tmp_path):
    """OpenAI's layout, also inside an envelope, in float16, and beside a text tower."""
    theirs = transformers_clip()
    state = openai_state(theirs)
    text_tower = {"text_projection": torch.zeros(512, 512), "logit_scale": torch.zeros(())}
    half = {f"module.{n}": t.half() for n, t in state.items()}
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    for saved, tolerance in ((state | text_tower, 1e-4), ({"state_dict": half}, 0.02)):
        torch.save(saved, tmp_path / "clip.pt")
        teacher = make_teacher("clip", GRID, tmp_path / "clip.pt")
        normalized = ((images + 1) / 2 - teacher.mean) / teacher.std
        with torch.no_grad():
            hidden = theirs.vision_model(normalized).last_hidden_state[:, 1:]
            expected = theirs.visual_projection(theirs.vision_model.post_layernorm(hidden))
            torch.testing.assert_close(teacher(images), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture", "num_classes"),
    [("clip", CLIP, 512), ("dino", "vit_base_patch16_224.dino", 0)],
)
def test_a_teacher_is_timm_s_network_from_a_local_file(tmp_path, name, architecture, num_classes):
    network = timm.create_model(architecture, num_classes=num_classes).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    teacher = make_teacher(name, GRID, tmp_path / "weights.pt")
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    normalized = ((images + 1) / 2 - teacher.mean) / teacher.std
    with torch.no_grad():
        expected = network.head(network.forward_features(normalized)[:, 1:])
        torch.testing.assert_close(teacher(images), expected)


def test_a_teacher_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="clip"):
        make_teacher("clip", GRID, tmp_path / "none.pt")


def test_a_torchscript_archive_is_refused_with_the_way_to_convert_it(tmp_path):
    """OpenAI publishes CLIP as such an archive."""
    torch.jit.save(scripted(nn.Linear(2, 2)), tmp_path / "ViT-B-16.pt")
    with pytest.raises(UnreadableWeights, match=r"TorchScript.*convert it once.*ViT-B-16\.pt"):
        make_teacher("clip", GRID, tmp_path / "ViT-B-16.pt")


@pytest.mark.parametrize(
    "state",
    [
        {"w": torch.zeros(2)},
        {"visual.class_embedding": torch.zeros(768)},
        {"vision_model.embeddings.class_embedding": torch.zeros(768)},
        {"visual.proj": torch.zeros(768, 512), "visual.class_embedding": torch.zeros(1024)},
    ],
    ids=["of no network", "incomplete", "of transformers", "of another size"],
)
def test_the_weights_of_another_network_are_refused_in_one_line(tmp_path, state):
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UnreadableWeights, match=r"other\.pt: not the weights of timm's vit_") as e:
        make_teacher("clip", GRID, tmp_path / "other.pt")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def test_a_teacher_that_is_not_timm_s_needs_nothing_from_the_hub():
    assert unreachable("hand_crafted") is None
    assert unreachable("one_of_our_own") is None
