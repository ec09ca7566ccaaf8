"""NLVR2: sentences that are true or false of two images.

    nlvr2/data/{train,dev,test1}.json   one JSON object per line
    nlvr2/images/train/<directory>/<pair>-img{0,1}.png
    nlvr2/images/{dev,test1}/<pair>-img{0,1}.png

An identifier is ``<split>-<set>-<pair>-<sentence>``; the name of a pair is an identifier without
its last number. The pairs of a set have the same sentences, which are true of half of them, so the
words alone do not decide. In some sets a second sentence words the statement otherwise. Only
``train`` has the field ``directory``. Faults: a second image that is not there
(``missing_file``), no sentence (``empty_text``), no label (``no_labels``). Format:
https://github.com/lil-lab/nlvr/tree/master/nlvr2.
"""

import json
from pathlib import Path
from typing import Any, Final

from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.statements import draw_pair, draw_statement
from dataprep.miniweb.task_images import TaskImage, fault_of, small_image, split_of, write_images
from dataprep.miniweb.truth import TaskRow

NLVR2: Final = "nlvr2"
_SPLITS: Final = {"train": "train", "dev": "dev", "test": "test1"}
_PAIRS: Final = 4
"Pairs of a set: an even number."
_REWORDED: Final = 3
"Of this many sets one has a second sentence."
_DIRECTORIES: Final = 100
_SOURCE: Final = 21
_FAULTS: Final = ("missing_file", "empty_text", "no_labels")


def write_nlvr2(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[TaskRow]:
    """Write ``nlvr2/`` with ``number`` pairs of images."""
    lines: dict[str, list[str]] = {name: [] for name in _SPLITS.values()}
    rows, images = list[TaskRow](), list[TaskImage]()
    for i in range(-(-number // _PAIRS)):
        rng = numbered_rng(seed, _SOURCE, i)
        split, statement = split_of(i), draw_statement(rng)
        name, directory = _SPLITS[split], i % _DIRECTORIES
        labels = rng.permutation([True, False] * (_PAIRS // 2))
        num_wordings = 2 if i % _REWORDED == 0 else 1
        for j in range(min(_PAIRS, number - i * _PAIRS)):
            stem, outcome = f"{name}-{i}-{j}", fault_of(_PAIRS * i + j, split, _FAULTS)
            subfolder = f"train/{directory}" if split == "train" else name
            places = tuple(f"{NLVR2}/images/{subfolder}/{stem}-img{side}.png" for side in (0, 1))
            for side, scene in enumerate(draw_pair(statement, bool(labels[j]), rng)):
                drawn = small_image(scene, rng, (seed, _SOURCE, i, j, side))
                there = outcome if side == 1 else "ok"
                images.append(TaskImage(folder / places[side], drawn, there))
            for k, sentence in enumerate(statement.wordings[:num_wordings]):
                text = "" if outcome == "empty_text" else sentence
                label = "" if outcome == "no_labels" else str(bool(labels[j]))
                entry = _entry(f"{stem}-{k}", text, label, directory if split == "train" else None)
                lines[name].append(f"{json.dumps(entry)}\n")
                texts = (text,) if text else ()
                row = TaskRow(NLVR2, name, entry["identifier"], outcome, places, texts, label)
                rows.append(row)
    write_images(renderer, images)
    (folder / NLVR2 / "data").mkdir(exist_ok=True)
    for name, entries in lines.items():
        (folder / NLVR2 / "data" / f"{name}.json").write_text("".join(entries))
    return rows


def _entry(identifier: str, sentence: str, label: str, directory: int | None) -> dict[str, Any]:
    """Return a line's object; a label or a directory that is not there has no field."""
    pair = identifier.rsplit("-", 1)[0]
    return {
        "identifier": identifier,
        "sentence": sentence,
        **({"label": label} if label else {}),
        **({} if directory is None else {"directory": directory}),
        "left_url": f"http://cdn.miniweb.test/{pair}-img0.png",
        "right_url": f"http://cdn.miniweb.test/{pair}-img1.png",
        "validation": {"1": label},
        "writer": "1",
        "synset": "shape",
        "query": "shapes1",
    }
