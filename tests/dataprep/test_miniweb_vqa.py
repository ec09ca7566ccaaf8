"""The miniature web's files of VQAv2, read as plain JSON.

Answers are found again from the scenes, and some of them from the pixels.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from dataprep.miniweb.corpora import WebSize, build
from dataprep.miniweb.drawn_images import numbered_rng
from dataprep.miniweb.grammar import Scene, random_scene
from tests.dataprep.captions_read import INVERSE
from tests.dataprep.task_webs import background, colors, outcomes, truth

NUMBER_WORDS = ("zero", "one", "two", "three", "four")


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A web with VQAv2."""
    folder = tmp_path_factory.mktemp("vqa") / "miniweb"
    build(folder, WebSize(7, 1, 1, 1, 1, 1, num_vqa=160))
    return folder


def vqa_files(web: Path, split: str) -> tuple[list[dict], dict[int, dict]]:
    questions = json.loads((web / f"vqa/v2_OpenEnded_mscoco_{split}_questions.json").read_text())
    assert questions["data_subtype"] == split and questions["task_type"] == "Open-Ended"
    path = web / f"vqa/v2_mscoco_{split}_annotations.json"
    if not path.exists():
        return questions["questions"], {}
    annotations = json.loads(path.read_text())["annotations"]
    return questions["questions"], {a["question_id"]: a for a in annotations}


def normalized(answer: str) -> str:
    """The parts of the official normalization that concern the answers drawn here."""
    words = answer.lower().replace(".", "").split()
    words = [str(NUMBER_WORDS.index(w)) if w in NUMBER_WORDS else w for w in words]
    return " ".join(w for w in words if w not in ("a", "an", "the"))


def test_vqav2_has_the_published_fields_and_ten_annotators_who_partly_disagree(web):
    rows, agreements, types = truth(web, "vqa"), Counter(), Counter()
    for split in ("train2014", "val2014"):
        questions, annotations = vqa_files(web, split)
        assert annotations.keys() == {q["question_id"] for q in questions}
        assert list(annotations) != [q["question_id"] for q in questions]
        for question in questions:
            assert question.keys() == {"image_id", "question", "question_id"}
            annotation, row = (
                annotations[question["question_id"]],
                rows[split, str(question["question_id"])],
            )
            assert annotation["image_id"] == question["image_id"]
            answers = [entry["answer"] for entry in annotation["answers"]]
            if row["outcome"] == "no_labels":
                assert answers == []
                continue
            assert [entry["answer_id"] for entry in annotation["answers"]] == list(range(1, 11))
            confidences = {entry["answer_confidence"] for entry in annotation["answers"]}
            assert confidences <= {"yes", "maybe", "no"}
            (first, count), *others = Counter(answers).most_common()
            assert first == annotation["multiple_choice_answer"] == row["label"] and count >= 4
            assert all(number < count for _, number in others)
            assert Counter(map(normalized, answers)).most_common(1)[0][0] == first
            agreements[count] += 1
            types[annotation["answer_type"]] += 1
            if question["question"]:
                start = annotation["question_type"]
                assert question["question"].lower().startswith(f"{start} ")
    assert set(range(4, 11)) == set(agreements)
    assert types.keys() == {"yes/no", "number", "other"}


def test_vqav2_test_questions_have_images_elsewhere_and_no_annotations(web):
    questions, annotations = vqa_files(web, "test-dev2015")
    rows = truth(web, "vqa")
    assert questions and not annotations
    for question in questions:
        assert (web / f"vqa/test2015/COCO_test2015_{question['image_id']:012d}.jpg").exists()
        row = rows["test-dev2015", str(question["question_id"])]
        assert row["outcome"] == "ok" and row["label"]


def test_vqav2_answers_agree_with_each_other_and_with_the_pixels(web):
    checked = Counter()
    for row in truth(web, "vqa").values():
        if row["outcome"] != "ok":
            continue
        (image,), (text,), answer = row["images"], row["texts"], row["label"]
        if text == "What color is the background?":
            assert background(web / image) == answer
            checked["background"] += 1
        elif found := re.fullmatch(r"Is the background (\w+)\?", text):
            assert (background(web / image) == found[1]) == (answer == "yes")
            checked[f"background {answer}"] += 1
        elif re.match(r"What color (is|are) the", text):
            assert answer in colors(web / image)
            checked["color"] += 1
        elif (found := re.fullmatch(r"What shape is (\w+)\?", text)) is not None:
            assert found[1] in colors(web / image)
            checked["shape"] += 1
    assert len(checked) == 5 and min(checked.values()) > 10, checked


PLACES = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}
NOUN = r"(circle|square|triangle|star|ring|cross|diamond|hexagon)(?:e?s)?"
RELATION = "(left of|right of|above|below)"


def answered(scene: Scene, text: str) -> str | None:
    """The answer to a question about shapes; None if it is about the background."""
    groups = {group.shape: group for group in scene.groups}
    relations = dict(zip(groups, (scene.relation, INVERSE[scene.relation]), strict=False))
    if found := re.fullmatch(rf"What color (?:is|are) the {NOUN}\?", text):
        return groups[found[1]].color
    if found := re.fullmatch(r"What shape is (\w+)\?", text):
        return next(group.shape for group in scene.groups if group.color == found[1])
    if found := re.fullmatch(rf"How many {NOUN} are there\?", text):
        return str(groups[found[1]].count if found[1] in groups else 0)
    if found := re.fullmatch(rf"(?:Is|Are) the {NOUN} plain, striped or dotted\?", text):
        return groups[found[1]].texture
    if found := re.fullmatch(rf"Where (?:is|are) the {NOUN}\?", text):
        return PLACES[relations[found[1]]]
    if found := re.fullmatch(rf"Is there an? (\w+) {NOUN}\?", text):
        is_true = found[2] in groups and groups[found[2]].color == found[1]
    elif found := re.fullmatch(rf"(?:Is|Are) there (one|two|three|four) {NOUN}\?", text):
        is_true = groups[found[2]].count == NUMBER_WORDS.index(found[1])
    elif found := re.fullmatch(rf"(?:Is|Are) the {NOUN} {RELATION} the {NOUN}\?", text):
        is_true = relations[found[1]] == found[2]
    else:
        assert "background" in text, text
        return None
    return "yes" if is_true else "no"


def test_vqav2_answers_about_shapes_are_those_of_the_scene(web):
    checked = Counter()
    for row in truth(web, "vqa").values():
        if row["texts"] and row["label"]:
            number = (int(row["example_id"]) // 1000 - 9) // 7
            answer = answered(random_scene(numbered_rng(7, 20, number)), row["texts"][0])
            assert answer in (None, row["label"]), row
            checked[row["texts"][0].split(" the ")[0].split(" there ")[0], answer] += 1
    assert min(checked["Where is", place] for place in PLACES.values()) > 0
    assert min(checked["Is", "yes"], checked["Is", "no"]) > 10


def test_vqav2_names_each_planted_fault(web):
    rows = truth(web, "vqa")
    assert outcomes(rows) == {"ok", "missing_file", "empty_text", "no_labels"}
    for row in rows.values():
        (image,) = row["images"]
        assert (web / image).exists() == (row["outcome"] != "missing_file")
        assert bool(row["texts"]) == (row["outcome"] != "empty_text")
        assert bool(row["label"]) == (row["outcome"] != "no_labels")
