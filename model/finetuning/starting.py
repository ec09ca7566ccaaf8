"""Starting a task network from given weights: pretrained or fine-tuned, released or ours.

The encoder is fitted to the input of the task: vision positions are interpolated, the patch kernel
is resized, a longer text position table is cut. Prediction heads of pretraining are left out; heads
of tasks are kept under their released names, and a network of a task takes those that fit it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from model.finetuning.released import CRITERION, ENCODER_PREFIX
from model.finetuning.task_networks import TaskNetwork
from model.network.config import SIZES, BEiT3Config
from model.network.interop import task_heads
from model.network.loading import ENCODER, part_of, shape_words
from model.network.starting import (
    StartMismatch,
    StartReport,
    fit_start,
    form_of,
    in_our_layout,
    listed,
)

RELEASED_HEAD_WIDTH: Final = 64
"Width of an attention head in every released network."
_FINAL_NORM: Final = "norm."
_PATCH_KERNEL: Final = "vision.patch.weight"
_SHAPES: Final = {
    "vision.class_token": 1,
    "vision.patch.weight": 4,
    "vision.positions": 2,
    "language.tokens.weight": 2,
    "language.positions": 2,
    "blocks.0.experts.vision.fc1.weight": 2,
}
"Tensors whose shapes give the sizes of a network, with their numbers of dimensions."
_TEXT_POSITIONS: Final = f"{ENCODER_PREFIX}language.positions"
"May have fewer rows than the network's, whose last rows then keep their initial values."
_OF_LABELS: Final = frozenset(
    f"{layer}.{kind}" for layer in ("head", "head.3", "head.dense2") for kind in ("weight", "bias")
)
"Parameters with a row for each label, in any head."


def config_of(saved: Mapping[str, object], **changes: Any) -> BEiT3Config:
    """Return the configuration that names and shapes of weights say.

    They do not say the number of attention heads: it is that of the named size of this width and
    depth, else one head per 64 as in every released network.

    Args:
        saved: weights in this project's or the official layout, or what their file holds.
        changes: fields of the configuration with other values.

    Raises:
        StartMismatch: a tensor that says a size is missing or has another form.
        ValueError: ``saved`` holds no tensors, or the sizes do not fit together.
    """
    _, state, _ = in_our_layout(saved)
    if missing := [name for name in _SHAPES if name not in state]:
        raise StartMismatch(f"the weights lack {listed(missing)}; give a whole network")
    for name, num_dimensions in _SHAPES.items():
        if state[name].ndim != num_dimensions or 0 in state[name].shape:
            raise StartMismatch(f"{name} is {shape_words(state[name])}; give a whole network")
    form: dict[str, Any] = form_of(state)
    num_patches = len(state["vision.positions"]) - 1
    if math.isqrt(num_patches) ** 2 != num_patches:
        raise StartMismatch(f"vision.positions has {num_patches} patches, which form no square")
    heads = state.get("mim_head.bias")
    stated = {
        **form,
        "num_heads": _num_heads(form["width"], form["depth"]),
        "image_size": math.isqrt(num_patches) * form["patch_size"],
        "vocab_size": len(state["language.tokens.weight"]),
        "max_text_length": len(state["language.positions"]),
        "final_norm": has_final_norm(state),
    } | ({} if heads is None or not heads.ndim else {"num_codes": len(heads)})
    return BEiT3Config(**stated | changes)


def has_final_norm(state: Mapping[str, Tensor]) -> bool:
    """Return whether an encoder, in this project's names, has a LayerNorm after its last block."""
    return any(name.startswith(_FINAL_NORM) for name in state)


def _num_heads(width: int, depth: int) -> int:
    for size in SIZES.values():
        if (size.width, size.depth) == (width, depth):
            return size.num_heads
    if width % RELEASED_HEAD_WIDTH:
        raise StartMismatch(
            f"the weights do not say their number of attention heads, and width {width} is not a "
            f"multiple of {RELEASED_HEAD_WIDTH} as in released networks; give an export, which has "
            "network.json"
        )
    return width // RELEASED_HEAD_WIDTH


def fit_encoder(
    saved: Mapping[str, object], config: BEiT3Config
) -> tuple[dict[str, Tensor], StartReport]:
    """Return the weights of a task network as far as they are given, and a report.

    Args:
        saved: weights in this project's or the official layout, or what their file holds; tensors
            on the device ``meta`` are compared by name and shape.
        config: of the network at the task's input size.

    Returns:
        fp32 tensors: the encoder's with the prefix ``network.``, and heads of tasks.

    Raises:
        StartMismatch: a name is missing or unknown, a shape differs, or a value is not finite.
        ValueError: ``saved`` holds no tensors.
    """
    layout, state, others = in_our_layout(saved)
    encoder = {name: tensor for name, tensor in state.items() if part_of(name) in ENCODER}
    if not encoder:
        raise StartMismatch("the weights have no encoder; give a whole network")
    resized = _fit_patches(encoder, config.patch_size)
    fitted, report = fit_start({f"{ENCODER_PREFIX}{n}": t for n, t in encoder.items()}, config)
    heads, foreign = _heads(saved, others)
    named = {f"{ENCODER_PREFIX}{name}": tensor for name, tensor in fitted.items()}
    dropped = [name for name in state if name not in encoder]
    report = replace(
        report,
        layout=layout,
        fresh=tuple(name for name in report.fresh if part_of(name) in ENCODER),
        unused=(*dropped, *foreign),
        adapted=(*resized, *report.adapted),
    )
    return named | heads, report


def _fit_patches(encoder: dict[str, Tensor], size: int) -> list[str]:
    """Resize the kernel of the patch embedding where a task asks for another patch size.

    The kernel is the one whose outputs for an enlarged image are those of the given kernel for the
    image itself (FlexiViT, arXiv:2212.08013, section 3.4); a plain interpolation is not.
    """
    from timm.layers.patch_embed import resample_patch_embed

    kernel = encoder.get(_PATCH_KERNEL)
    if kernel is None or kernel.ndim != 4 or kernel.shape[2:] == (size, size):
        return []
    given = "x".join(map(str, kernel.shape[2:]))
    encoder[_PATCH_KERNEL] = (
        kernel.new_empty((*kernel.shape[:2], size, size))
        if kernel.is_meta
        else resample_patch_embed(kernel.float(), [size, size])
    )
    return [f"{_PATCH_KERNEL}: resized from {given} to {size}x{size} pixels"]


def _heads(
    saved: Mapping[str, object], names: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return (heads of tasks by released name, names that belong to no known task)."""
    heads: dict[str, Tensor] = {}
    foreign: list[str] = []
    for task, tensors in task_heads(saved).items():
        for name, tensor in tensors.items():
            if name not in names:
                continue
            if task == "other":
                foreign.append(name)
                continue
            if not tensor.is_meta and not bool(tensor.isfinite().all()):
                raise StartMismatch(f"{name} holds values that are not finite; give other weights")
            heads[name.removeprefix(CRITERION)] = tensor.float()
    return heads, foreign


@torch.no_grad()
def load_given(
    network: TaskNetwork,
    weights: Mapping[str, Tensor],
    *,
    given_labels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[str]:
    """Load the encoder and the heads that fit; return in lines what starts anew or is not used.

    Args:
        network: of a task, initialized and not yet distributed, on any device.
        weights: of :func:`fit_encoder`; none leaves all initial values.
        given_labels: labels that a head in ``weights`` was trained for, in its order.
        labels: of the task, in its order. If both are known and differ, the layer that scores them
            keeps its initial values.

    Raises:
        StartMismatch: the encoder is not that of the weights; nothing was loaded.
    """
    if not weights:
        return ["no weights are given: all parameters keep initial values"]
    ours = network.state_dict()
    _refuse_another_encoder(ours, weights)
    relabeled = given_labels is not None and labels is not None and list(given_labels) != [*labels]
    anew, unfit = [], []
    for name, parameter in ours.items():
        given = weights.get(name)
        if given is None:
            anew.append(name)
        elif name == _TEXT_POSITIONS:
            parameter[: len(given)].copy_(given)
        elif given.shape != parameter.shape:
            unfit.append(f"{name} ({shape_words(given)} given, {shape_words(parameter)} needed)")
        elif relabeled and name in _OF_LABELS:
            unfit.append(f"{name} (trained for other labels)")
        else:
            parameter.copy_(given)
    unused = sorted(weights.keys() - ours.keys())
    lines = {
        "initial values are kept by": anew,
        "given values do not fit, so initial ones are kept by": unfit,
        "not used": unused,
    }
    return [f"{words}: {listed(names)}" for words, names in lines.items() if names]


def _refuse_another_encoder(ours: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raise unless both have the same encoder, up to the final norm and the rows of texts.

    A network of images alone has no parameters of texts.
    """
    parts = {part_of(name) for name in ours if name.startswith(ENCODER_PREFIX)}
    wrong = [
        name
        for name in {**ours, **weights}
        if name.startswith(ENCODER_PREFIX)
        and part_of(name) in parts
        and not name.startswith(f"{ENCODER_PREFIX}{_FINAL_NORM}")
        and (name not in ours or name not in weights or not _fits(name, ours, weights))
    ]
    if wrong:
        raise StartMismatch(
            f"the encoder is not that of the given weights: {listed(wrong)}; build it with their "
            "configuration"
        )


def _fits(name: str, ours: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    if name == _TEXT_POSITIONS:
        return weights[name].shape[1:] == ours[name].shape[1:] and (
            len(weights[name]) <= len(ours[name])
        )
    return weights[name].shape == ours[name].shape
