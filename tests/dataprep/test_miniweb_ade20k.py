"""The miniature web's label maps: as the reader reads them, as pixels show them, their faults."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.miniweb.ade20k import ADE20K, CLASSES
from dataprep.miniweb.corpora import WebSize, build
from dataprep.miniweb.grammar import BACKGROUNDS
from dataprep.row_errors import RowError
from dataprep.tasks.label_classes import IGNORED, read_ade20k_classes
from dataprep.tasks.label_folders import read_label_folders
from dataprep.tasks.label_maps import read_label_map
from tests.dataprep.task_webs import outcomes, pixels, truth

NUMBER = 240
SIZE = WebSize(7, 1, 1, 1, 1, 1, num_ade20k=NUMBER)
SPLITS = ("training", "validation")
OF_MAPS = {"bad_mask", "mask_size", "unknown_label", "empty_mask"}


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A web with ADE20K's label maps."""
    folder = tmp_path_factory.mktemp("ade") / "miniweb"
    build(folder, SIZE)
    return folder


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L", "as the real ones"
        return np.asarray(image)


def map_of(image: Path) -> Path:
    return Path(str(image).replace("/images/", "/annotations/")).with_suffix(".png")


def test_the_list_of_classes_is_ade20ks(web):
    found = read_ade20k_classes(web / ADE20K / "objectInfo150.txt")
    assert found.names == CLASSES
    lines = (web / ADE20K / "objectInfo150.txt").read_text().splitlines()
    ratios = [float(line.split("\t")[1]) for line in lines[1:]]
    assert 0.9 < sum(ratios) < 1 and min(ratios) > 0.002


def test_every_row_ends_as_the_truth_says(web):
    rows = truth(web, ADE20K)
    assert outcomes(rows) == {"ok", "missing_file", "undecodable", "no_labels", *OF_MAPS}
    classes = read_ade20k_classes(web / ADE20K / "objectInfo150.txt")
    for split in SPLITS:
        root = web / ADE20K
        masks = root / "annotations" / split
        made = list(read_label_folders(root / "images" / split, masks))
        expected = {id_: row for (of_split, id_), row in rows.items() if of_split == split}
        assert {each.id for each in made} == expected.keys()
        for each in made:
            row = expected[each.id]
            if each.reason:
                assert each.reason == row["outcome"]
                continue
            path = root / "images" / split / each.images[0]
            assert path == web / row["images"][0]
            size = values(masks / each.mask).shape if row["outcome"] == "ok" else (0, 0)
            if row["outcome"] not in ("ok", "undecodable"):
                with Image.open(path) as image, pytest.raises(RowError) as caught:
                    read_label_map((masks / each.mask).read_bytes(), classes, image.size)
                assert caught.value.reason == row["outcome"]
            elif row["outcome"] == "ok":
                assert pixels(path).shape[:2] == size
                labels = read_label_map((masks / each.mask).read_bytes(), classes, size[::-1])
                present = [CLASSES[c] for c in np.unique(labels) if c != IGNORED]
                assert ", ".join(present) == row["label"]


def test_the_ground_has_the_color_of_the_ground_and_shapes_have_others(web):
    """Pale stripes of some colors are near to white."""
    fractions: dict[int, list[float]] = {value: [] for value in range(2, len(CLASSES) + 1)}
    for row in [row for row in truth(web, ADE20K).values() if row["outcome"] == "ok"][:60]:
        shown = pixels(web / row["images"][0])
        labels = values(map_of(web / row["images"][0]))
        ground = np.median(shown[labels == 1], axis=0) / 0.94
        name = min(BACKGROUNDS, key=lambda name: np.abs(ground - BACKGROUNDS[name]).sum())
        near = np.abs(shown - np.array(BACKGROUNDS[name]) * 0.94).max(2) < 28
        assert near[labels == 1].mean() > 0.9
        for value in np.unique(labels[labels > 1]):
            mine = labels == value
            if mine.sum() > 200:
                fractions[value].append(near[mine].mean())
    assert all(len(each) > 2 and np.mean(each) < 0.3 for each in fractions.values())


def test_shapes_are_tiny_large_cut_and_overlapping_and_some_images_are_empty(web):
    images = [row["images"][0] for row in truth(web, ADE20K).values() if row["outcome"] == "ok"]
    maps = [values(map_of(web / image)) for image in images]
    areas = [(labels == v).sum() for labels in maps for v in np.unique(labels) if v > 1]
    assert min(areas) < 100 and max(areas) > 3000
    cut = [np.unique(np.concatenate([m[0], m[-1], m[:, 0], m[:, -1]])).max() > 1 for m in maps]
    assert 0.3 < np.mean(cut) < 0.95
    touching = [
        ((m[:, 1:] > 1) & (m[:, :-1] > 1) & (m[:, 1:] != m[:, :-1])).sum() > 3 for m in maps
    ]
    assert np.mean(touching) > 0.2, "a shape lies over another one"
    assert 0.03 < np.mean([m.max() == 1 for m in maps]) < 0.1
    assert 0.05 < np.mean([(m == 0).any() for m in maps]) < 0.2, "swarms are of no class"


def test_the_same_size_gives_the_same_bytes_(web, tmp_path):
    build(tmp_path / "again", SIZE)
    files = sorted(path for path in (web / ADE20K).rglob("*") if path.is_file())
    assert len(files) > 1.9 * NUMBER
    for path in files[::7]:
        assert (tmp_path / "again" / path.relative_to(web)).read_bytes() == path.read_bytes()
