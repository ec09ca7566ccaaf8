"""Inputs of any length → the batches of a task, as the evaluation of a fine-tuning builds them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import BEiT3Config
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.inference.processor import ImageInput, Processor, many

Text = str | Sequence[str]
"A text, or a pair of texts that are read together."
Example = tuple[Sequence[ImageInput], Text | list[int] | None]
"The images of an example, and its text, which may be token ids."


def many_texts(
    inputs: Iterable[Any], what: str, lengths: tuple[int, int | None] = (1, None)
) -> list[Text]:
    """Return texts, or groups of texts that are read together, as a list.

    Args:
        inputs: the texts.
        what: their name, for errors.
        lengths: fewest and most texts of a group; None sets no limit.

    Raises:
        TypeError: one is not text.
        ValueError: a group has too few or too many texts, or a text is not valid Unicode.
    """
    fewest, most = lengths
    given = many(inputs, what)
    for number, text in enumerate(given):
        group = (text,) if isinstance(text, str) else text
        if not isinstance(group, list | tuple) or not all(isinstance(t, str) for t in group):
            shown = " ".join(f"{text!r:.60}".split())
            raise TypeError(f"{what}: number {number} is {shown}; give a str")
        if not fewest <= len(group) <= (len(group) if most is None else most):
            raise ValueError(f"{what}: number {number} has {len(group)} texts; {_range(lengths)}")
        try:
            "".join(group).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{what}: number {number} is {text!r:.60}, which is not valid Unicode; decode it "
                'with errors="replace"'
            ) from None
    return given


def _range(lengths: tuple[int, int | None]) -> str:
    fewest, most = lengths
    if most is None:
        return f"give {fewest} or more"
    return f"give {fewest}" if fewest == most else f"give {fewest} to {most}"


def together(first: Sequence[Any], second: Sequence[Any], names: tuple[str, str]) -> None:
    """Raise ValueError unless two inputs have the same length."""
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} {names[0]} and {len(second)} {names[1]}; give as many of one as of the "
            "other"
        )


def task_batches(
    processor: Processor, examples: Iterable[Example], batch_size: int
) -> Iterator[TaskBatch]:
    """Yield the batches of examples, in their order, on the CPU.

    Args:
        processor: of the model.
        examples: all with as many images, and all with or all without a text.
        batch_size: most examples in a batch.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    at_least_one(batch_size, "batch_size")
    rest, first = iter(examples), 0
    while some := list(islice(rest, batch_size)):
        images = [image for of_example, _ in some for image in of_example]
        texts = [text for _, text in some if text is not None]
        pixels = None
        if images:
            flat = torch.from_numpy(processor.pixels(images, first))
            pixels = flat.view(len(some), len(images) // len(some), *flat.shape[1:])
        ids, padding = processor.texts(texts) if texts else (None, None)
        yield replace(
            batch_of_rows(np.arange(first, first + len(some)), processor.config),
            pixels=pixels,
            text_ids=ids,
            text_padding=padding,
            text_counts=torch.ones(len(some), dtype=torch.long) if texts else None,
        )
        first += len(some)


def first_images(batch: TaskBatch) -> Tensor | None:
    """Return the one image of each example, (B, 3, H, W)."""
    return None if batch.images is None else batch.images[:, 0]


def beside(
    images: Iterable[ImageInput] | None, texts: Sequence[Text | list[int] | None]
) -> list[Example]:
    """Return examples of at most one image and one text each."""
    if images is None:
        return [((), text) for text in texts]
    given = many(images, "images")
    together(given, texts, ("images", "texts"))
    return [((image,), text) for image, text in zip(given, texts, strict=True)]


def at_least_one(number: int, name: str) -> int:
    """Return a number if it is 1 or more; raise ValueError with its name if it is not."""
    if number < 1:
        raise ValueError(f"{name} is {number}; it must be 1 or more")
    return number


def batch_of_rows(rows: Ints, config: BEiT3Config) -> TaskBatch:
    """Return a batch (B,) without contents, whose pixels will be normalized for a network."""
    return TaskBatch(
        rows,
        pixel_mean=torch.tensor(config.pixel_mean),
        pixel_std=torch.tensor(config.pixel_std),
    )
