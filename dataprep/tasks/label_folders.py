"""Images and their label maps in two folders, as ADE20K has them, and own data.

    ADEChallengeData2016/images/training/ADE_train_00000001.jpg
    ADEChallengeData2016/annotations/training/ADE_train_00000001.png

A map belongs to the image of its path, up to the ending and in either form of Unicode. A map
without an image is a reject of its own, ``mask-<path>``.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dataprep.sources.folders import files_in
from dataprep.sources.lines import ListError
from dataprep.sources.members import MISSING_FILE
from dataprep.sources.names import safe_name
from dataprep.tasks.example import NO_LABELS, REPEATED_ID, Example, bad, checked, example_of


def read_label_folders(images: Path, masks: Path | None) -> Iterator[Example]:
    """Yield the images of a folder, sorted by their paths, then the maps that are rejects.

    The id of an image is its path without the ending, and its label map ``Example.mask``.

    Args:
        images: folder of the images.
        masks: folder of the label maps; None for a split without labels.

    Raises:
        ListError: a folder is missing or empty.
    """
    return checked(_read(images, masks), images)


def count_label_folders(images: Path, masks: Path | None) -> int:
    """Return the number of images of a folder, some of which have a label map.

    Raises:
        ListError: a folder is missing or empty, or no label map has the name of an image.
    """
    names = files_in(images, "*")
    if masks is not None:
        of_masks = files_in(masks, "*")
        if not {*map(_key, names)} & {*map(_key, of_masks)}:
            raise ListError(
                f"{masks}: no label map has the name of an image; the first image is "
                f"{safe_name(names[0])}, the first label map {safe_name(of_masks[0])}"
            )
    return len(names)


def _read(images: Path, masks: Path | None) -> Iterator[Example]:
    rejects: list[Example] = []
    of_image: dict[str, str] = {}
    names = files_in(images, "*")
    known = {_key(name) for name in names}
    first: dict[str, str] = {}
    for name in files_in(masks, "*") if masks else ():
        stem, where = _key(name), f"{masks.name if masks else ''}/{safe_name(name)}"
        if stem not in known:
            problem = "no image has this name"
            rejects.append(bad(f"mask-{name}", where, MISSING_FILE, problem))
        elif stem in of_image:
            problem = f"{safe_name(of_image[stem])} is the mask of the same image"
            rejects.append(bad(f"mask-{name}", where, REPEATED_ID, problem))
        else:
            of_image[stem] = name
    for name in names:
        stem, key, where = _stem(name), _key(name), f"{images.name}/{safe_name(name)}"
        if masks and key not in of_image:
            yield bad(stem, where, NO_LABELS, f"{masks.name} holds no mask {safe_name(stem)}.*")
        elif first.setdefault(key, name) != name:
            problem = f"{safe_name(first[key])} has the same name up to the ending"
            yield bad(stem, where, REPEATED_ID, problem)
        else:
            yield example_of(stem, where, images=[name], mask=of_image.get(key, ""))
    yield from rejects


def _key(name: str) -> str:
    """Return what an image and its label map have in common."""
    return unicodedata.normalize("NFC", _stem(name))


def _stem(name: str) -> str:
    """Return a path without the ending of the file; one that is nothing else stays whole."""
    return str(PurePosixPath(name).with_suffix(""))
