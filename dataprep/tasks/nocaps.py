"""NoCaps: ``nocaps_val_4500_captions.json`` and ``nocaps_test_image_info.json``.

Format: https://nocaps.org/download, that of COCO's captions. ``images[]`` holds ``id``,
``file_name`` and, where it is published, ``domain``: whether the classes of the image's objects are
those of COCO. ``annotations[]`` holds ``image_id`` and ``caption``; the file of the test split has
no annotations.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import MALFORMED_ENTRY, json_elements, json_keys
from dataprep.tasks.example import (
    EMPTY_TEXT,
    UNKNOWN_LABEL,
    Example,
    bad,
    checked,
    example_of,
    problem_of,
)
from dataprep.text import clean_caption

DOMAINS: Final = ("in-domain", "near-domain", "out-domain")
"Objects of COCO's classes alone, of both, of others alone."
_EXPECTED: Final = "a file of NoCaps"
_ANNOTATIONS: Final = "annotations"
_IMAGE_TYPES: Final = {"id": (int, str), "file_name": (str,)}
_CAPTION_TYPES: Final = {"image_id": (int, str), "caption": (str,)}


def read_nocaps(path: Path) -> Iterator[Example]:
    """Yield the images of a file, each with all of its captions; the label is its domain.

    Images have no captions if the file has none, or an empty list of them. An annotation of no
    image of the file is a reject of its own.

    Raises:
        AnnotationError: the file has another format.
        ListError: no entry can be read.
    """
    return checked(_read(path), path)


def _read(path: Path) -> Iterator[Example]:
    has_list = _ANNOTATIONS in json_keys(path, _EXPECTED)
    annotations = json_elements(path, _ANNOTATIONS, _EXPECTED) if has_list else ()
    captions, rejects = _by_image(annotations, path.name)
    is_annotated = bool(captions or rejects)
    for i, image in enumerate(json_elements(path, "images", _EXPECTED)):
        where = f"{path.name}: images[{i}]"
        if problem := problem_of(image, _IMAGE_TYPES):
            yield bad(f"entry-{i}", where, MALFORMED_ENTRY, problem)
            continue
        of_image = captions.pop(str(image["id"]), {})
        yield _example(image, where, of_image, is_annotated)
    for id_, some in captions.items():
        for number in some:
            where = f"{path.name}: annotations[{number}]"
            problem = f"the file has no readable entry of the image {id_}"
            yield bad(f"annotation-{number}", where, MALFORMED_ENTRY, problem)
    yield from rejects


def _example(
    image: Mapping[str, Any], where: str, captions: Mapping[int, str], is_annotated: bool
) -> Example:
    id_, domain = str(image["id"]), image.get("domain")
    if domain is not None and domain not in DOMAINS:
        expected = ", ".join(DOMAINS)
        return bad(id_, where, UNKNOWN_LABEL, f"domain = {domain!r}, expected {expected}"[:200])
    texts = [text for each in captions.values() if (text := clean_caption(each))]
    if is_annotated and not texts:
        return bad(id_, where, EMPTY_TEXT, "no caption")
    labels = [domain] if domain else []
    return example_of(id_, where, images=[image["file_name"]], texts=texts, labels=labels)


def _by_image(
    annotations: Iterable[Any], name: str
) -> tuple[dict[str, dict[int, str]], list[Example]]:
    """Return the captions of each image by their number in the file, and the bad annotations."""
    captions: dict[str, dict[int, str]] = {}
    rejects = []
    for i, entry in enumerate(annotations):
        if problem := problem_of(entry, _CAPTION_TYPES):
            where = f"{name}: annotations[{i}]"
            rejects.append(bad(f"annotation-{i}", where, MALFORMED_ENTRY, problem))
        else:
            captions.setdefault(str(entry["image_id"]), {})[i] = entry["caption"]
    return captions, rejects
