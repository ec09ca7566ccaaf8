"""Search over a thousand drawn images finds what the evaluation of the model promises."""

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dataprep.miniweb.drawn_images import ImageRenderer
from dataprep.miniweb.retrieval import FLICKR30K, write_flickr30k
from orchestration import Dataset
from orchestration.manifest import read_manifest
from orchestration.plan import latest_record
from orchestration.storage.store import Store
from pipelines import PretrainedModel
from pipelines.apply.model_location import located
from pipelines.apply.search import nearest_rows
from tests.pipelines.apply.committed import recipe_of, run

IMAGES = "flickr30k-images"
METRIC = "test/text_to_image/recall_at_1"


def embedded(model: str, images: Iterable[Path], workdir: Path) -> Dataset:
    return run(recipe_of("embed", Path(model), *images), workdir)


def recall(model: str, features: Dataset, captions: dict[str, list[str]]) -> float:
    """The part of captions whose image is the first that is found."""
    names = [Path(path).name for path in features.read(columns=["path"])["path"].to_pylist()]
    asked = [(text, name) for name in names for text in captions.get(name, ())]
    queries = PretrainedModel.from_pretrained(model).embed_texts([text for text, _ in asked])
    _, rows = nearest_rows(features, queries, 1)
    return float(
        np.mean([names[i] == name for i, (_, name) in zip(rows[:, 0], asked, strict=True)])
    )


def captions_of(web: Path, split: str | None = None) -> dict[str, list[str]]:
    entries = json.loads((web / FLICKR30K / "dataset_flickr30k.json").read_text())["images"]
    return {
        each["filename"]: [sentence["raw"] for sentence in each["sentences"]]
        for each in entries
        if split in (None, each["split"]) and (web / FLICKR30K / IMAGES / each["filename"]).exists()
    }


def check(trained: Path, tmp_path: Path) -> None:
    """Compare the search with the score of a fine-tuning's workdir."""
    store = Store(trained)
    stages = (latest_record(store) or {})["stages"]
    score = read_manifest(store.sub(f"score/{stages['score']}")).numbers
    model, web = located(str(trained)), trained / "miniweb"
    tested = captions_of(web, "test")
    images = [web / FLICKR30K / IMAGES / name for name in tested]
    features = embedded(model, images, tmp_path / "tested")
    assert recall(model, features, tested) == pytest.approx(score[METRIC], abs=2e-3)

    with ThreadPoolExecutor(2) as pool:
        write_flickr30k(tmp_path / "web", 1000, 77, ImageRenderer(pool))
    features = embedded(model, [tmp_path / "web" / FLICKR30K / IMAGES], tmp_path / "work")
    found = recall(model, features, captions_of(tmp_path / "web"))
    margin = score[METRIC] / score["test/chance/text_to_image/recall_at_1"]
    assert found > margin / 2 / features.num_rows


@pytest.mark.exhaustive
def test_search_among_a_thousand_images_is_as_good_as_the_score(tmp_path: Path):
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--task", "retrieval"]
    subprocess.run([*command, "--workdir", str(tmp_path / "demo")], check=True, timeout=3000)
    check(tmp_path / "demo-retrieval", tmp_path)
