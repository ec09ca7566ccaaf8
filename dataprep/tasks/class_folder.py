"""Images in subfolders named by their class, such as ImageNet's ``train/<wnid>/*.JPEG``.

The id of an image is its path, and its label the first folder of it. An image in no subfolder has
no label.
"""

from collections.abc import Iterator
from pathlib import Path

from dataprep.sources.folders import files_in
from dataprep.sources.lines import ListError
from dataprep.sources.names import safe_name
from dataprep.tasks.example import Example, checked, example_of
from dataprep.tasks.image_places import member_names


def read_class_folder(path: Path) -> Iterator[Example]:
    """Yield the files of a folder or of a zip archive, sorted by their paths.

    Raises:
        ListError: there are no files.
        zipfile.BadZipFile: the file is not a zip archive.
    """
    names = files_in(path, "*") if path.is_dir() else member_names(path)
    if not names:
        raise ListError(f"{path}: the archive holds no files")
    return checked((_example(name, path.name) for name in names), path)


def _example(name: str, folder: str) -> Example:
    label, _, inner = name.partition("/")
    return example_of(
        name,
        f"{folder}/{safe_name(name)}",
        images=[name],
        labels=[safe_name(label)] if inner else [],
    )
