"""What a recipe needs of its data, said before a stage spends hours; and what a plan shows."""

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from orchestration.errors import RecipeError
from orchestration.manifest import Manifest
from orchestration.recipe import load_recipe
from orchestration.reporting.estimates import Estimate
from orchestration.slices import Output
from orchestration.storage.store import Store
from pipelines.builtin_recipes import recipe_path
from pipelines.commands.options import console
from pipelines.commands.rejects import source_line
from pipelines.ingest.download import SliceFetcher
from pipelines.ingest.preview import form_of, preview
from pipelines.open_recipe import open_recipe
from pipelines.workflows.feasibility import implications, impossible
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from tests.committing import commit_outputs

SOURCES = {
    "own": {"format": "image_folder", "folder": "images"},
    "list": {"format": "csv", "list": "list.csv"},
    "texts": {"format": "txt", "file": "texts.txt"},
}

WEB_LIST = {"sources": SOURCES | {"list": {"format": "cc3m", "list": "list.tsv"}}}


def recipe(**changes) -> PretrainRecipe:
    values = {"name": "own", "sources": SOURCES, "download": {"contact": "me@example.org"}}
    return PretrainRecipe.model_validate(values | changes)


def made(folder: Path, **rows: int) -> Manifest:
    """Return the manifest of an output whose tables have these numbers of rows."""
    tables = {
        name: pa.table({"reason": pa.array(["bad"] * count, pa.string())})
        for name, count in rows.items()
    }
    return commit_outputs(Store(folder), [Output(sum(rows.values()), tables)]).manifest


@pytest.mark.parametrize(
    ("complete", "words"),
    [
        ({"documents/texts": {"data": 0, "rejects": 3}}, ["no texts", "texts_per_step", "bad 3"]),
        ({"import/own": {"data": 0}}, ["no images", "train.images_per_step = 2048"]),
        ({"download/list": {"data": 0}}, ["no pairs", "train.pairs_per_step"]),
        ({"curate": {"pairs": 9000, "images": 1}}, ["image_tokens.row_group_rows"]),
        ({"curate": {"pairs": 3, "images": 70_000}}, ["pair stream", "pair_tokens.row_group_rows"]),
        ({"curate": {"pairs": 100, "images": 200}}, ["image_tokenizer.substreams = 8", "kept 300"]),
        ({"text_tokens": {"train": 40}}, ["text stream", "text_tokens.row_group_rows"]),
    ],
)  # fmt: skip
def test_counts_that_rule_out_the_training_name_field_and_value(tmp_path, complete, words):
    manifests = {
        name: made(tmp_path / name.replace("/", "_"), **rows) for name, rows in complete.items()
    }
    message = "\n".join(impossible(recipe(), manifests))
    for word in words:
        assert word in message


def test_counts_that_suffice_are_not_refused(tmp_path):
    enough = made(tmp_path, pairs=70_000, images=70_000)
    assert impossible(recipe(), {"curate": enough}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (WEB_LIST | {"download": None}, ["download.contact", "sources.list"]),
        (WEB_LIST | {"download": {"num_actors": 1}}, ["download.contact", "sources.list"]),
        ({"sources": {"own": SOURCES["own"]}}, ["images with captions", "train.pairs_per_step=0"]),
        (
            {
                "sources": {"texts": {"format": "jsonl", "file": "t.jsonl"}},
                "train": {"images_per_step": 0, "pairs_per_step": 0},
            },
            ["no source has images", "image_tokenizer.weights"],
        ),
        ({"text_tokens": {"length": 5000}}, ["text_tokens.length is 5000", "max_text_length"]),
        ({"train": {"max_caption_length": 6000}}, ["train.max_caption_length is 6000"]),
    ],
)
def test_a_section_that_is_needed_is_asked_for_by_name(changes, words):
    with pytest.raises(ValueError, match=r".") as error:
        recipe(**changes)
    for word in words:
        assert word in str(error.value)


def test_a_stream_with_count_0_needs_no_source_and_no_download():
    only_pairs = {"own": {"format": "webdataset", "folder": "tars"}}
    counts = {"images_per_step": 0, "texts_per_step": 0}
    assert recipe(sources=only_pairs, download=None, train=counts).download is None


def test_an_own_list_by_path_needs_no_contact_and_its_urls_are_rejects_that_ask_for_one():
    assert recipe(download=None).download is None
    index, download = recipe(download=None).sources["list"].stages("list", None)
    assert index.name == "index/list" and download.params.contact is None
    engine = SliceFetcher.open(download.params, None, Store("unused"), None).engine
    (outcome,) = engine(["http://a.org/1.jpg"])
    assert outcome.reason == "no_contact" and "download.contact" in outcome.detail


def test_an_error_of_a_recipe_never_shows_the_recipe(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nsources: {a: {format: image_folder, folder: secret_folder}}\n")
    with pytest.raises(RecipeError) as error:
        open_recipe(str(path), str(tmp_path / "work"), [], console)
    assert "secret_folder" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", b"url,caption\n", "text"),
        ("a.csv", b"\x1f\x8b\x08 packed", "gzip"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"<!DOCTYPE html><html>", "HTML"),
        ("a.csv", b"PAR1....", "Parquet"),
    ],
)
def test_a_plan_tells_what_a_file_really_is(tmp_path, name, content, form):
    assert form_of(content) == form
    (tmp_path / name).write_bytes(content)
    own = {"format": "csv", "list": str(tmp_path / name)}
    source = recipe(sources=SOURCES | {"list": own}).sources["list"]
    (line,) = preview(source)
    assert form in line and name in line


def test_a_plan_tells_what_lies_in_a_folder(tmp_path):
    (tmp_path / "shard-000.tar.gz").write_bytes(b"x")
    own = {"format": "image_folder", "folder": str(tmp_path)}
    (line,) = preview(recipe(sources=SOURCES | {"own": own}).sources["own"])
    assert ".gz 1" in line and "shard-000.tar.gz" in line


def test_a_vocabulary_larger_than_its_corpus_is_named(tmp_path):
    (tmp_path / "texts.txt").write_text("a few words\n")
    texts = {"format": "txt", "file": str(tmp_path / "texts.txt")}
    own = recipe(sources=SOURCES | {"texts": texts})
    names = ("import/own", "index/list", "documents/texts")
    found = "\n".join(implications(own, {name: Estimate(rows=10) for name in names}, {}))
    assert "text_tokenizer.vocab_size = 64000" in found and "epochs" in found
    assert "image_tokens.row_group_rows" in found


def test_images_too_few_for_the_substreams_of_the_image_tokenizer_are_named_by_a_plan():
    def found(**rows):
        counts = {"import/own": 200, "index/list": 100, "documents/texts": 9} | rows
        estimates = {name: Estimate(rows=number) for name, number in counts.items()}
        return "\n".join(implications(recipe(), estimates, {}))

    assert (
        "image_tokenizer.substreams = 8 needs more than 448 images, the sources have about 300; "
        "set it to 4 or less"
    ) in found()
    assert "image_tokenizer.substreams" not in found(**{"import/own": 349})
    assert "image_tokenizer.substreams" not in found(**{"index/list": None})


def counted(changes, rows, numbers=None):
    """The lines of a plan of the base recipe, with estimated rows or with counted pairs."""
    base = load_recipe(
        PretrainRecipe, recipe_path("base"), overrides=["download.contact=a@b.example", *changes]
    )
    names = [
        stage.name
        for name, source in base.sources.items()
        for stage in source.stages(name, base.download)
    ]
    estimates = {name: Estimate(rows=rows.get(name.rpartition("/")[2], 0)) for name in names}
    complete = {} if numbers is None else {"pair_tokens": Manifest.model_construct(numbers=numbers)}
    return "\n".join(implications(base, estimates, complete))


ROWS = {"cc3m": 3_000_000, "coco": 113_000, "visual_genome": 108_000, "imagenet21k": 14_000_000}


def test_a_plan_counts_captions_as_pairs_beside_the_papers():
    found = counted([], ROWS)
    assert "pairs: about 8.96M over about 3.22M images (the paper's: 21M pairs over 15M" in found
    assert "visual_genome: about 5.4M pairs over 108k images, 60.2% of the pair stream" in found
    # 200,000 steps of 2048 pairs
    assert "over about 8965000 pairs: 45.7 epochs" in found


def test_a_source_of_unknown_size_is_not_shown_as_empty():
    found = counted([], {"cc3m": 3_000_000})
    assert "coco: the number of its pairs is not known yet" in found
    assert "about 0 pairs" not in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["sources.visual_genome.max_captions=10"], "visual_genome: about 1.08M pairs"),
        (["sources.visual_genome.regions_per_caption=5"], "visual_genome: about 1.08M pairs"),
        (["train.source_weights={visual_genome: 0.5}"], "108k images, 43.1% of the pair stream"),
        (["train.pairs_by=image"], "over about 3221000 pairs: 127 epochs"),
    ],
)
def test_caps_and_weights_change_what_the_pair_stream_holds(changes, words):
    assert words in counted(changes, ROWS)


def test_what_is_held_out_counts_for_the_tokenizer_alone():
    found = counted(
        ["sources.visual_genome.held_out=true", "train.steps=1000", "train.warmup_steps=9"], ROWS
    )
    assert "pairs: about 3.56M over about 3.11M images" in found
    assert "visual_genome: " not in found
    assert "over about 3565000 pairs: 0.574 epochs" in found
    assert "over about 17221000 images" in found  # of the image tokenizer
    images = counted(["sources.imagenet21k.held_out=true", "train.images_per_step=0"], ROWS)
    assert "images_per_step" not in images and "over about 17221000 images" in images


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"source_weights": {"list": 0}}}, "set train.pairs_per_step=0 .now 2048."),
        ({"train": {"source_weights": {"held": 2}}}, "held is no source .* trained on.* list"),
        ({"train": {"source_weights": {"own": 2}}}, "own is no source of images with captions"),
        ({"train": {"source_weights": {"list": 1e9}}}, "train.source_weights.list"),
        ({"train": {"network": {"patch_size": 0}}}, "patch_size is 0; it must be 1 or more"),
        ({"train": {"network": {"num_heads": 0}}}, "num_heads is 0"),
        ({"train": {"network": {"ffn_width": -4}}}, "ffn_width is -4"),
        ({"train": {"network": {"pixel_std": [1, 1, 0]}}}, "pixel_std"),
        ({"train": {"betas": [0.9, 1]}}, "train.betas.1"),
        ({"train": {"eps": -1e-6}}, "train.eps"),
        ({"train": {"max_grad_norm": 0}}, "train.max_grad_norm"),
        ({"train": {"loss_weights": {"mlm": -1}}}, "train.loss_weights.mlm"),
        ({"train": {"micro_batch": 0}}, "train.micro_batch"),
        ({"train": {"texts_per_step": 96}}, "texts_per_step = 96 is not .* set substreams=32"),
        ({"train": {"substreams": 7}}, "images_per_step = 2048 is not .* set substreams=4"),
        ({"train": {"substreams": 12, "num_workers": 4}}, "set substreams=8"),
        ({"train": {"substreams": 12, "texts_per_step": 2046, "num_workers": 4}}, "substreams=2"),
        ({"train": {"image_mask_ratio": 0.002}}, "0.002 masks none of the 196 patches of an image"),
        (
            {"train": {"network": {"image_size": 1040}}},
            "1040 has 65 x 65 patches, but masks .* 64 x 64; set network.image_size = 1024",
        ),
        ({"image_tokenizer": {"num_heads": 5}}, "width 768 is not a multiple of num_heads 5"),
        ({"image_tokenizer": {"patch_size": 0}}, "patch_size is 0"),
        ({"image_tokenizer": {"depth": 0}}, "depth is 0"),
        ({"image_tokenizer": {"code_dim": 0}}, "code_dim is 0"),
        ({"evaluate": {"num_actors": 0}}, "evaluate.num_actors"),
        ({"evaluate": {"cpus_per_actor": 0}}, "evaluate.cpus_per_actor"),
        ({"curate": {"min_caption_words": 9, "max_caption_words": 8}}, "no caption fits"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 64}, "seed"),
    ],
)
def test_numbers_that_no_stage_can_work_with_are_refused_before_anything_runs(changes, words):
    held = {"format": "csv", "list": "held.csv", "held_out": True}
    with pytest.raises(ValidationError, match=words):
        recipe(sources=SOURCES | {"held": held}, **changes)


def test_counted_pairs_replace_the_estimates():
    numbers = {"images/cc3m": 300, "pairs/cc3m": 300, "images/coco": 20, "pairs/coco": 101}
    found = counted([], {}, numbers)
    assert "pairs: 401 over 320 images" in found
    assert "coco: 101 pairs over 20 images, 25.2% of the pair stream" in found


@pytest.mark.parametrize(
    ("num_views", "words"),
    [
        (2, "image_tokens.num_views = 2: each view is seen 73.1 times; with 5 views it would be"),
        (16, "image_tokens.num_views = 16: each view is seen 9.14 times\n"),
    ],
)
def test_a_plan_says_how_often_each_view_is_seen(num_views, words):
    changes = ["train.steps=1_000_000", f"image_tokens.num_views={num_views}"]
    assert words in counted(changes, ROWS)


def test_stored_views_are_not_needed_where_new_ones_are_drawn():
    found = counted(["train.codes=online", "image_tokens.num_views=1"], ROWS)
    assert "pair_tokens.num_views = 2: train.codes = online draws new views" in found
    assert "image_tokens.num_views" not in found


def test_a_plan_tells_how_many_rows_are_about_to_be_held_out():
    more = {**SOURCES["own"], "held_out": True}
    split = {**SOURCES["list"], "split_column": "set"}
    own = recipe(
        sources=SOURCES | {"more": more, "split": split}, image_tokens={"held_out_fraction": 0.1}
    )
    stages = ("import/own", "import/more", "index/list", "index/split", "documents/texts")
    found = list(
        implications(
            own,
            {name: Estimate(rows=1000) for name in stages} | {"index/list": Estimate(rows=10_000)},
            {},
        )
    )
    assert [line for line in found if "held out" in line] == [
        "sources.split.split_column = set says which pairs are held out",
        "pair_tokens.held_out_fraction = 0.005: about 50 of 10000 pairs are held out for "
        "evaluation, few to compare checkpoints by: raise it or hold out a source",
        "image_tokens.held_out_fraction = 0.1: about 1100 of 2000 images are held out for "
        "evaluation",
        "text_tokens.held_out_fraction = 0.005: about 5 of 1000 documents are held out for "
        "evaluation, few to compare checkpoints by: raise it or hold out a source",
    ]


@pytest.mark.parametrize(
    ("sample_id", "line"),
    [
        ("list/000000012", "list.csv:12"),
        ("list/part-1.csv/000000012", "list.csv/part-1.csv:12"),
        ("own/dog/2.jpg", "images/dog/2.jpg"),
        ("gone/x", "gone/x"),
    ],
)
def test_a_reject_names_its_file_and_row(sample_id, line):
    assert source_line(sample_id, sample_id.split("/")[0], {"sources": SOURCES}) == line
