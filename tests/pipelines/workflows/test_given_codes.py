"""What a recipe says of given codes reaches the plan and the stages after the token tables."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.stage import Stage
from pipelines.workflows.feasibility import impossible
from pipelines.workflows.pair_counts import pair_counts
from pipelines.workflows.pretrain import build_workflow
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from tests.pipelines.workflows.test_held_out_and_flip import fingerprints, recipe

AFTER = {"pretrain", "evaluate", "export"}


def given(tmp_path, num_codes: int = 300, **changes) -> PretrainRecipe:
    file = tmp_path / "codes.parquet"
    if not file.exists():
        columns = {"sample_id": ["a"], "view": [0], "codes": [[1]]}
        pq.write_table(pa.table(columns), file)
    section = {"file": str(file), "num_codes": num_codes}
    return recipe(tmp_path, given_codes=section, **changes)


def stages(recipe: PretrainRecipe) -> dict[str, Stage]:
    return {stage.name: stage for stage in build_workflow(recipe).stages}


def test_training_reads_the_given_tables_and_no_image_tokenizer(tmp_path):
    made = stages(given(tmp_path))
    assert made["given_codes/images"].input_names == ("image_tokens",)
    assert made["given_codes/pairs"].input_names == ("pair_tokens",)
    for name in AFTER:
        inputs = made[name].inputs
        assert inputs["images"] == ("given_codes/images",)
        assert inputs["pairs"] == ("given_codes/pairs",)
        assert "image_tokenizer" not in inputs
    before = fingerprints(recipe(tmp_path))
    after = fingerprints(given(tmp_path))
    assert {name for name in before if before[name] != after[name]} == AFTER


def test_the_head_that_a_plan_expects_has_the_given_number_of_codes(tmp_path):
    of_given, of_vqkd = given(tmp_path, 300), recipe(tmp_path, image_tokenizer={"num_codes": 300})
    assert of_given.num_codes == of_vqkd.num_codes == 300
    expected = [stages(each)["pretrain"].expects() for each in (of_given, of_vqkd)]
    assert expected[0] == expected[1]
    assert expected[0] != stages(given(tmp_path, 8192))["pretrain"].expects()


def test_another_file_or_number_of_codes_gives_another_output(tmp_path):
    first = fingerprints(given(tmp_path))
    second = fingerprints(given(tmp_path, 301))
    changed = {name for name in first if first[name] != second[name]}
    assert changed == AFTER | {"given_codes/images", "given_codes/pairs"}
    columns = {"sample_id": ["b"], "view": [0], "codes": [[1]]}
    pq.write_table(pa.table(columns), tmp_path / "codes.parquet")
    third = fingerprints(given(tmp_path))
    assert {name for name in first if first[name] != third[name]} == changed


def test_counts_of_a_plan_are_those_of_the_images_that_have_codes(tmp_path):
    complete = {
        "pair_tokens": SimpleNamespace(numbers={"images/pairs": 9, "pairs/pairs": 18}),
        "given_codes/pairs": SimpleNamespace(numbers={"images/pairs": 5, "pairs/pairs": 7}),
    }
    assert pair_counts(given(tmp_path), {}, complete)[0] == 7
    assert pair_counts(recipe(tmp_path), {}, complete)[0] == 18


def test_too_few_images_with_codes_are_named_before_the_training(tmp_path):
    def table(num_groups: int) -> SimpleNamespace:
        groups = SimpleNamespace(row_groups=(1,) * num_groups)
        return SimpleNamespace(parts=[SimpleNamespace(tables={"train": groups})])

    chosen = given(tmp_path, train={"substreams": 4, "texts_per_step": 0})
    complete = {"image_tokens": table(9), "pair_tokens": table(9), "given_codes/pairs": table(9),
                "given_codes/images": table(3)}  # fmt: skip
    (line,) = impossible(chosen, complete)
    assert "train.substreams = 4 needs as many row groups, but the image stream has 3" in line
