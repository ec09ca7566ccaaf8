"""The miniature web's files of NLVR2, retrieval and ImageNet-1K, read by other programs.

What is right is found again from the words and the pixels. The files of VQAv2 and of GLUE have
their own tests: ``test_miniweb_vqa.py``, ``test_miniweb_glue.py``.
"""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError
from torchvision.datasets import ImageFolder

from dataprep.miniweb.corpora import TASK_TRUTH, WebSize, build
from dataprep.miniweb.grammar import COLORS
from tests.dataprep.captions_read import facts_of
from tests.dataprep.task_webs import background, colors, num_shapes, outcomes, pixels, truth

ONE_BACKGROUND = re.compile(
    r"Only the (left|right) picture shows a (\w+) background"
    r"|background is (\w+) in the (left|right) picture only"
)


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A web with the files of these tasks, and as little else as possible."""
    folder = tmp_path_factory.mktemp("tasks") / "miniweb"
    sizes = {"num_nlvr2": 260, "num_coco_retrieval": 200, "num_flickr30k": 120, "num_nocaps": 240}
    classes = {"num_imagenet1k_classes": 10, "num_images_per_imagenet1k_class": 20}
    build(folder, WebSize(7, 1, 1, 1, 1, 1, **sizes, **classes))
    return folder


def nlvr2_files(web: Path, split: str) -> list[dict]:
    lines = (web / f"nlvr2/data/{split}.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_nlvr2_names_images_as_published(web):
    rows = truth(web, "nlvr2")
    for split in ("train", "dev", "test1"):
        entries = nlvr2_files(web, split)
        assert entries
        for entry in entries:
            assert ("directory" in entry) == (split == "train")
            assert re.fullmatch(rf"{split}-\d+-\d+-\d+", entry["identifier"])
            folder = f"train/{entry['directory']}" if split == "train" else split
            stem = entry["identifier"].rsplit("-", 1)[0]
            images = [f"nlvr2/images/{folder}/{stem}-img{side}.png" for side in (0, 1)]
            row = rows.pop((split, entry["identifier"]))
            assert row["images"] == images
            there = [(web / image).exists() for image in images]
            assert there == [True, row["outcome"] != "missing_file"]
            assert row["texts"] == ([entry["sentence"]] if entry["sentence"] else [])
            assert row["label"] == entry.get("label", "")
            assert (row["outcome"] == "no_labels") == ("label" not in entry)
            assert (row["outcome"] == "empty_text") == (entry["sentence"] == "")
    assert not rows
    assert outcomes(truth(web, "nlvr2")) == {"ok", "missing_file", "empty_text", "no_labels"}


def test_nlvr2_sentences_are_true_of_half_of_their_pairs(web):
    for split in ("train", "dev", "test1"):
        labels = defaultdict(list)
        for entry in nlvr2_files(web, split):
            _, set_, _, sentence = entry["identifier"].split("-")
            labels[set_, sentence].append(entry.get("label"))
        for found in labels.values():
            assert len(found) == 4
            assert found.count("True") <= 2 and found.count("False") <= 2


def test_nlvr2_labels_agree_with_the_pixels(web):
    checked = Counter()
    for row in truth(web, "nlvr2").values():
        if row["outcome"] != "ok":
            continue
        paths, (text,) = [web / image for image in row["images"]], row["texts"]
        kind = None
        if "same" in text:
            kind, holds = "same", len({background(path) for path in paths}) == 1
        elif found := ONE_BACKGROUND.search(text):
            side, name = found[1] or found[4], found[2] or found[3]
            there = [background(path) == name for path in paths]
            kind, holds = "only", there == [side == "left", side == "right"]
        elif found := re.search(r"more shapes (?:in|than) the (left|right) (picture|one)", text):
            left, right = map(num_shapes, paths)
            is_left = (found[1] == "left") == (found[2] == "picture")
            kind, holds = "more", left > right if is_left else left < right
        elif found := re.search(rf"\b({'|'.join(COLORS)})\b", text):
            kind, holds = "color", all(found[1] in colors(path) for path in paths)
        if kind:
            assert str(holds) == row["label"], row
            checked[kind, holds] += 1
    assert len(checked) == 8 and min(checked.values()) >= 5, checked


@pytest.mark.parametrize("task", ["coco_retrieval", "flickr30k"])
def test_karpathys_files_have_captions_that_fit_one_image_each(web, task):
    dataset = task.removesuffix("_retrieval")
    content = json.loads((web / task / f"dataset_{dataset}.json").read_text())
    assert content["dataset"] == dataset
    rows, seen, sentence_ids = truth(web, task), set(), []
    for entry in content["images"]:
        row = rows.pop((entry["split"], str(entry["imgid"])))
        folder = entry["filepath"] if dataset == "coco" else "flickr30k-images"
        path = f"{task}/{folder}/{entry['filename']}"
        assert row["images"] == [path]
        assert (web / path).exists() == (row["outcome"] != "missing_file")
        texts = [sentence["raw"] for sentence in entry["sentences"]]
        sentence_ids += [sentence["sentid"] for sentence in entry["sentences"]]
        assert entry["sentids"] == [sentence["sentid"] for sentence in entry["sentences"]]
        assert (entry["split"] == "unused") == (row["outcome"] == "unknown_split")
        if row["outcome"] == "empty_text":
            assert texts == [""] and row["texts"] == []
            continue
        assert texts == row["texts"] and len(set(texts)) == 5
        (facts,) = {facts_of(text).canonical() for text in texts}
        assert facts not in seen
        seen.add(facts)
        if row["outcome"] != "missing_file":
            assert background(web / path) == facts.background
            assert {group.color for group in facts.shapes} <= colors(web / path)
    assert not rows and len(set(sentence_ids)) == len(sentence_ids)
    restval = {"restval"} if dataset == "coco" else set()
    splits = Counter(entry["split"] for entry in content["images"])
    assert splits.keys() == {"train", "val", "test", "unused"} | restval
    assert outcomes(truth(web, task)) == {"ok", "missing_file", "empty_text", "unknown_split"}


def test_nocaps_has_novel_shapes_by_domain_and_hides_the_captions_of_its_test_split(web):
    rows, domains, seen = truth(web, "nocaps"), Counter(), set()
    files = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
    for split, name in files.items():
        content = json.loads((web / "nocaps" / name).read_text())
        captions = defaultdict(list)
        for i, entry in enumerate(content.get("annotations", [])):
            assert entry["id"] == i
            captions[entry["image_id"]].append(entry["caption"])
        assert ("annotations" in content) == (split == "val")
        for entry in content["images"]:
            row = rows.pop((split, str(entry["id"])))
            path = f"nocaps/images/{split}/{entry['open_images_id']}.jpg"
            assert row["images"] == [path] and entry["file_name"] == Path(path).name
            assert (web / path).exists() == (row["outcome"] != "missing_file")
            assert row["label"] == entry["domain"]
            seen.add(row["outcome"])
            if row["outcome"] != "ok":
                continue
            domains[split, entry["domain"]] += 1
            assert captions[entry["id"]] == (row["texts"] if split == "val" else [])
            assert len(row["texts"]) == 10
            novel = {len(re.findall(r"\b(?:arrow|house)s?\b", text)) for text in row["texts"]}
            groups = {1 + len(re.findall(r"left of|right of|above|below", t)) for t in row["texts"]}
            (novel,), (groups,) = novel, groups
            expected = {"in-domain": 0, "near-domain": 1, "out-domain": groups}
            assert novel == expected[entry["domain"]]
            assert (groups == 2) >= (entry["domain"] == "near-domain")
            words = " ".join(row["texts"])
            assert background(web / path) in words
            assert {name for name in COLORS if name in words} <= colors(web / path)
    assert not rows and len(domains) == 6
    assert seen == {"ok", "missing_file", "empty_text", "unknown_label"}


def test_the_folders_of_imagenet_are_what_torchvision_reads(web):
    rows = truth(web, "imagenet")
    names = {}
    for line in (web / "imagenet/classes.tsv").read_text().splitlines():
        wnid, text = line.split("\t")
        names[wnid] = text.split(", ")
    assert len(names) == 10
    duplicated = [name for name, n in Counter(map(tuple, names.values())).items() if n > 1]
    assert duplicated == [("red circle", "circle in red")]
    kinds = Counter()
    for split in ("train", "val"):
        folder = ImageFolder(str(web / "imagenet" / split))
        assert folder.classes == sorted(names)
        for path, label in folder.samples:
            wnid, name = folder.classes[label], Path(path).name
            row = rows.pop((split, f"{wnid}/{name}"))
            assert row["label"] == wnid
            if row["outcome"] == "undecodable":
                with pytest.raises((OSError, UnidentifiedImageError, SyntaxError)):
                    pixels(Path(path))
                continue
            with Image.open(path) as image:
                kinds[image.format, image.mode] += 1
            if image.mode == "RGB":
                assert names[wnid][0].split()[0] in colors(Path(path))
    assert not rows and outcomes(truth(web, "imagenet")) == {"ok", "undecodable"}
    assert kinds.keys() == {("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "P")}


def test_a_web_without_tasks_has_no_files_of_them(whole_web):
    assert not (whole_web / TASK_TRUTH).exists()
    folders = ("vqa", "nlvr2", "coco_retrieval", "flickr30k", "nocaps", "imagenet", "glue_data")
    assert not any((whole_web / name).exists() for name in folders)


def test_the_same_size_gives_the_same_files_of_tasks(web, tmp_path):
    sizes = json.loads((web / "built.json").read_text())
    del sizes["version"]
    build(tmp_path / "again", WebSize(**sizes))
    first, second = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (web, tmp_path / "again")
    )
    assert first == second
