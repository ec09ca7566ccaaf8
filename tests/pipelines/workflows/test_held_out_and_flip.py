"""What a recipe says of held-out sources and of flips reaches the stages that it concerns."""

import numpy as np
import pytest

from orchestration.fingerprint import fingerprint_of
from orchestration.stage import Stage
from pipelines.readers.kept_images import cut_views
from pipelines.workflows.pretrain import build_workflow
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from tests.pipelines.ingest.test_store_images import STORED, damaged_dataset, kept

CUTTING = {"image_tokenizer", "image_tokens", "pair_tokens"}
AFTER = {"pretrain", "evaluate", "export"}


def recipe(tmp_path, **changes) -> PretrainRecipe:
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    (folder / "a.jpg").write_bytes(STORED.jpeg)
    for name in ("texts.txt", "more.txt"):
        (tmp_path / name).write_text("a text")
    (tmp_path / "list.csv").write_text("url,caption\nimages/a.jpg,an image\n")
    values = {
        "name": "own",
        "sources": {
            "photos": {"format": "image_folder", "folder": str(folder)},
            "pairs": {"format": "csv", "list": str(tmp_path / "list.csv")},
            "texts": {"format": "txt", "file": str(tmp_path / "texts.txt")},
        },
        "download": {"contact": "me@example.org"},
    }
    for section, value in changes.items():
        values[section] = {**values.get(section, {}), **value} if isinstance(value, dict) else value
    return PretrainRecipe.model_validate(values)


def fingerprints(recipe: PretrainRecipe) -> dict[str, str]:
    made: dict[str, str] = {}
    for stage in build_workflow(recipe).stages:
        made[stage.name] = fingerprint_of(stage.identity(made))
    return made


def changed(one: PretrainRecipe, other: PretrainRecipe) -> set[str]:
    before, after = fingerprints(one), fingerprints(other)
    return {name for name in before if before[name] != after[name]}


def stages(recipe: PretrainRecipe) -> dict[str, Stage]:
    return {stage.name: stage for stage in build_workflow(recipe).stages}


def test_one_field_switches_the_flips_of_every_stage_that_cuts_crops(tmp_path):
    without = recipe(tmp_path, flip=False)
    made = stages(without)
    assert {n for n, s in made.items() if getattr(s.params, "flip", None) is False} == CUTTING
    assert changed(recipe(tmp_path), without) == CUTTING | AFTER


def test_crops_of_the_tokenizer_s_training_are_mirrored_only_if_the_recipe_flips(tmp_path):
    images = kept(tmp_path, damaged_dataset(tmp_path, STORED.jpeg))

    def crops(view: int, flip: bool):
        numbers = np.array([0])
        return cut_views(
            images, numbers, min_crop_scale=0.9, seed=0, view=view, size=32, flip=flip
        )[0]

    pairs = [(crops(view, True), crops(view, False)) for view in range(20)]
    mirrored = [not np.array_equal(a, b) for a, b in pairs]
    assert 3 < sum(mirrored) < 17
    for (a, b), was_mirrored in zip(pairs, mirrored, strict=True):
        assert np.array_equal(a, b[:, ::-1] if was_mirrored else b)


def test_holding_out_a_source_reads_no_source_again(tmp_path):
    more = {"format": "txt", "file": str(tmp_path / "more.txt")}
    one = recipe(tmp_path, sources={"more": more})
    other = recipe(tmp_path, sources={"more": {**more, "held_out": True}})
    assert {"text_tokens", *AFTER} <= changed(one, other) <= {"text_tokens", "data_report", *AFTER}
    assert stages(other)["text_tokens"].inputs["held_out"] == ("documents/more",)
    photos = {"format": "image_folder", "folder": str(tmp_path / "images"), "labels": True}
    one = recipe(tmp_path, sources={"others": photos})
    other = recipe(tmp_path, sources={"others": {**photos, "held_out": True}})
    tokens = {"image_tokens", "pair_tokens"}
    assert {*tokens, *AFTER} <= changed(one, other) <= {*tokens, "data_report", *AFTER}
    assert stages(other)["pair_tokens"].inputs["held_out"] == ("import/others",)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("sources", "captions that is not held_out is needed"),
        ("evaluation_sets", r"evaluation_sets.pairs.held_out: .* never trained on"),
    ],
)
def test_a_held_out_source_is_refused_where_it_makes_no_sense(tmp_path, section, words):
    values = recipe(tmp_path).model_dump()
    held_out = {"pairs": values["sources"]["pairs"] | {"held_out": True}}
    values[section] = {**values[section], **held_out}
    with pytest.raises(ValueError, match=words):
        PretrainRecipe.model_validate(values)
