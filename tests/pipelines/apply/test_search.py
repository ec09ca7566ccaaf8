"""The search among embedded rows is exact: brute force over all rows gives the same."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.neighbors import NearestNeighbors

from orchestration import Dataset
from orchestration.errors import RecipeError
from orchestration.storage.store import Store
from pipelines import PretrainedModel
from pipelines.apply.model_location import digest_of
from pipelines.apply.search import embed_query, nearest, nearest_rows, open_features
from tests.committing import commit_tables
from tests.pipelines.apply import drawn
from tests.pipelines.apply.committed import recipe_of, run
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained


def unit(seed: int, number: int, width: int = 8) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(number, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def committed(folder: Path, features: np.ndarray, parts: int = 3, group: int = 7) -> Dataset:
    """Features in several parts of several row groups."""
    names = [f"row {i}" for i in range(len(features))]
    table = pa.table(
        {
            "id": names,
            "path": names,
            "text": pa.nulls(len(features), pa.string()),
            "features": pa.array(list(features), pa.list_(pa.float32())),
        }
    )
    cuts = np.linspace(0, len(features), parts + 1).astype(int)
    tables = [table.slice(a, b - a) for a, b in pairwise(cuts)]
    return commit_tables(Store(folder), tables, row_group_rows=group)


@pytest.mark.parametrize("number", [1, 5, 100])
def test_the_nearest_rows_are_those_of_scikit_learn(tmp_path, number):
    rows, queries = unit(1, 100), unit(2, 9)
    scores, found = nearest_rows(committed(tmp_path, rows), queries, number)
    peer = NearestNeighbors(n_neighbors=number, metric="cosine", algorithm="brute").fit(rows)
    distances, expected = peer.kneighbors(queries)
    assert (found == expected).all()
    np.testing.assert_allclose(scores, 1 - distances, atol=1e-5)


def test_more_rows_are_asked_for_than_there_are(tmp_path):
    scores, found = nearest_rows(committed(tmp_path, unit(1, 4), 2, 1), unit(2, 1), 9)
    assert sorted(found[0].tolist()) == [0, 1, 2, 3]
    assert (np.diff(scores[0]) <= 0).all()


def test_of_equal_rows_the_first_ones_are_found(tmp_path):
    rows = np.repeat(unit(3, 1), 40, axis=0)
    _, found = nearest_rows(committed(tmp_path, rows), rows[:1], 5)
    assert found[0].tolist() == [0, 1, 2, 3, 4]


def test_found_rows_carry_ids_and_cosines(tmp_path):
    rows = unit(1, 30)
    (found,) = nearest(committed(tmp_path, rows), rows[17:18], 2)
    assert found[0].id == "row 17"
    assert found[0].score == pytest.approx(1, abs=1e-6)


def test_no_rows_give_nothing(tmp_path):
    empty = committed(tmp_path, unit(1, 0), 1)
    assert nearest(empty, unit(2, 2), 5) == [[], []]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two trainings, and images that the first one embedded."""
    folder = tmp_path_factory.mktemp("search")
    fine_tuned(folder / "retrieval" / "export", builder_of("retrieval"))
    pretrained(folder / "pretrained" / "export")
    drawn.write_images(folder / "images", 12)
    for name in ("retrieval", "pretrained"):
        recipe = recipe_of("embed", folder / name / "export", folder / "images")
        run(recipe, folder / f"of {name}")
    return folder


def opened(work: Path, model: str, features: str) -> tuple[PretrainedModel, Dataset]:
    folder = work / model / "export"
    found = open_features(Store(work / f"of {features}"), digest_of(str(folder)))
    return PretrainedModel.from_pretrained(folder), found


def test_an_image_finds_itself_and_a_text_the_images_in_the_order_of_cosines(work):
    model, features = opened(work, "retrieval", "retrieval")
    image = work / "images" / "007.png"
    (found,) = nearest(features, embed_query(model, features, None, image), 12)
    assert found[0].path == str(image)
    assert found[0].score == pytest.approx(1, abs=1e-5)
    (found,) = nearest(features, embed_query(model, features, "one red circle", None), 12)
    paths = sorted((work / "images").iterdir())
    cosines = model.similarity(paths, ["one red circle"])[:, 0]
    assert [row.path for row in found] == [str(paths[i]) for i in np.argsort(-cosines)]


def test_features_of_another_model_are_one_sentence(work, tmp_path):
    with pytest.raises(RecipeError, match="the features were made by another model"):
        opened(work, "pretrained", "retrieval")
    shutil.copytree(work / "retrieval" / "export", tmp_path / "moved")
    digest = digest_of(str(tmp_path / "moved"))
    assert open_features(Store(work / "of retrieval"), digest).num_rows == 12


def test_features_of_another_vocabulary_are_one_sentence(work, tmp_path):
    export, given = work / "retrieval" / "export", tmp_path / "beit3.spm"
    shutil.copyfile(work / "retrieval" / "spm.model", given)
    images = work / "images" / "001.png"
    run(recipe_of("embed", export, images, apply__text_tokenizer=str(given)), tmp_path / "work")
    digest, features = digest_of(str(export)), Store(tmp_path / "work")
    for same in (None, given, work / "retrieval" / "spm.model"):
        assert open_features(features, digest, same).num_rows == 1
    given.write_bytes(b"another")
    with pytest.raises(RecipeError, match="with another vocabulary than "):
        open_features(features, digest, given)


def test_texts_find_no_images_with_a_model_that_cannot_compare_them(work):
    model, features = opened(work, "pretrained", "pretrained")
    with pytest.raises(RecipeError, match="has no features of images and texts that can be comp"):
        embed_query(model, features, "one red circle", None)
    image = work / "images" / "003.png"
    (found,) = nearest(features, embed_query(model, features, None, image), 1)
    assert found[0].path == str(image)


def test_a_query_that_cannot_be_used_is_one_sentence(work, tmp_path):
    model, features = opened(work, "retrieval", "retrieval")
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    with pytest.raises(RecipeError, match=r"--image \S*page\.jpg: not_an_image: begins .*html"):
        embed_query(model, features, None, tmp_path / "page.jpg")
    with pytest.raises(RecipeError, match=r"no\.jpg: No such file"):
        embed_query(model, features, None, tmp_path / "no.jpg")
    with pytest.raises(RecipeError, match="the text to search by is empty"):
        embed_query(model, features, " \n", None)


def test_the_newest_features_are_searched_whatever_ran_since(work, tmp_path):
    shutil.copytree(work / "of retrieval", tmp_path / "work")
    records = tmp_path / "work" / "workflows"
    (record,) = (json.loads(path.read_text()) for path in records.glob("*/record.json"))
    for name, more in (("older", {"embed": "0" * 16}), ("newer", {"caption": "1" * 16})):
        started = record["started_at"] + (1 if name == "newer" else -1)
        (records / name).mkdir()
        changed = record | {"stages": {"inputs": "2" * 16, **more}, "started_at": started}
        (records / name / "record.json").write_text(json.dumps(changed))
    digest = digest_of(str(work / "retrieval" / "export"))
    assert open_features(Store(tmp_path / "work"), digest).num_rows == 12


def test_a_workdir_without_complete_features_is_one_sentence(work, tmp_path):
    digest = digest_of(str(work / "retrieval" / "export"))
    with pytest.raises(RecipeError, match="nothing was embedded here; run `beit3 embed` first"):
        open_features(Store(tmp_path), digest)
    shutil.copytree(work / "of retrieval", tmp_path / "cut")
    (manifest,) = (tmp_path / "cut" / "embed").glob("*/manifest.json")
    manifest.unlink()
    with pytest.raises(RecipeError, match="not complete; run the same `beit3 embed` again"):
        open_features(Store(tmp_path / "cut"), digest)


def test_rejects_alone_are_one_sentence(work, tmp_path):
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    export = work / "retrieval" / "export"
    run(recipe_of("embed", export, tmp_path / "page.jpg"), tmp_path / "work")
    with pytest.raises(RecipeError, match="no row was embedded, 1 are rejects; see `beit3 rej"):
        open_features(Store(tmp_path / "work"), digest_of(str(export)))


def test_rows_without_a_number_are_near_nothing(tmp_path):
    rows = unit(1, 9)
    rows[[2, 5]] = np.nan
    (found,) = nearest(committed(tmp_path, rows), rows[3:4], 9)
    assert found[0].id == "row 3"
    assert {row.id for row in found} == {f"row {i}" for i in range(9) if i not in (2, 5)}


def test_texts_anywhere_among_images_need_features_that_can_be_compared(work, tmp_path):
    model = PretrainedModel.from_pretrained(work / "pretrained/export")
    width = model.source.config.width
    features = committed(tmp_path, unit(1, 20, width), 1, group=8)
    table = features.read(0, 20, ["id", "path", "text", "features"])
    texts = pa.array([None] * 15 + ["a text"] * 5, pa.string())
    mixed = table.set_column(table.schema.get_field_index("text"), "text", texts)
    features = commit_tables(Store(tmp_path / "mixed"), [mixed], row_group_rows=8)
    for query in ({"text": "a", "image": None}, {"text": None, "image": work / "images/003.png"}):
        with pytest.raises(RecipeError, match="no features of images and texts that can be comp"):
            embed_query(model, features, **query)
