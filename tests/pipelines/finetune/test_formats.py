"""The registry of formats: what a recipe relies on for every one of them."""

from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from dataprep.sources.annotations import AnnotationError
from orchestration.errors import RecipeError
from orchestration.fingerprint import semantic
from orchestration.params import external_files
from pipelines.finetune.formats.format import ImageTaskFormat, TaskFormat
from pipelines.finetune.formats.registry import FORMATS, AnyFormat
from pipelines.finetune.prepare import expects

SECTIONS = {
    "vqav2": {"files": [{"questions": "/q", "annotations": "/a", "images": "/i"}]},
    "nlvr2": {"file": "/f", "images": "/i"},
    "coco_captions": {"annotations": "/a", "val_images": "/i", "splits": ["val"]},
    "coco_instances": {"annotations": "/a", "images": "/i"},
    "flickr30k_captions": {"annotations": "/a", "images": "/i", "splits": ["test"]},
    "nocaps": {"annotations": "/a", "images": "/i"},
    "pretraining_pairs": {"workdir": "/w"},
    "ade20k": {"images": "/i", "masks": "/m", "classes": "/c"},
    "label_folders": {"images": "/i", "classes": "/c.csv"},
    "class_folder": {"folder": "/f"},
    "glue": {"corpus": "rte", "file": "/f"},
    "own_questions": {"file": "/f.csv"},
    "own_image_pairs": {"file": "/f.csv"},
    "own_captions": {"file": "/f.csv"},
    "own_labels": {"file": "/f.csv"},
    "own_sentences": {"file": "/f.csv"},
}
ADAPTER: TypeAdapter[TaskFormat] = TypeAdapter(AnyFormat)


def test_every_format_has_one_class():
    assert [get_args(each.model_fields["format"].annotation) for each in FORMATS] == [
        (name,) for name in SECTIONS
    ]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_smallest_section_gives_a_format_whose_fields_are_described(name):
    found = ADAPTER.validate_python(SECTIONS[name] | {"format": name})
    assert found.format == name and found.tasks
    assert isinstance(found, ImageTaskFormat) == bool(found.image_paths())
    assert not [key for key, field in type(found).model_fields.items() if not field.description]
    assert list(external_files(found)), "each of its files enters the fingerprint"
    with pytest.raises(ValidationError, match="extra"):
        ADAPTER.validate_python(SECTIONS[name] | {"format": name, "color": 1})


def test_every_task_has_a_published_format_and_one_of_own_data():
    published = {task for each in FORMATS for task in each.tasks if "own" not in each.__name__}
    own = {task for each in FORMATS for task in each.tasks if each.__name__.startswith("Own")}
    assert published >= own == {
        "vqa", "nlvr2", "retrieval", "captioning", "image_classification", "text_classification",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"format": "coco_captions", "annotations": "/a", "splits": ["train"], "val_images": "/i"},
         "train_images is missing"),
        ({"format": "coco_captions", "annotations": "/a", "splits": ["test"], "train_images": "/i"},
         "val_images is missing"),
        ({"format": "own_labels", "file": "https://example.org/own.csv"}, "images is missing"),
        ({"format": "vqav2", "files": []}, "at least 1"),
    ],
)  # fmt: skip
def test_what_a_format_needs_is_told_by_the_recipe(section, words):
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python(section)


def test_a_plan_names_a_file_of_objects_that_is_cut_off(tmp_path):
    path = tmp_path / "instances.json"
    section = {"format": "coco_instances", "annotations": str(path), "images": str(tmp_path)}
    path.write_text('{"images": [], "annotations": [{"id": 1, "bbox": [1, 2')
    with pytest.raises(RecipeError, match=r"instances\.json: not JSON .the file is cut off"):
        expects(ADAPTER.validate_python(section))


@pytest.mark.parametrize("name", [n for n, section in SECTIONS.items() if "file" in section])
def test_a_plan_names_a_folder_in_the_place_of_a_file(tmp_path, name):
    section = SECTIONS[name] | {"format": name, "file": str(tmp_path)}
    with pytest.raises(RecipeError, match=f"^{tmp_path}: a folder; name a file in the recipe"):
        expects(ADAPTER.validate_python(section))


@pytest.mark.parametrize("name", ["ade20k", "label_folders"])
def test_a_plan_names_a_folder_in_the_place_of_the_classes(tmp_path, name):
    section = dict.fromkeys(SECTIONS[name], str(tmp_path)) | {"format": name}
    with pytest.raises(RecipeError, match=f"^{tmp_path}: a folder; name the file that lists"):
        expects(ADAPTER.validate_python(section))


@pytest.mark.parametrize("name", ["vqav2", "coco_captions", "flickr30k_captions", "nocaps"])
def test_a_folder_in_the_place_of_annotations_is_named(tmp_path, name):
    files = {"questions": str(tmp_path), "annotations": str(tmp_path), "images": str(tmp_path)}
    section = SECTIONS[name] | {"format": name}
    section |= {"files": [files]} if name == "vqav2" else {"annotations": str(tmp_path)}
    with pytest.raises(AnnotationError, match=rf"^{tmp_path}: not .* \(a folder\)$"):
        list(ADAPTER.validate_python(section).examples())


def test_the_files_of_a_format_enter_its_fingerprint_by_content(tmp_path):
    def format_of(folder):
        (tmp_path / folder).mkdir()
        for name in ("questions.json", "annotations.json"):
            (tmp_path / folder / name).write_text("{}")
        return ADAPTER.validate_python({
            "format": "vqav2",
            "files": [{
                "questions": str(tmp_path / folder / "questions.json"),
                "annotations": str(tmp_path / folder / "annotations.json"),
                "images": str(tmp_path / folder),
            }],
        })  # fmt: skip

    one, other = format_of("a"), format_of("b")
    before = semantic(one)
    assert before == semantic(other)
    (tmp_path / "b/questions.json").write_text("[]")
    assert semantic(other) != before
    assert semantic(one.model_copy(update={"part": "dev"})) != before
