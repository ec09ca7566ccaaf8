"""Visual Genome: ``region_descriptions.json`` beside ``images.zip`` and ``images2.zip``.

The JSON file is a list with one object per image: ``id`` or ``image_id``, and ``regions[]`` with
``phrase`` and a box. An image has dozens of short phrases; each is a caption, or a caption joins
a few of them, in an order drawn by the seed. Half of the images are COCO images;
``image_data.json`` names them (``coco_id``).
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from dataprep.randomness import rng_of
from dataprep.sources.annotations import (
    AnnotatedImage,
    AnnotationError,
    json_elements,
    readable,
)
from dataprep.text import clean_caption

EVALUATION_IMAGE: Final = "evaluation_image"
_FOLDERS: Final = ("VG_100K", "VG_100K_2")
_WRONG_FORM: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"Raised where JSON of another form is taken for an entry."


def read_visual_genome(
    path: Path, members: Collection[str], *, captions: int | None, phrases: int, seed: int
) -> Iterator[AnnotatedImage]:
    """Return the images with captions of a few phrases each, as they are read.

    Args:
        path: path of ``region_descriptions.json`` or of its zip archive.
        members: names of the members of the image archives, which show each image's folder.
        captions: largest number of captions of an image; None keeps all.
        phrases: number of phrases of a caption, joined by commas.
        seed: seed of the draw of phrases.

    Raises:
        AnnotationError: the file has another format, or no entry can be read.
    """
    entries = enumerate(json_elements(path, None, "a list of images"))

    def found() -> Iterator[tuple[AnnotatedImage, str | None]]:
        for i, image in entries:
            try:
                number, all_phrases = _phrases(image)
            except _WRONG_FORM as error:
                problem = f"[{i}]: not an image with regions ({error!r})"[:200]
                yield AnnotatedImage(f"entry-{i}"), problem
                continue
            paths = [f"{folder}/{number}.jpg" for folder in _FOLDERS]
            member = next((p for p in paths if p in members), paths[0])
            wanted = captions * phrases if captions is not None else None
            drawn = _draw(all_phrases, wanted, seed, number)
            joined = [", ".join(drawn[j : j + phrases]) for j in range(0, len(drawn), phrases)]
            yield AnnotatedImage(str(number), member, joined), None

    return readable(found(), path)


def coco_ids(path: Path) -> dict[str, int]:
    """Return the COCO ids of the images that have one, by the name of the image.

    Raises:
        AnnotationError: the file does not have the format of ``image_data.json``.
    """
    try:
        return {
            str(_number(image)): int(image["coco_id"])
            for image in json_elements(path, None, "Visual Genome's image_data.json")
            if image["coco_id"] is not None
        }
    except _WRONG_FORM as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{path}: not Visual Genome's image_data.json ({error!r})") from None


def _phrases(image: Any) -> tuple[int, list[str]]:
    number = _number(image)
    phrases = [clean_caption(region["phrase"]) for region in image["regions"]]
    return number, list(dict.fromkeys(phrase for phrase in phrases if phrase))


def _number(image: Any) -> int:
    return int(image["image_id"] if "image_id" in image else image["id"])


def _draw(phrases: list[str], number: int | None, seed: int, image: int) -> list[str]:
    """Draw phrases without repetition: a pure function of the seed and the image."""
    order = rng_of(seed, "regions", image).permutation(len(phrases))
    return [phrases[i] for i in order[:number]]
