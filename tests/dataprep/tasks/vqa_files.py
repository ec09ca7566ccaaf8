"""Files of VQAv2, written by hand in the published form."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = {
    "info": {"description": "This is v2.0 of the VQA dataset.", "version": "2.0", "year": 2017},
    "task_type": "Open-Ended",
    "data_type": "mscoco",
    "license": {"url": "http://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"},
}


def question(image_id: int, number: int, text: str) -> dict[str, Any]:
    return {"image_id": image_id, "question": text, "question_id": image_id * 1000 + number}


def annotation(image_id: int, number: int, *answers: str) -> dict[str, Any]:
    given = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": i}
        for i, answer in enumerate(answers, start=1)
    ]
    return {
        "question_type": "what is this",
        "multiple_choice_answer": max(answers, key=answers.count, default=""),
        "answers": given,
        "image_id": image_id,
        "answer_type": "other",
        "question_id": image_id * 1000 + number,
    }


def write_questions(folder: Path, split: str, questions: Sequence[Any]) -> Path:
    path = folder / f"v2_OpenEnded_mscoco_{split}_questions.json"
    path.write_text(json.dumps({**HEAD, "data_subtype": split, "questions": questions}))
    return path


def write_annotations(folder: Path, split: str, annotations: Sequence[Any]) -> Path:
    path = folder / f"v2_mscoco_{split}_annotations.json"
    path.write_text(json.dumps({**HEAD, "data_subtype": split, "annotations": annotations}))
    return path
