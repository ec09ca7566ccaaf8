"""A plan names what is asked for at steps that a training does not have."""

import pytest

from orchestration.recipe import load_recipe
from pipelines.builtin_recipes import recipe_path
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from tests.pipelines.workflows.test_feasibility import counted

STEPS = "train.steps=50"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.profile_steps=[51,52]"], "train.profile_steps = [51, 52] begins after train.st"),
        (["train.profile_steps=[50,52]"], None),
        (["image_tokenizer.profile_steps=[300000,300001]"], "image_tokenizer.profile_steps = "),
        (["train.evaluate_every=50"], "train.evaluate_every = 50 is not below train.steps = 50"),
        (["train.evaluate_every=49", "train.checkpoint_every=null"], None),
        (["train.evaluate_every=null"], None),
    ],
)
def test_what_lies_beyond_the_last_step_is_named(changes, words):
    found = counted(
        [STEPS, "train.warmup_steps=5", "train.evaluate_every=null", *changes], {"cc3m": 3_000_000}
    )
    lines = [line for line in found.splitlines() if "profile" in line or "evaluate_every" in line]
    assert len(lines) == (words is not None) and all(words in line for line in lines)


@pytest.mark.parametrize("name", ["tiny", "base", "large", "giant"])
def test_no_recipe_asks_for_it(name):
    recipe = load_recipe(
        PretrainRecipe, recipe_path(name), overrides=["download.contact=a@b.example"]
    )
    assert recipe.train.evaluate_every is None or recipe.train.evaluate_every < recipe.train.steps
