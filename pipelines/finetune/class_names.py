"""Names of classes as texts: WordNet's for ImageNet, those of a file, or the labels themselves.

The text of a class of ImageNet is the names of its synset, joined by commas, as the authors say;
timm holds WordNet's table of them. Several classes may have the same text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SUBSETS: Final = ("imagenet21k", "imagenet1k")  # one synset of the second is not in the first


def class_texts(labels: Sequence[str], names: str | None, *, wordnet: bool) -> list[str]:
    """Return the text of each class.

    Args:
        labels: labels of the classes.
        names: path of a file with a label, a tab and its text in a line; None for the labels
            themselves, in which underscores become spaces.
        wordnet: take the names of the synsets, whose WordNet ids the labels are.

    Raises:
        ValueError: a class has no text, or a line of the file is no label and text.
    """
    if names is None and not wordnet:
        return [label.replace("_", " ") for label in labels]
    known = _wordnet() if names is None else _of_file(names)
    if missing := [label for label in labels if not known.get(label)]:
        source = "task.wordnet_names" if names is None else f"task.class_names = {names}"
        raise ValueError(
            f"{source}: no text for {len(missing)} of {len(labels)} classes, the first is "
            f"{missing[0]!r}; give a text for each in task.class_names"
        )
    return [known[label] for label in labels]


def _wordnet() -> dict[str, str]:
    from timm.data import ImageNetInfo

    infos = [ImageNetInfo(subset) for subset in _SUBSETS]
    return {
        label: info.label_name_to_description(label, detailed=False)
        for info in infos
        for label in info.label_names()
    }


def _of_file(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        label, tab, text = line.partition("\t")
        if not tab or not text.strip() or label in found:
            raise ValueError(
                f"{path}, line {number}: expected a label that stands once, a tab and its text; "
                f"found {line[:80]!r}"
            )
        found[label] = text.strip()
    return found
