"""``prepare`` on the drawn files of every task: kept and rejected as the web's own truth says.

The web is drawn by other code than the readers, from the published formats.
"""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from dataprep.miniweb.corpora import TASK_TRUTH, WebSize, build
from model.metrics.vqa import accuracy
from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.finetune import prepare
from pipelines.finetune.formats.registry import AnyFormat
from pipelines.finetune.registry import TASKS
from tests.in_process import run_in_process

SIZE = WebSize(
    seed=5, num_cc3m=1, num_cc12m=1, num_classes=1, num_images_per_class=1, num_documents=1,
    num_vqa=90, num_nlvr2=120, num_coco_retrieval=90, num_flickr30k=90, num_nocaps=160,
    num_imagenet1k_classes=5, num_images_per_imagenet1k_class=30, num_glue=120,
    num_coco_instances=120, num_ade20k=240,
)  # fmt: skip
NAMES = {str(task.model_fields["name"].annotation.__args__[0]): task for task in TASKS}


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    build(folder, SIZE)
    return folder


def vqa(split: str, images: str, annotated: bool = True) -> dict:
    files = {"questions": f"vqa/v2_OpenEnded_mscoco_{split}_questions.json", "images": images}
    if annotated:
        files["annotations"] = f"vqa/v2_mscoco_{split}_annotations.json"
    return {"format": "vqav2", "files": [files]}


def karpathy(source: str, *splits: str) -> dict:
    if source == "flickr30k":
        images = {"images": "flickr30k/flickr30k-images"}
        return {"format": "flickr30k_captions", "splits": list(splits),
                "annotations": "flickr30k/dataset_flickr30k.json", **images}  # fmt: skip
    return {"format": "coco_captions", "splits": list(splits),
            "annotations": "coco_retrieval/dataset_coco.json",
            "train_images": "coco_retrieval/train2014",
            "val_images": "coco_retrieval/val2014"}  # fmt: skip


def nocaps(split: str) -> dict:
    name = {"val": "nocaps_val_4500_captions", "test": "nocaps_test_image_info"}[split]
    return {"format": "nocaps", "annotations": f"nocaps/{name}.json",
            "images": f"nocaps/images/{split}"}  # fmt: skip


def nlvr2(split: str) -> dict:
    return {"format": "nlvr2", "file": f"nlvr2/data/{split}.json", "images": "nlvr2/images"}


def coco(split: str, images: str, annotated: bool = True) -> dict:
    return {"format": "coco_instances", "annotations": f"coco2017/annotations/{split}.json",
            "images": f"coco2017/{images}", "annotated": annotated}  # fmt: skip


def glue(folder: str, corpus: str, split: str) -> dict:
    return {"format": "glue", "corpus": corpus, "file": f"glue_data/{folder}/{split}.tsv"}


def ade20k(split: str) -> dict:
    root = "ADEChallengeData2016"
    return {
        "format": "ade20k",
        "images": f"{root}/images/{split}",
        "masks": f"{root}/annotations/{split}",
        "classes": f"{root}/objectInfo150.txt",
    }


GLUE = {"CoLA": "cola", "SST-2": "sst2", "MRPC": "mrpc", "RTE": "rte", "STS-B": "stsb"}
SPLITS = [
    ("vqa", "vqa", "train2014", vqa("train2014", "vqa/train2014")),
    ("vqa", "vqa", "val2014", vqa("val2014", "vqa/val2014")),
    ("vqa", "vqa", "test-dev2015", vqa("test-dev2015", "vqa/test2015", annotated=False)),
    *(("nlvr2", "nlvr2", split, nlvr2(split)) for split in ("train", "dev", "test1")),
    *(
        ("retrieval", source, split, karpathy(source, split))
        for source in ("coco_retrieval", "flickr30k")
        for split in ("train", "val", "test")
    ),
    ("captioning", "coco_retrieval", "val", karpathy("coco_retrieval", "val")),
    *(("captioning", "nocaps", split, nocaps(split)) for split in ("val", "test")),
    *(
        ("image_classification", "imagenet", split, {"format": "class_folder",
                                                     "folder": f"imagenet/{split}"})
        for split in ("train", "val")
    ),
    *(
        ("detection", "coco2017", name, coco(name, images, annotated=images != "test2017"))
        for name, images in (("instances_train2017", "train2017"),
                             ("instances_val2017", "val2017"),
                             ("image_info_test-dev2017", "test2017"))
    ),
    *(
        ("segmentation", "ADEChallengeData2016", split, ade20k(split))
        for split in ("training", "validation")
    ),
    *(
        ("text_classification", f"glue/{folder}", split, glue(folder, corpus, split))
        for folder, corpus in GLUE.items()
        for split in ("train", "dev", "test")
    ),
]  # fmt: skip


def located(value, web: Path):
    """Return a section with its paths in the web."""
    if isinstance(value, dict):
        return {
            key: inner
            if key in ("format", "corpus", "splits", "annotated")
            else located(inner, web)
            for key, inner in value.items()
        }
    return [located(v, web) for v in value] if isinstance(value, list) else str(web / value)


@pytest.mark.parametrize(("name", "task", "split", "section"), SPLITS)
def test_every_drawn_example_ends_as_the_truth_says(web, tmp_path, name, task, split, section):
    needs = NAMES[name]
    is_test = "test" in split
    stage = prepare.stage(
        TypeAdapter(AnyFormat).validate_python(located(section, web)),
        split="test" if is_test else "train",
        num_images=needs.num_images,
        num_texts=needs.num_texts,
        needs_labels=needs.needs_labels and not is_test,
    )
    folder = Store(tmp_path)
    run_in_process(stage, folder, {})
    kept = Dataset.open(folder).read().to_pylist()
    rejects = Dataset.open(folder, "rejects").read()["reason"].to_pylist()
    truth = [
        row
        for row in pq.read_table(web / TASK_TRUTH).to_pylist()
        if row["task"] == task and row["split"] in (split, "unused")
    ]
    # An example of no known split is told in every one, as nobody knows where it belongs.
    assert Counter(rejects) == Counter(r["outcome"] for r in truth if r["outcome"] != "ok")
    good = [row for row in truth if row["outcome"] == "ok"]
    by_id = name in ("image_classification", "detection", "segmentation") or task == "nocaps"
    key = (lambda row: row["example_id"]) if by_id else (lambda row: row["texts"][0].strip())
    assert Counter(map(key, kept)) == Counter(map(key, good))
    assert {len(row["images"]) for row in kept} == {needs.num_images}
    if name in ("image_classification", "nlvr2") and not is_test:
        by_id = {row["example_id"]: row for row in good}
        for row in kept:
            assert row["labels"] == [by_id[row["example_id"]]["label"]]
    if name == "detection" and not is_test:
        by_id = {row["example_id"]: row for row in good}
        for row in kept:
            classes = sorted(filter(None, by_id[row["example_id"]]["label"].split(", ")))
            assert sorted(row["labels"]) == classes and len(row["objects"]) == len(classes)
    if name == "segmentation":
        by_id = {row["example_id"]: row for row in good}
        for row in kept:
            truth = set(by_id[row["example_id"]]["label"].split(", "))
            assert {*row["labels"]} == truth and len(row["labels"]) == len(truth)
            shown = cv2.imdecode(np.frombuffer(row["label_map"], np.uint8), cv2.IMREAD_UNCHANGED)
            assert [*shown.shape[::-1]] == row["size"]
            assert {*np.unique(shown).tolist()} - {255} == {*range(len(truth))}
    if name == "vqa" and not is_test:
        by_id = {row["example_id"]: row for row in good}
        for row in kept:
            assert len(row["labels"]) == 10
            assert accuracy(by_id[row["example_id"]]["label"], row["labels"]) == 1.0
