"""VQAv2: ``v2_OpenEnded_mscoco_<split>_questions.json``, ``v2_mscoco_<split>_annotations.json``.

Format: https://visualqa.org/download.html. ``questions[]`` holds ``question_id``, ``image_id`` and
``question``; ``annotations[]`` holds ``question_id``, ``multiple_choice_answer`` and
``answers[].answer`` of ten annotators. ``data_subtype`` of the questions names the split, and with
it the images: ``COCO_<split>_%012d.jpg``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from dataprep.randomness import rng_of
from dataprep.sources.annotations import (
    MALFORMED_ENTRY,
    AnnotationError,
    json_elements,
    json_member,
)
from dataprep.sources.names import DistinctNames
from dataprep.tasks.example import NO_LABELS, Example, bad, checked, example_of, problem_of

Part = Literal["all", "train", "dev"]
_EXPECTED: Final = "a file of VQAv2's {}"
_SUBTYPE: Final = "data_subtype"
_IMAGE_SPLITS: Final = {"test-dev2015": "test2015"}
"Splits whose images are those of another."
_TYPES: Final = {"question_id": (int, str), "image_id": (int,), "question": (str,)}
_ANSWER_TYPES: Final = {"question_id": (int, str), "answers": (list,)}


@dataclass(frozen=True)
class QuestionFiles:
    """The files of one published split."""

    questions: Path
    annotations: Path | None
    "None for a split without published answers."


@dataclass(frozen=True)
class _Answers:
    where: str
    labels: tuple[str, ...]
    main: str
    problem: str | None = None
    "Why the annotation cannot be read; None for a good one."


def read_vqav2(
    files: Sequence[QuestionFiles], part: Part = "all", num_dev_images: int = 1000, seed: int = 0
) -> Iterator[Example]:
    """Yield the questions of one or several published splits, in their order.

    Args:
        files: files of the splits.
        part: ``dev`` stands for the questions of ``num_dev_images`` validation images, ``train``
            for all others.
        num_dev_images: number of validation images that are drawn.
        seed: seed of the draw, which depends on nothing but the ids of the images.

    Raises:
        AnnotationError: a file has another format, or ``part`` needs more validation images.
        ListError: no question of a file can be read.
    """
    splits = [_split_of(each.questions) for each in files]
    drawn = frozenset[int]() if part == "all" else _draw(files, splits, num_dev_images, seed)
    names = DistinctNames()
    for each, split in zip(files, splits, strict=True):
        is_val = split.startswith("val")
        if is_val or part != "dev":
            found = (
                example
                for example, image_id in _read(each, split)
                if part == "all" or (is_val and image_id in drawn) == (part == "dev")
            )
            yield from checked(found, each.questions, names)


def _read(files: QuestionFiles, split: str) -> Iterator[tuple[Example, int | None]]:
    """Yield (example, id of its image if it is known) for each question.

    An annotation without a question is a reject of its own.
    """
    name = files.questions.name
    answers = _AnswersByQuestion(files.annotations)
    for i, question in enumerate(_elements(files.questions, "questions")):
        where = f"{name}: questions[{i}]"
        image_id = question.get("image_id") if isinstance(question, dict) else None
        image_id = image_id if isinstance(image_id, int) else None
        if problem := problem_of(question, _TYPES):
            yield bad(f"entry-{i}", where, MALFORMED_ENTRY, problem), image_id
            continue
        id_ = str(question["question_id"])
        example = example_of(
            id_,
            where,
            images=[f"COCO_{_IMAGE_SPLITS.get(split, split)}_{image_id:012d}.jpg"],
            texts=[question["question"]],
        )
        yield (answers.added(example, where) if files.annotations else example), image_id
    for example in answers.rest(name):
        yield example, None


class _AnswersByQuestion:
    """The annotations of a file by question, of which few are held if the orders are equal."""

    def __init__(self, path: Path | None) -> None:
        self._path = path or Path()
        self._entries = enumerate(_elements(path, "annotations") if path else ())
        self._held: dict[str, _Answers] = {}
        self._num_found = 0

    def added(self, example: Example, where: str) -> Example:
        """Return a question with its answers, or as a reject."""
        while example.id not in self._held and (entry := next(self._entries, None)):
            self._hold(*entry)
        found = self._held.pop(example.id, None)
        self._num_found += found is not None
        if example.reason:
            return example
        if found is None:
            problem = f"{self._path.name} has no annotation of question {example.id}"
            return bad(example.id, where, NO_LABELS, problem)
        if found.problem:
            return bad(example.id, found.where, MALFORMED_ENTRY, found.problem)
        if not found.labels:
            return bad(example.id, found.where, NO_LABELS, "an empty list of answers")
        return replace(example, labels=found.labels, main_label=found.main)

    def rest(self, questions: str) -> Iterator[Example]:
        """Yield the annotations that no question was found for; ``questions`` names their file.

        Raises:
            AnnotationError: the annotations are those of other questions.
        """
        for entry in self._entries:
            self._hold(*entry)
        if self._held and not self._num_found:
            raise AnnotationError(f"{self._path}: no annotation is of a question of {questions}")
        for id_, answers in self._held.items():
            problem = answers.problem or f"{questions} has no question {id_}"
            yield bad(f"annotation-{id_}", answers.where, MALFORMED_ENTRY, problem)

    def _hold(self, number: int, entry: Any) -> None:
        where = f"{self._path.name}: annotations[{number}]"
        problem = problem_of(entry, _ANSWER_TYPES)
        answers = [] if problem else entry["answers"]
        texts: list[Any] = [
            each.get("answer") if isinstance(each, dict) else None for each in answers
        ]
        main: Any = entry.get("multiple_choice_answer", "") if isinstance(entry, dict) else ""
        if not all(isinstance(text, str) for text in (*texts, main)):
            problem, texts, main = problem or "an answer is no text", [], ""
        id_ = entry.get("question_id") if isinstance(entry, dict) else None
        key = str(id_) if isinstance(id_, int | str) else f"entry-{number}"
        if key in self._held:  # a question has one annotation
            key, problem = f"{key}+{number}", f"another annotation of question {key}"
        self._held[key] = _Answers(where, tuple(texts), main, problem)


def _draw(
    files: Sequence[QuestionFiles], splits: Sequence[str], num_images: int, seed: int
) -> frozenset[int]:
    """Return the ids of the validation images that are drawn for ``dev``."""
    ids = {
        question["image_id"]
        for each, split in zip(files, splits, strict=True)
        if split.startswith("val")
        for question in _elements(each.questions, "questions")
        if isinstance(question, dict) and isinstance(question.get("image_id"), int)
    }
    if len(ids) <= num_images:
        names = ", ".join(each.questions.name for each in files)
        raise AnnotationError(
            f"{names}: questions of {len(ids)} validation images, num_dev_images = {num_images} "
            "needs more; add the files of val2014, or set part: all"
        )
    drawn = rng_of(seed, "vqav2", "dev").choice(sorted(ids), num_images, replace=False)
    return frozenset(drawn.tolist())


def _split_of(path: Path) -> str:
    """Return the published split of a file of questions."""
    expected = _EXPECTED.format("questions")
    split = json_member(path, _SUBTYPE, expected)
    if not isinstance(split, str):
        raise AnnotationError(f"{path}: not {expected} (no text {_SUBTYPE}, such as train2014)")
    return split


def _elements(path: Path, key: str) -> Iterator[Any]:
    return json_elements(path, key, _EXPECTED.format(key))
