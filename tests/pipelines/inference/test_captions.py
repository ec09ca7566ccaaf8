"""Captions of a loaded model are those of the generation, as text."""

import pytest
import torch

from model import BEiT3
from model.finetuning.generation import Decoding, generate
from model.finetuning.task_networks import ForCaptioning, TaskNetwork
from model.training import randomness
from pipelines import PretrainedModel
from pipelines.finetune.task import Task
from pipelines.finetune.texts import TextEncoder
from pipelines.inference.parts import Source
from tests.pipelines.finetune.examples import examples, text_tokenizer
from tests.pipelines.finetune.jobs import vocabulary
from tests.pipelines.inference.models import config_of


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
    seeds = [int(bits) for bits in randomness.bits(5, range(3))] if drawn else None
    found = generate(made, model.processor.images(jpegs), chosen, seeds=seeds)
    expected = [text_tokenizer().decode(captions[0].ids) for captions in found]
    assert model.caption(jpegs, decoding, seed=5) == expected and any(expected)
    assert model.caption(jpegs[:2], decoding, seed=5, batch_size=1) == expected[:2]
