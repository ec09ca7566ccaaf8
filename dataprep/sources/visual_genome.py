"""Visual Genome: ``region_descriptions.json`` beside ``images.zip`` and ``images2.zip``.

A list with one object an image: ``id`` or ``image_id``, and ``regions[]`` with ``phrase`` and a
box. Phrases are short and about fifty an image, so a caption is made of a few of them, drawn by
the seed. Half of the images are COCO's; ``image_data.json`` says which (``coco_id``).
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from dataprep.randomness import rng_of
from dataprep.sources.annotations import Annotated, AnnotationError, read_json
from dataprep.text import clean_caption

EVALUATION_IMAGE: Final = "evaluation_image"
_FOLDERS: Final = ("VG_100K", "VG_100K_2")


def read_visual_genome(
    path: Path, members: Collection[str], *, captions: int, phrases: int, seed: int
) -> list[Annotated]:
    """Return the images with captions of a few phrases each.

    Args:
        path: of ``region_descriptions.json``, or its zip archive.
        members: names in the archives of images; they say in which folder an image lies.
        captions: of an image, at most.
        phrases: of a caption, joined by commas.
        seed: draws the phrases.

    Raises:
        AnnotationError: the file has another form; the message names the entry.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise AnnotationError(f"{path}: not a list of images")
    result = []
    for i, image in enumerate(content):
        number, found = _phrases(image, f"{path}: [{i}]")
        paths = [f"{folder}/{number}.jpg" for folder in _FOLDERS]
        member = next((p for p in paths if p in members), paths[0])
        drawn = _draw(found, captions * phrases, seed, number)
        joined = [", ".join(drawn[j : j + phrases]) for j in range(0, len(drawn), phrases)]
        result.append(Annotated(str(number), member, joined))
    return result


def coco_ids(path: Path) -> dict[str, int]:
    """Return the COCO id of each image that has one, by its name here.

    Raises:
        AnnotationError: the file is not ``image_data.json``.
    """
    content = read_json(path)
    try:
        return {
            str(_number(image)): int(image["coco_id"])
            for image in content
            if image["coco_id"] is not None
        }
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(f"{path}: not Visual Genome's image_data.json ({error!r})") from None


def _phrases(image: Any, where: str) -> tuple[int, list[str]]:
    try:
        number = _number(image)
        phrases = [clean_caption(region["phrase"]) for region in image["regions"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnnotationError(f"{where}: not an image with regions ({error!r})") from None
    return number, list(dict.fromkeys(phrase for phrase in phrases if phrase))


def _number(image: Any) -> int:
    return int(image["image_id"] if "image_id" in image else image["id"])


def _draw(phrases: list[str], number: int, seed: int, image: int) -> list[str]:
    """Draw without repetition: a pure function of the seed and the image."""
    order = rng_of(seed, "regions", image).permutation(len(phrases))
    return [phrases[i] for i in order[:number]]
