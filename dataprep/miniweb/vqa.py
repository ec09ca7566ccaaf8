"""VQAv2: questions about COCO images, with the answers of ten annotators.

    vqa/v2_OpenEnded_mscoco_{train2014,val2014,test-dev2015}_questions.json
    vqa/v2_mscoco_{train2014,val2014}_annotations.json
    vqa/{train2014,val2014,test2015}/COCO_<folder>_<image id, 12 digits>.jpg

As in the published files, the images of ``test-dev2015`` are in ``test2015``, and its questions
have no annotations. Annotations are in another order than the questions. Faults: an image that is
not there (``missing_file``, for all of its questions), a question without text (``empty_text``) and
one without answers (``no_labels``). Format: https://visualqa.org/download.html.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dataprep.miniweb.drawn_images import ImageRenderer, numbered_rng
from dataprep.miniweb.grammar import random_scene
from dataprep.miniweb.questions import Question, annotators_answers, draw_questions
from dataprep.miniweb.task_images import TaskImage, fault_of, small_image, split_of, write_images
from dataprep.miniweb.truth import TaskRow

VQA: Final = "vqa"
_QUESTIONS: Final = 4
"Questions per image."
_SPLITS: Final = {"train": "train2014", "dev": "val2014", "test": "test-dev2015"}
_FOLDERS: Final = {"train2014": "train2014", "val2014": "val2014", "test-dev2015": "test2015"}
_SOURCE: Final = 20
_FAULTS: Final = ("empty_text", "no_labels")


@dataclass
class _Written:
    """The entries of one split's files."""

    questions: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def write_vqa(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[TaskRow]:
    """Write ``vqa/`` with questions about ``number`` images."""
    written = {name: _Written() for name in _FOLDERS}
    rows, images = list[TaskRow](), list[TaskImage]()
    for i in range(number):
        rng = numbered_rng(seed, _SOURCE, i)
        split, scene = split_of(i), random_scene(rng)
        name, image_id = _SPLITS[split], 9 + 7 * i
        place = f"{VQA}/{_FOLDERS[name]}/COCO_{_FOLDERS[name]}_{image_id:012d}.jpg"
        of_image = fault_of(i, split, ("missing_file",))
        drawn = small_image(scene, rng, (seed, _SOURCE, i))
        images.append(TaskImage(folder / place, drawn, of_image))
        for j, question in enumerate(draw_questions(scene, _QUESTIONS, rng)):
            of_question = fault_of(_QUESTIONS * i + j, split, _FAULTS)
            outcome = of_question if of_image == "ok" else of_image
            entry = {
                "image_id": image_id,
                "question": "" if outcome == "empty_text" else question.text,
                "question_id": 1000 * image_id + j,
            }
            written[name].questions.append(entry)
            answers = [] if outcome == "no_labels" else annotators_answers(question.answer, rng)
            written[name].annotations.append(_annotation(entry, question, answers))
            rows.append(
                TaskRow(
                    VQA,
                    name,
                    str(entry["question_id"]),
                    outcome,
                    (place,),
                    (question.text,) if entry["question"] else (),
                    question.answer if answers else "",
                )
            )
    write_images(renderer, images)
    for name, entries in written.items():
        _write_files(folder / VQA, name, entries)
    return rows


def _annotation(
    entry: dict[str, Any], question: Question, answers: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "question_type": question.type,
        "multiple_choice_answer": question.answer if answers else "",
        "answers": answers,
        "image_id": entry["image_id"],
        "answer_type": question.answer_type,
        "question_id": entry["question_id"],
    }


def _write_files(folder: Path, split: str, entries: _Written) -> None:
    folder.mkdir(exist_ok=True)
    head = {
        "info": {"description": "VQA v2.0 of the miniature web", "version": "2.0"},
        "license": {"name": "none", "url": "http://cdn.miniweb.test/license"},
        "data_type": "mscoco",
        "data_subtype": split,
    }
    questions = {**head, "task_type": "Open-Ended", "questions": entries.questions}
    path = folder / f"v2_OpenEnded_mscoco_{split}_questions.json"
    path.write_text(json.dumps(questions))
    if split != "test-dev2015":
        annotations = {**head, "annotations": entries.annotations[::-1]}
        (folder / f"v2_mscoco_{split}_annotations.json").write_text(json.dumps(annotations))
