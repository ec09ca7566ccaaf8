"""Study recipes: which runs a file stands for, and what is refused."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration.errors import RecipeError
from pipelines.builtin_recipes import builtin_recipes, recipe_path, recipe_paths
from pipelines.cli import app
from pipelines.commands.options import console
from pipelines.open_recipe import open_recipe
from pipelines.studies.opening import OpenedStudy, open_study
from pipelines.studies.planning import cost_of, plan_runs, runs_table, stages_table, total_cost
from pipelines.studies.study import Study, combinations, read_study
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from tests.pipelines.finetune.committed import commit_stages
from tests.pipelines.studies.small_study import write_study

STUDIES = [name for name in builtin_recipes() if name.startswith("studies/")]
TRAINED = {"pretrain", "evaluate", "export"}


def opened(path: Path, *overrides: str) -> OpenedStudy:
    return open_study(str(path), str(path.parent / "work"), overrides, console)


def test_variants_values_and_seeds_give_every_combination_in_their_order(tmp_path):
    path = write_study(
        tmp_path, grid={"train.lr": [0.001, 0.002], "train.steps": [5]}, seeds=[3, 1]
    )
    found = combinations(read_study(path, recipe_paths()), path, recipe_paths())
    assert [run.words for run in found] == [
        f"{name}, train.lr={lr}, train.steps=5, seed {seed}"
        for name in ("separate", "joint")
        for lr in ("0.001", "0.002")
        for seed in (3, 1)
    ]
    recipes = [run.opened.recipe.train for run in opened(path).runs]
    assert [(r.pair_masking, r.lr, r.seed) for r in recipes] == [
        (masking, lr, seed)
        for masking in ("separate", "joint")
        for lr in (0.001, 0.002)
        for seed in (3, 1)
    ]


def test_a_variant_by_name_changes_its_own_keys_and_not_those_that_it_extends(tmp_path):
    runs = opened(write_study(tmp_path, changes={"train": {"steps": 7}}, seeds=[0])).runs
    separate, joint = (run.opened.recipe for run in runs)
    assert joint.sources == separate.sources and joint.train.steps == 7
    assert joint.train == separate.train.model_copy(update={"pair_masking": "joint"})
    assert joint.name == "masking: joint, seed 0"


def test_every_stage_before_the_training_is_shared_by_all_runs(tmp_path):
    runs = opened(write_study(tmp_path)).runs
    plans = [{p.stage.name: p.fingerprint for p in run.plan()} for run in runs]
    assert {len({plan[name] for plan in plans}) for name in plans[0].keys() - TRAINED} == {1}
    assert {name: len({plan[name] for plan in plans}) for name in TRAINED} == dict.fromkeys(
        TRAINED, 6
    )


def test_the_first_seed_of_a_study_is_the_run_of_the_recipe_alone(tmp_path):
    path = write_study(tmp_path)
    first = opened(path).runs[0].plan()
    alone = open_recipe(str(tmp_path / "own.yaml"), str(tmp_path / "work"), [], console)
    planned = alone.workflow.plan(alone.store)
    assert [p.fingerprint for p in planned] == [p.fingerprint for p in first]


@pytest.mark.parametrize(
    ("values", "overrides", "words"),
    [
        ({"recipe": "nowhere"}, [], "recipe: nowhere is no file and no built-in recipe"),
        ({"variants": {"a": "nowhere"}}, [], r"variants\.a: nowhere is no file"),
        ({"variants": {"a": {"trein": {}}}}, [], "a, seed 0: .*trein: .*'train'"),
        ({"variants": {"a": {}, "b": {"train": {}}}}, [], "a, seed 0 and b, seed 0 are the same"),
        ({"grid": {"train.lr": [0.1, 0.1]}}, [], r"grid\.train\.lr: .*0\.1 stands twice"),
        ({"grid": {"train.lr": []}}, [], r"grid\.train\.lr"),
        ({"grid": {"train..lr": [1]}}, [], r"grid\.train\.\.lr: a part of the key is empty"),
        ({"grid": {"train.lr": ["high"]}}, [], "train.lr=high, seed 0: .*'high'"),
        ({"seeds": []}, [], "seeds"),
        ({"seeds": [0, 0]}, [], "seeds: .*0 stands twice"),
        ({"seeds": [-1]}, [], r"seeds\.0"),
        ({"metric": ["a"]}, [], "did you mean 'metrics'"),
        ({}, ["train.seed=4"], r"separate, seed 0: train\.seed: --set .* says 4; .*`seeds: \[4\]`"),
        ({}, ["name=x"], "seed 0: name: --set or the environment says x; .* leave it out"),
        ({}, ["train.pair_masking=joint"], "separate, seed 0 and joint, seed 0 are the same run"),
        ({"variants": {"a": {"train": {"seed": 4}}}}, [], r"train\.seed: the study's key"),
        ({"grid": {"train.seed": [1]}}, [], r"train\.seed: the study's key `seeds` sets it"),
        ({"changes": {"train": 5}, "variants": {}}, [], "own.yaml, seed 0: train: 5 is no section"),
        ({"variants": {"a": {"train": 5}}, "grid": {"train.lr": [0.1]}}, [],
         r"study\.yaml: grid\.train\.lr: sets keys of the section train, .* the value 5 as well"),
        ({"grid": {"train": [5], "train.network.size": ["tiny"]}}, [],
         r"grid\.train\.network\.size: sets keys of the section train, .* the value 5 as well"),
        ({"changes": {"train": {"network": "tiny"}}, "variants": {"a": {"train": {"network": {}}}}},
         [], r"variants\.a: sets keys of the section train\.network, .* the value tiny as well"),
        ({"changes": {"name": "b"}}, [], "separate, seed 0: name: .* leave it out"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_refused_with_its_key_before_anything_runs(
    tmp_path, values, overrides, words
):
    with pytest.raises(RecipeError, match=re.compile(words, re.DOTALL)):
        opened(write_study(tmp_path, **values), *overrides)
    assert not (tmp_path / "work").exists()


def test_a_recipe_is_no_study_and_a_study_is_no_recipe(tmp_path):
    path = write_study(tmp_path)
    with pytest.raises(RecipeError, match=r"no study: .* by `beit3 run`"):
        opened(tmp_path / "own.yaml")
    with pytest.raises(RecipeError, match=r"is a study, .* by `beit3 sweep`"):
        open_recipe(str(path), str(tmp_path / "work"), [], console)


@pytest.mark.parametrize("key", sorted(Study.model_fields.keys() - {"name", "recipe"}))
def test_a_study_that_names_no_recipe_is_told_so(tmp_path, key):
    path = tmp_path / "study.yaml"
    path.write_text(f"name: s\n{key}: {{}}\n")
    words = f"only a study has {key}, and this one lacks the key recipe, the recipe of its runs"
    done = [
        CliRunner().invoke(app, [*command, str(path), "--workdir", str(tmp_path / "work")])
        for command in (["plan"], ["plan", "--shrink"], ["run"], ["sweep"])
    ]
    assert [str(each.exception) for each in done] == [
        f"{path}: {words}; write it as recipe: base"
    ] * 4
    for kind in (PretrainRecipe, EvaluationRecipe, FinetuneRecipe):
        assert key not in kind.model_fields


def test_the_name_of_a_run_has_its_values_as_they_are_written_in_a_recipe(tmp_path):
    path = write_study(tmp_path, variants={}, seeds=[0])
    path.write_text(
        path.read_text()
        + "grid: {a: [null], b: [true, False], c: [[1.0e-3, x]], d: [{e: 5, f: [no, null]}]}\n"
    )
    found = combinations(read_study(path, recipe_paths()), path, recipe_paths())
    assert [run.variant for run in found] == [
        f"a=null, b={b}, c=[1.0e-3, x], d={{e: 5, f: [no, null]}}" for b in ("true", "false")
    ]


def test_an_empty_section_is_filled_by_the_grid(tmp_path):
    path = write_study(
        tmp_path, variants={"a": {"train": None}}, grid={"train.lr": [0.001]}, seeds=[0]
    )
    (run,) = opened(path).runs
    assert run.opened.recipe.train.lr == 0.001


def test_a_fine_tuning_has_one_seed_for_all(tmp_path):
    for name in ("train", "dev", "weights", "vocabulary"):
        (tmp_path / name).write_text(name)
    (tmp_path / "glue.yaml").write_text(
        "name: glue\ntask: {name: text_classification}\n"
        f"start_from: {tmp_path}/weights\ntext_tokenizer: {tmp_path}/vocabulary\n"
        f"data:\n  train: {{format: glue, corpus: rte, file: {tmp_path}/train}}\n"
        f"  dev: {{format: glue, corpus: rte, file: {tmp_path}/dev}}\n"
    )
    path = tmp_path / "study.yaml"
    path.write_text("name: s\nrecipe: glue.yaml\nseeds: [4, 5]\n")
    runs = opened(path).runs
    assert [run.opened.recipe.seed for run in runs] == [4, 5]
    assert [run.variant for run in runs] == ["glue.yaml", "glue.yaml"]


@pytest.mark.parametrize("name", STUDIES)
def test_a_built_in_study_has_runs_that_share_their_tokens(name, tmp_path, monkeypatch):
    monkeypatch.setattr("dataprep.miniweb.corpora.build", lambda folder, size: None)
    monkeypatch.setattr("pipelines.studies.opening._refuse_equal", lambda path, runs: None)
    study = open_study(name, str(tmp_path / "work"), [], console)
    assert len(study.runs) == 6 and {run.seed for run in study.runs} == {0, 1, 2}
    sections = [run.opened.recipe.model_dump(exclude={"name", "train"}) for run in study.runs]
    assert all(section == sections[0] for section in sections)
    assert recipe_path(name).read_text().startswith("# Table 8")


def test_a_plan_counts_each_output_once(tmp_path):
    path = write_study(tmp_path, seeds=[0, 1])
    study = opened(path)
    first = study.runs[0].opened
    commit_stages(first.workflow, first.store, {"evaluate": {"loss/mlm": 1.0}})
    planned = plan_runs(study.runs)
    assert [len(each.todo()) for each in planned] == [0, 3, 3, 3]
    cells = [list(column.cells) for column in runs_table(planned).columns]
    assert cells[1] == ["separate", "separate", "joint", "joint"]
    assert cells[3][:2] == ["nothing: complete", "pretrain, evaluate, export"]
    shared = {
        row[0]: row[1:]
        for row in zip(*(column.cells for column in stages_table(planned).columns), strict=True)
    }
    assert shared["curate"] == ("1", "4", "1", "all runs")
    assert shared["pretrain"] == ("4", "4", "1", "")
    twice = [(p, each.estimates[p.stage.name]) for each in planned for p in each.todo()]
    assert cost_of([*twice, *twice]) == total_cost(planned)
