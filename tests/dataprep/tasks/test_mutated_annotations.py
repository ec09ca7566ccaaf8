"""Readers of annotations on mutated files: one bad entry harms no other, a wrong file is refused.

The mutations are those of ``tests/dataprep/test_mutated_files.py``.
"""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pytest

from dataprep.schemas import EXAMPLES, reject, rejects_table, table_of
from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks import coco_instances, glue, karpathy, nlvr2, nocaps, own_files, vqav2
from dataprep.tasks.class_folder import read_class_folder
from dataprep.tasks.example import Example
from dataprep.tasks.own_files import OwnFile
from tests.dataprep.tasks.test_glue import FILES
from tests.dataprep.tasks.vqa_files import HEAD, annotation, question
from tests.dataprep.test_mutated_files import KARPATHY, anything, mutated, zip_of_images

IDS = range(1, 7)
QUESTIONS: list[Any] = [question(i, 0, f"Which {i}?") for i in IDS]
ANNOTATIONS: list[Any] = [annotation(i, 0, "a", "b", "a") for i in IDS]
SENTENCES: list[Any] = [
    {"identifier": f"train-{i}-0-1", "sentence": f"{i} dogs.", "label": "True", "directory": i}
    for i in IDS
]
CAPTIONED: list[Any] = [
    {"id": i, "file_name": f"{i}.jpg", "domain": "in-domain", "open_images_id": f"{i}"} for i in IDS
]
OWN: list[Any] = [{"image": f"{i}.jpg", "text": f"Which {i}?", "label": ["a", i]} for i in IDS]

LISTED: list[Any] = [{"id": i, "file_name": f"{i}.jpg", "width": 30, "height": 20} for i in IDS]
OBJECTS: list[Any] = [
    {"id": i, "image_id": i, "category_id": 3, "bbox": [i, 2.5, 9, 8], "iscrowd": i % 2,
     "area": 60, "segmentation": {"size": [20, 30], "counts": [i, 40, 560 - i]}}
    if i % 2 else
    {"id": i, "image_id": i, "category_id": 3, "bbox": [i, 2.5, 9, 8], "iscrowd": 0,
     "area": 60, "segmentation": [[i, 2, 9, 2, 9, 8]]}
    for i in IDS
]  # fmt: skip


def questions_file(questions: list[Any]) -> bytes:
    return json.dumps({**HEAD, "data_subtype": "train2014", "questions": questions}).encode()


def annotations_file(annotations: list[Any]) -> bytes:
    return json.dumps({**HEAD, "annotations": annotations}).encode()


def images_file(images: list[Any]) -> bytes:
    return json.dumps({"images": images}).encode()


def nocaps_file(images: list[Any]) -> bytes:
    captions = [{"image_id": i, "id": i, "caption": f"dog {i}"} for i in IDS]
    return json.dumps({"images": images, "annotations": captions}).encode()


def instances_file(images: list[Any], objects: list[Any]) -> bytes:
    categories = [{"id": 3, "name": "dog"}]
    whole = {"images": images, "annotations": objects, "categories": categories}
    return json.dumps(whole).encode()


def lines_file(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def read_questions(path: Path) -> Iterable[Example]:
    (path.parent / "annotations.json").write_bytes(annotations_file(ANNOTATIONS))
    return vqav2.read_vqav2([vqav2.QuestionFiles(path, path.parent / "annotations.json")])


def read_annotations(path: Path) -> Iterable[Example]:
    (path.parent / "questions.json").write_bytes(questions_file(QUESTIONS))
    return vqav2.read_vqav2([vqav2.QuestionFiles(path.parent / "questions.json", path)])


def read_own(path: Path) -> Iterable[Example]:
    file = OwnFile(path, ["image", "text", "label"])
    return own_files.read_questions(file, "image", "text", "label")


@dataclass(frozen=True)
class Case:
    """A reader, a good file of its format, and how the file is made of entries."""

    good: bytes
    read: Callable[[Path], Iterable[Example]]
    name: str = "file.json"
    entries: list[Any] | None = None
    write: Callable[[list[Any]], bytes] = lines_file


CASES = {
    "questions": Case(questions_file(QUESTIONS), read_questions, entries=QUESTIONS,
                      write=questions_file),
    "annotations": Case(annotations_file(ANNOTATIONS), read_annotations, entries=ANNOTATIONS,
                        write=annotations_file),
    "nlvr2": Case(lines_file(SENTENCES), nlvr2.read_nlvr2, entries=SENTENCES),
    "coco": Case(images_file(KARPATHY), lambda path: karpathy.read_coco_captions(path, ["train"]),
                 entries=KARPATHY, write=images_file),
    "nocaps": Case(nocaps_file(CAPTIONED), nocaps.read_nocaps, entries=CAPTIONED,
                   write=nocaps_file),
    "objects": Case(instances_file(LISTED, OBJECTS), coco_instances.read_coco_instances,
                    entries=OBJECTS, write=lambda some: instances_file(LISTED, some)),
    "images_of_objects": Case(instances_file(LISTED, OBJECTS), coco_instances.read_coco_instances,
                              entries=LISTED, write=lambda some: instances_file(some, OBJECTS)),
    "own_jsonl": Case(lines_file(OWN), read_own, "file.jsonl", OWN),
    "own_csv": Case(b"image,text,label\n" + b'1.jpg,"a ""b"", c",d|e\n' * 5, read_own, "file.csv"),
    "zip": Case(zip_of_images(), read_class_folder, "file.zip"),
} | {
    corpus: Case(content.encode(), lambda path, corpus=corpus: glue.read_glue(path, corpus),
                 "file.tsv")
    for corpus, (_, content, _, _) in FILES.items() if " " not in corpus
}  # fmt: skip


def check_ends(found: list[Example]) -> None:
    """Check that every example becomes a row or a reject, by an id of its own."""
    assert len({each.id for each in found}) == len(found)
    assert all(bool(each.reason) == bool(each.detail) for each in found)
    for each in found:
        if each.reason:
            rejects_table([reject(each.id, "train", each.reason, each.detail)])
        else:
            texts, labels = list(each.texts), list(each.labels)
            row = {"example_id": each.id, "images": [], "texts": texts, "labels": labels}
            assert table_of([{**row, "main_label": each.main_label}], EXAMPLES).num_rows == 1
            assert all(texts)


@pytest.mark.parametrize("name", CASES)
def test_no_mutated_file_ends_a_reader(name, tmp_path):
    case, rng, num_read = CASES[name], random.Random(name), 0
    path = tmp_path / case.name
    for _ in range(80):
        path.write_bytes(mutated(case.good, rng))
        try:
            check_ends(list(case.read(path)))
            num_read += 1
        except (AnnotationError, ListError, BadZipFile) as error:
            assert str(tmp_path) in str(error) or str(path) in str(error)
    assert num_read


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.entries])
def test_a_bad_entry_harms_no_other(name, tmp_path):
    case, rng = CASES[name], random.Random(name)
    path = tmp_path / case.name
    path.write_bytes(case.good)
    good, entries = list(case.read(path)), case.entries or []
    assert [each.reason for each in good] == [""] * len(entries)
    for _ in range(100):
        row = rng.randrange(len(entries))
        new = anything(rng)
        if rng.random() < 0.6:  # one value of the entry
            new = {**entries[row], rng.choice(list(entries[row])): anything(rng)}
        if row == 0 and isinstance(new, list) and case.write is lines_file:
            continue  # a file that begins as a JSON array is refused by name
        path.write_bytes(case.write([*entries[:row], new, *entries[row + 1 :]]))
        found = list(case.read(path))
        check_ends(found)
        others = [each for each in found if each in good]
        kept = good[:row] + good[row + 1 :]
        assert [each for each in others if each != good[row]] == kept
