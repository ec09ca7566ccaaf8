"""Built-in recipes: found by name, complete, and small enough to try with ``--shrink``."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from orchestration.errors import RecipeError
from orchestration.params import external_files
from orchestration.recipe import load_recipe
from orchestration.recipe_extends import read_extended
from pipelines.builtin_recipes import builtin_recipes, recipe_path, recipe_paths
from pipelines.cli import app
from pipelines.commands.options import console
from pipelines.open_recipe import Opened, open_recipe
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.leaks import possible_leaks
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from pipelines.workflows.shrink import shrink
from pipelines.workflows.shrink_finetuning import shrink_finetuning

RECIPES = builtin_recipes()
FINETUNINGS = [name for name in RECIPES if name.startswith("finetune/")]
STUDIES = [name for name in RECIPES if name.startswith("studies/")]
PRETRAININGS = [name for name in RECIPES if name not in (*FINETUNINGS, *STUDIES)]
GIVEN_CODES = "ablations/given-codes"
ABLATIONS = [name for name in RECIPES if name.startswith("ablations/") and name != GIVEN_CODES]
CONTACT = ["download.contact=me@example.org"]
MAX_LINES = 40
TINY = {
    name: next(
        tiny
        for word, tiny in {
            "retrieval": "retrieval", "imagenet": "imagenet", "vqa": "vqa", "nlvr2": "nlvr2",
            "glue": "glue", "itc": "retrieval", "captioning": "captioning", "nocaps": "captioning",
            "detection": "detection", "segmentation": "segmentation",
        }.items()
        if word in name
    )
    for name in FINETUNINGS
}  # fmt: skip


def template() -> dict:
    return yaml.safe_load(recipe_path("all_sources").read_text())


def test_the_recipes_command_lists_every_recipe_with_its_summary():
    result = CliRunner().invoke(app, ["recipes"], catch_exceptions=False)
    for name in ("tiny", "small", "base", "large", "giant", "all_sources"):
        assert name in result.output
        assert RECIPES[name].summary.split()[0] in result.output


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_a_one_line_summary_and_is_named_as_its_file(name):
    text = RECIPES[name].path.read_text()
    assert text.startswith("# ") and RECIPES[name].summary.endswith(".")
    assert yaml.safe_load(text)["name"] == name


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"tiny"}))  # tiny spells out every size
def test_a_recipe_is_short_apart_from_its_sources(name):
    lines, in_sources = 0, False
    for line in RECIPES[name].path.read_text().splitlines():
        if line and not line.startswith(" "):
            in_sources = line.startswith(("sources:", "evaluation_sets:", "data:"))
        lines += bool(line.strip()) and not in_sources
    assert lines <= MAX_LINES


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"did you mean 'base'.*giant.*tiny"):
        recipe_path("bsae")


def test_a_path_is_taken_as_it_is(tmp_path):
    assert recipe_path("tiny.yaml") == Path("tiny.yaml")
    own = tmp_path / "recipe"
    own.write_text("name: own")
    assert recipe_path(str(own)) == own


def opened(name: str, tmp_path: Path, *settings: str, **options) -> Opened:
    return open_recipe(name, str(tmp_path / "work"), settings, console, **options)


@pytest.fixture
def no_drawing(monkeypatch):
    """A plan needs only the names of the drawn files."""
    monkeypatch.setattr("dataprep.miniweb.corpora.build", lambda folder, size: None)


@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_shrunk_recipe_needs_no_data_and_keeps_its_sources(name, tmp_path, no_drawing):
    recipe = opened(name, tmp_path, shrink=True).recipe
    written, _ = read_extended(RECIPES[name].path, recipe_paths())
    assert recipe.sources.keys() == written["sources"].keys()
    assert recipe.evaluation_sets.keys() == written.get("evaluation_sets", {}).keys()
    for file in external_files(recipe):
        assert file.key.startswith(("sources.", "evaluation_sets."))
        assert file.location.startswith(str(tmp_path / "work" / "miniweb"))
    assert recipe.train.steps <= 10 and recipe.train.network.size == "tiny"
    assert not recipe.train.use_gpu and not recipe.image_tokenizer.use_gpu
    assert recipe.image_tokenizer.teacher == "hand_crafted"


@pytest.mark.parametrize("name", FINETUNINGS)
def test_a_shrunk_finetuning_needs_only_the_network_of_the_demo(name, tmp_path, no_drawing):
    with pytest.raises(RecipeError) as error:
        opened(name, tmp_path, f"start_from={tmp_path}", shrink=True)
    (_, missing) = str(error.value).splitlines()
    assert missing.strip().startswith(f"start_from: {tmp_path}")
    values = shrink_finetuning(
        yaml.safe_load(RECIPES[name].path.read_text()),
        yaml.safe_load(recipe_path(f"finetune/tiny-{TINY[name]}").read_text()),
    )
    recipe = FinetuneRecipe.model_validate(values)
    assert recipe.finetune.steps == 10 and not recipe.finetune.use_gpu
    for file in external_files(recipe.data):
        assert file.location.startswith("${miniweb}/")


@pytest.mark.parametrize("name", [n for n in FINETUNINGS if "tiny" not in n])
def test_a_finetuning_validates_as_written(name):
    recipe = load_recipe(FinetuneRecipe, recipe_path(name), variables={"data": "/data"})
    assert recipe.finetune.use_gpu and recipe.data.splits.keys() >= {"train"}


def test_a_shrunk_recipe_keeps_the_method_and_drops_sizes_and_hardware():
    values = {
        "name": "own",
        "cluster": {"address": "10.0.0.1"},
        "sources": {"mine": {"format": "parquet", "file": "/data/texts.parquet"}},
        "evaluation_sets": {"f": {"format": "flickr30k", "annotations": "/a", "images": "/b"}},
        "text_tokenizer": {"model": "/data/spm.model", "byte_fallback": True},
        "train": {
            "network": {"size": "giant", "attention": "decoupled", "width": 640},
            "pair_masking": "joint",
            "use_gpu": True,
            "num_workers": 256,
        },
    }
    small = shrink(values, template())
    assert small["name"] == "own" and "address" not in small["cluster"]
    assert small["sources"]["mine"]["format"] == "jsonl"
    assert small["evaluation_sets"]["f"]["splits"] == ["val", "test"]
    assert "model" not in small["text_tokenizer"] and small["text_tokenizer"]["byte_fallback"]
    assert small["train"]["pair_masking"] == "joint"
    assert small["train"]["network"]["attention"] == "decoupled"
    assert not {"use_gpu", "num_workers"} & small["train"].keys()
    assert "width" not in small["train"]["network"]


def test_a_set_option_goes_over_the_shrunk_values(tmp_path, no_drawing):
    assert opened("base", tmp_path, "train.steps=3", shrink=True).recipe.train.steps == 3


@pytest.mark.parametrize("name", ["small", "base", "large", "giant"])
def test_a_recipe_validates_as_written_when_its_files_are_there(name, tmp_path):
    data = tmp_path / "data"
    values = {"data": str(data)}
    for file in external_files(
        load_recipe(PretrainRecipe, recipe_path(name), variables=values, overrides=CONTACT)
    ):
        path = Path(file.location)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if not path.suffix and not path.exists() else path.touch()
    plan = opened(name, tmp_path, *CONTACT, data=str(data))
    assert [p.state for p in plan.workflow.plan(plan.store)] == ["missing"] * len(
        plan.workflow.stages
    )


ABLATED = {
    "one-expert": ("network.experts", "shared"),
    "joint-masking": ("pair_masking", "joint"),
    "no-monomodal": ("images_per_step", 0),
    "no-multimodal": ("pairs_per_step", 0),
    "pixel-target": ("network.image_target", "pixels"),
    "no-mlm": ("texts_per_step", 0),
    "no-mvlm-text": ("loss_weights.mvlm_text", 0),
    "no-text-losses": ("texts_per_step", 0),
    "no-mim": ("images_per_step", 0),
    "no-mvlm-image": ("loss_weights.mvlm_image", 0),
    "no-image-losses": ("images_per_step", 0),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Opened:
    """The shrunk base recipe, with its drawn files."""
    return opened("base", tmp_path_factory.mktemp("base"), *CONTACT, shrink=True)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_of_table_8_trains_otherwise_on_the_same_stages_before(name, base):
    ablated = opened(name, Path(base.store.uri).parent, *CONTACT, shrink=True)
    key, value = ABLATED[name.removeprefix("ablations/")]
    found = ablated.recipe.train.model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == value
    before, after = (
        {p.stage.name: p.fingerprint for p in each.workflow.plan(each.store)}
        for each in (base, ablated)
    )
    assert before.keys() == after.keys()
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == {"pretrain", "evaluate", "export"}


def test_the_ablation_of_given_codes_shares_every_stage_before_them_with_base(base, tmp_path):
    """Shrunk, a recipe has other images, and so no codes until some are set."""
    name, folder, file = GIVEN_CODES, Path(base.store.uri).parent, tmp_path / "codes.parquet"
    assert opened(name, folder, *CONTACT, shrink=True).recipe.given_codes is None
    codes = {"sample_id": pa.array([], pa.string()), "view": pa.array([], pa.int64()),
             "codes": pa.array([], pa.list_(pa.int64()))}  # fmt: skip
    pq.write_table(pa.table(codes), file)
    ablated = opened(name, folder, *CONTACT, f"given_codes.file={file}", shrink=True)
    before, after = (
        {p.stage.name: p for p in each.workflow.plan(each.store)} for each in (base, ablated)
    )
    assert after.keys() - before.keys() == {"given_codes/images", "given_codes/pairs"}
    changed = {stage for stage in before if before[stage].fingerprint != after[stage].fingerprint}
    assert changed == {"pretrain", "evaluate", "export"}
    assert not any("image_tokenizer" in after[stage].stage.input_names for stage in changed)
    written = load_recipe(PretrainRecipe, recipe_path(name), overrides=CONTACT)
    assert written.num_codes == 8192  # DALL-E's


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.codes=online", "given_codes: train.codes = online computes VQ-KD's codes"),
        ("train.network.image_target=pixels", "image_target = pixels predicts no codes"),
        ("given_codes.num_codes=70000", "given_codes.num_codes"),
    ],
)
def test_settings_that_contradict_given_codes_are_refused(change, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(PretrainRecipe, recipe_path(GIVEN_CODES), overrides=[*CONTACT, change])


def test_the_base_recipe_is_the_papers_ablation_setting(tmp_path):
    recipe = load_recipe(PretrainRecipe, recipe_path("base"), overrides=CONTACT)
    assert (recipe.train.network.size, recipe.train.steps, recipe.train.lr) == (
        "base",
        200_000,
        2e-3,
    )
    assert sum(recipe.train.samples_per_step.values()) == 6144
    assert recipe.sources.keys() == {
        "cc3m", "sbu", "coco", "visual_genome", "imagenet21k", "wikipedia", "books",
    }  # fmt: skip
    assert recipe.sources["visual_genome"].image_data and recipe.sources["visual_genome"].coco
    assert recipe.evaluation_sets.keys() == {"coco_eval", "flickr30k", "vqav2_test", "nlvr2"}


@pytest.mark.parametrize("name", ["base", "large", "giant"])
def test_the_papers_recipes_leave_out_the_images_of_its_benchmarks(name):
    recipe = load_recipe(PretrainRecipe, recipe_path(name), overrides=CONTACT)
    assert not list(possible_leaks(recipe))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["sources.visual_genome.image_data=null"], "sources.visual_genome: half of Visual"),
        (["sources.visual_genome.coco=null"], "set image_data and coco"),
        (["sources.coco.splits=[train, restval, test]"], "sources.coco: trains on COCO's test"),
        (["evaluation_sets.coco_eval.splits=[test]"], r"COCO \(Karpathy's val and test\) may be"),
        (["evaluation_sets.flickr30k.splits=[val]"], "images of Flickr30K may be"),
        (["evaluation_sets={}"], r"COCO .*Flickr30K, VQAv2 .*NLVR2 .* those of cc3m, sbu"),
    ],
)
def test_what_may_leak_is_named_with_the_way_to_close_it(changes, words):
    recipe = load_recipe(PretrainRecipe, recipe_path("base"), overrides=[*CONTACT, *changes])
    (line,) = possible_leaks(recipe)
    assert re.search(words, line)


def test_what_is_held_out_leaks_nothing_into_training():
    changes = ["sources.coco={format: coco, annotations: a, train_images: t, val_images: v, "
               "splits: [val, test], held_out: true}",
               "sources.visual_genome.held_out=true", "sources.visual_genome.coco=null",
               "evaluation_sets={}"]  # fmt: skip
    recipe = load_recipe(PretrainRecipe, recipe_path("base"), overrides=[*CONTACT, *changes])
    (line,) = possible_leaks(recipe)
    assert line.endswith("those of cc3m, sbu, imagenet21k; add the benchmarks that you evaluate on")


def test_a_recipe_of_texts_alone_leaks_no_images():
    changes = ["sources={own_text: {format: jsonl, file: x}}", "train.images_per_step=0",
               "image_tokenizer.weights=x"]  # fmt: skip
    recipe = load_recipe(
        PretrainRecipe, recipe_path("small"), overrides=[*changes, "train.pairs_per_step=0"]
    )
    assert not list(possible_leaks(recipe))


def test_the_giants_tokenizer_has_the_grid_of_its_network():
    recipe = load_recipe(PretrainRecipe, recipe_path("giant"), overrides=CONTACT)
    config = recipe.train.network.config(vocab_size=1, num_codes=1)
    assert (config.patch_size, config.image_size) == (14, 224)
    assert recipe.image_tokenizer.image_size == 256
    assert (recipe.train.steps, recipe.train.lr) == (1_000_000, 1e-3)


def test_a_recipe_with_data_needs_the_folder(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"sources\.cc3m\.list is .*--data DIR or BEIT3_DATA"):
        opened("base", tmp_path, *CONTACT)
    monkeypatch.setenv("BEIT3_DATA", str(tmp_path / "nowhere"))
    arguments = ["plan", "base", "--workdir", str(tmp_path / "w"), "--set", *CONTACT]
    with pytest.raises(RecipeError, match=f"{tmp_path}/nowhere/Train_GCC-training.tsv"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_an_unknown_variable_is_named_with_its_key(tmp_path):
    with pytest.raises(RecipeError, match=r"sources\.stories\.file is .*known variables"):
        opened("tiny", tmp_path, "sources.stories.file=${date}/x.jsonl")
