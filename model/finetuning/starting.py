"""Starting a task network from given weights: pretrained or fine-tuned, released or ours.

The encoder is fitted to the input of the task: vision positions are interpolated, the patch kernel
is resized, a longer text position table is cut. Prediction heads of pretraining are left out,
unless the task has one of them; heads of tasks are kept under their released names, and a network
of a task takes those that fit it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from model.finetuning.released import CRITERION, ENCODER_PREFIX, word_head_of
from model.finetuning.task_networks import TaskNetwork
from model.network.config import BEiT3Config
from model.network.layouts import StartMismatch, in_our_layout, listed
from model.network.loading import ENCODER, Part, part_of, shape_words
from model.network.official_layout import task_heads
from model.network.starting import StartReport, fit_start

_FINAL_NORM: Final = "norm."
_PATCH_KERNEL: Final = "vision.patch.weight"
_TEXT_POSITIONS: Final = f"{ENCODER_PREFIX}language.positions"
"May have fewer rows than the network's, whose last rows then keep their initial values."
_OF_LABELS: Final = frozenset(
    f"{layer}.{kind}"
    for layer in (
        *("head", "head.3", "head.dense2"),
        *("cascade.0.classes", "cascade.1.classes", "cascade.2.classes", "mask_head.classes"),
        *("head.classes", "head.class_predictor"),
    )
    for kind in ("weight", "bias")
)
"Parameters with a row for each label, in any head."


def fit_encoder(
    saved: Mapping[str, object], config: BEiT3Config, *, word_head: bool = False
) -> tuple[dict[str, Tensor], StartReport]:
    """Return the weights of a task network as far as they are given, and a report.

    Args:
        saved: weights in this project's or the official layout, or what their file holds; tensors
            on the device ``meta`` are compared by name and shape.
        config: of the network at the task's input size.
        word_head: whether the head that scores words is kept, of a pretraining or a captioning:
            the authors' captioning starts from it.

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
    # A network of images alone has no parameters of texts, and another one may start from it.
    parts = {part_of(name) for name in encoder}
    without: tuple[Part, ...] = () if "language" in parts else ("language", "fusion")
    prefixed = {f"{ENCODER_PREFIX}{name}": tensor for name, tensor in encoder.items()}
    fitted, report = fit_start(prefixed, config, without=without)
    heads, foreign = _heads(saved, others)
    words = word_head_of(saved)
    if word_head:
        heads |= {name: _checked(name, tensor) for name, tensor in words.items()}
    named = {f"{ENCODER_PREFIX}{name}": tensor for name, tensor in fitted.items()}
    dropped = [name for name in {**state, **words} if name not in encoder and name not in heads]
    report = replace(
        report,
        layout=layout,
        fresh=tuple(name for name in report.fresh if part_of(name) in {*ENCODER} - {*without}),
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
            heads[name.removeprefix(CRITERION)] = _checked(name, tensor)
    return heads, foreign


def _checked(name: str, tensor: Tensor) -> Tensor:
    """Return a head's tensor in fp32."""
    if not tensor.is_meta and not bool(tensor.isfinite().all()):
        raise StartMismatch(f"{name} holds values that are not finite; give other weights")
    return tensor.float()


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


def unfit_head(network: TaskNetwork, weights: Mapping[str, Tensor]) -> list[str]:
    """Return which parameters of a network's head are not given, or in another shape.

    None is, if the weights have no head at all. Layers with a row for each label are left out: for
    other labels they begin anew.

    Args:
        network: of a task.
        weights: of :func:`fit_encoder`.
    """
    if all(name.startswith(ENCODER_PREFIX) for name in weights):
        return []
    return [
        name
        for name, parameter in network.state_dict().items()
        if not name.startswith(ENCODER_PREFIX)
        and name not in _OF_LABELS
        and (name not in weights or weights[name].shape != parameter.shape)
    ]


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
