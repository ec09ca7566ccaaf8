"""Captions of a loaded model are those of the generation, as text."""

import numpy as np
import pytest
import torch

from model import BEiT3
from model.finetuning.generation import Decoding, generate
from model.finetuning.task_networks import ForCaptioning, TaskNetwork
from model.training import randomness
from orchestration.storage.store import Store
from pipelines import PretrainedModel
from pipelines.finetune.predicting import Predictor
from pipelines.finetune.task import Task
from pipelines.finetune.texts import TextEncoder
from pipelines.inference.parts import Source
from tests.committing import commit_tables
from tests.pipelines.finetune.examples import examples, text_tokenizer
from tests.pipelines.finetune.jobs import vocabulary
from tests.pipelines.inference.models import builder_of, config_of, fine_tuned, network_of


class Captions(Task):
    """A task whose network has the head for captions."""

    def network(self, encoder: BEiT3, labels: object, texts: TextEncoder) -> TaskNetwork:
        return ForCaptioning(encoder, texts.tokenizer.mask)


Captions.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(
    "decoding",
    [None, Decoding(num_beams=1, max_length=8), Decoding(1, 0.0, 9, temperature=0.8, top_p=0.9)],
)
def test_a_model_captions_as_the_generation_does(tmp_path, decoding):
    (tmp_path / "spm.model").write_bytes(vocabulary())
    torch.manual_seed(3)
    made = ForCaptioning(BEiT3(config_of()), text_tokenizer().mask).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model = PretrainedModel(
        Source(
            "captions",
            config_of(),
            made.state_dict(),
            Captions(name="captions"),
            text_tokenizer=tmp_path / "spm.model",
        )
    )
    assert "caption" in model.methods
    jpegs = [row["images"][0] for row in examples("linear", 3).to_pylist()]
    chosen = decoding or Decoding(max_length=24)
    drawn = chosen.temperature is not None
    seeds = [int(bits) >> 1 for bits in randomness.bits(5, range(3))] if drawn else None
    found = generate(made, model.processor.images(jpegs), chosen, seeds=seeds)
    expected = [text_tokenizer().decode(captions[0].ids) for captions in found]
    assert model.caption(jpegs, decoding, seed=5) == expected and any(expected)
    assert model.caption(jpegs[:2], decoding, seed=5, batch_size=1) == expected[:2]


DRAWN = {"num_beams": 1, "temperature": 0.8, "max_length": 8, "seed": 6}


def test_draws_of_the_recipe_are_those_of_the_stage_predict(tmp_path):
    builder = builder_of("captioning", decoding=DRAWN)
    table = examples("captioning", 5)
    rows = commit_tables(Store(tmp_path / "split"), [table], row_group_rows=4)
    predict = Predictor(builder.task, builder, [], rows, 2)
    fp32 = torch.autocast("cpu", torch.bfloat16, enabled=False)
    expected = list(predict(network_of(builder), np.arange(5), fp32))
    model = PretrainedModel.from_pretrained(fine_tuned(tmp_path / "export", builder))
    found = model.caption([row["images"][0] for row in table.to_pylist()], batch_size=3)
    assert found == [row["labels"][0] for row in expected] and len({*found}) > 1


def test_a_draw_depends_on_seed_and_id_alone(tmp_path):
    model = PretrainedModel.from_pretrained(
        fine_tuned(tmp_path / "export", builder_of("captioning"))
    )
    jpegs = [row["images"][0] for row in examples("linear", 5).to_pylist()]
    names, drawn = list("abcde"), Decoding(num_beams=1, temperature=1.5, max_length=12)
    found = model.caption(jpegs, drawn, seed=1, ids=names)
    again = model.caption(jpegs[::-1], drawn, seed=1, ids=names[::-1], batch_size=2)
    assert again == found[::-1]
    assert model.caption(jpegs[3:4], drawn, seed=1, ids=["d"]) == found[3:4]
    same = [jpegs[0]] * 5
    assert len({*model.caption(same, drawn, seed=1, ids=names)}) > 1
    assert len({*model.caption(same, drawn, seed=1, ids=["a"] * 5)}) == 1
    assert model.caption(jpegs, drawn, seed=2, ids=names) != found
    with pytest.raises(ValueError, match="5 images and 4 ids; give as many"):
        model.caption(jpegs, drawn, ids=names[:4])
    with pytest.raises(TypeError, match="ids: 1 is no text; give a str for each image"):
        model.caption(jpegs[:2], drawn, ids=["a", 1])
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"seed is {seed}; give 0 or more, less than"):
            model.caption(jpegs[:1], drawn, seed=seed)
