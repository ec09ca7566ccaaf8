"""A stage that fails stops what depends on it; the other branch of the workflow is finished."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from orchestration import Context, Workflow
from orchestration.errors import StageError
from orchestration.plan import State
from orchestration.storage.store import Store
from pipelines.workflows.pretrain import build_workflow
from tests.pipelines.workflows.test_held_out_and_flip import recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_database")]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("failing", "unreached"),
    [
        ("text_tokenizer", {"text_tokens", "pair_tokens", "pretrain", "evaluate", "export"}),
        ("text_tokens", {"pretrain", "evaluate", "export"}),
        ("data_report", set()),
    ],
)
def test_a_vocabulary_that_fails_lets_the_image_tokenizer_train(tmp_path, failing, unreached, jobs):
    own = recipe(
        tmp_path,
        image_tokenizer={"teacher": "hand_crafted"},
        cluster={"num_cpus": 2, "object_store_mb": 128},
    )

    def run(context: Context) -> None:
        if context.stage.name == failing:
            raise StageError("the vocabulary cannot be trained")
        context.commit(numbers={"done": 1})

    stages = tuple(replace(stage, run=run) for stage in build_workflow(own).stages)
    flow, store = Workflow(own, stages), Store(tmp_path / "work")
    with pytest.raises(StageError, match="the vocabulary cannot be trained") as error:
        flow.run(store, Console(file=io.StringIO()), jobs=jobs)
    states = {planned.stage.name: planned.state for planned in flow.plan(store)}
    assert {n for n, state in states.items() if state is not State.FRESH} == {failing, *unreached}
    assert all(f"{name} (needs" in str(error.value) for name in unreached)
