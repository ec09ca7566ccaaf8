"""Networks of tasks against torchscale's encoder with each head restated in plain torch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.released import WORD_HEAD, class_of, load_released, to_released
from model.finetuning.task_networks import (
    ForCaptioning,
    ForImageClassification,
    ForRetrieval,
    ForTextClassification,
    ForVisualQuestionAnswering,
    ForVisualReasoning,
    TaskNetwork,
)
from model.network.loading import StateMismatch
from tests.model.finetuning.official_decoding import OfficialCaptioner
from tests.model.networks import RELEASED, official_arguments, random_images

UNNORMED = replace(RELEASED, final_norm=False)
IDS = torch.randint(4, 60, (2, 10), generator=torch.Generator().manual_seed(1))
PADDING = torch.arange(10) >= torch.tensor([10, 6])[:, None]
MAKERS = {
    "retrieval": (RELEASED, ForRetrieval),
    "vqa": (UNNORMED, lambda network: ForVisualQuestionAnswering(network, 7)),
    "nlvr2": (RELEASED, ForVisualReasoning),
    "imagenet": (UNNORMED, lambda network: ForImageClassification(network, 5)),
    "captioning": (RELEASED, lambda network: ForCaptioning(network, network.config.vocab_size - 9)),
}


def built(task: str, config: BEiT3Config | None = None) -> TaskNetwork:
    """A network of a task, all of whose weights differ from their initial values."""
    torch.manual_seed(0)
    found, make = MAKERS[task]
    network = make(BEiT3(config or found)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


class Reference:
    """torchscale's encoder, and the tensors of a head."""

    def __init__(self, official: dict[str, Tensor], config: BEiT3Config) -> None:
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3 as Encoder

        self.whole = official
        self.encoder = Encoder(EncoderConfig(**official_arguments(config))).eval()
        body = {n.removeprefix("beit3."): t for n, t in official.items() if "beit3." in n}
        self.encoder.load_state_dict(body, strict=True)
        self.head = {n: t for n, t in official.items() if "beit3." not in n}

    def hidden(self, images: Tensor | None, ids: Tensor | None = None) -> Tensor:
        padding = None if ids is None else PADDING
        return self.encoder(
            textual_tokens=ids, visual_tokens=images, text_padding_position=padding
        )["encoder_out"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.head[f"{name}.weight"], self.head.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.head[f"{name}.weight"], self.head[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias)


def reference_of(task: str) -> tuple[TaskNetwork, Reference]:
    network = built(task)
    official, omitted = to_released(network)
    assert omitted == []
    return network, Reference(official, MAKERS[task][0])


@torch.no_grad()
def test_retrieval_features_equal_the_restated_ones():
    ours, theirs = reference_of("retrieval")
    images = random_images(RELEASED)
    image = F.normalize(theirs.linear(theirs.hidden(images)[:, 0], "vision_head"), dim=-1)
    text = F.normalize(theirs.linear(theirs.hidden(None, IDS)[:, 0], "language_head"), dim=-1)
    torch.testing.assert_close(ours.encode_images(images), image, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.encode_texts(IDS, PADDING), text, atol=1e-5, rtol=1e-4)
    assert set(theirs.head) == {"vision_head.weight", "language_head.weight", "logit_scale"}


@torch.no_grad()
def test_answer_scores_equal_the_restated_ones():
    ours, theirs = reference_of("vqa")
    images = random_images(RELEASED)
    first = theirs.hidden(images, IDS)[:, 0]
    pooled = theirs.linear(theirs.norm(first, "pooler.norm"), "pooler.dense").tanh()
    x = F.gelu(theirs.norm(theirs.linear(pooled, "head.0"), "head.1"))
    torch.testing.assert_close(
        ours(images, IDS, PADDING), theirs.linear(x, "head.3"), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_scores_of_two_images_equal_the_restated_ones():
    ours, theirs = reference_of("nlvr2")
    images = torch.stack([random_images(RELEASED), random_images(RELEASED)], dim=1)
    features = []
    for i in range(2):
        hidden = theirs.hidden(images[:, i], IDS)
        features += [hidden[:, 0], hidden[:, 1 + RELEASED.num_patches]]
    x = theirs.linear(theirs.norm(torch.cat(features, dim=-1), "head.norm1"), "head.dense1")
    x = theirs.linear(F.gelu(theirs.norm(x, "head.norm2")), "head.dense2")
    torch.testing.assert_close(ours(images, IDS, PADDING), x, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_class_scores_equal_the_restated_ones():
    ours, theirs = reference_of("imagenet")
    images = random_images(RELEASED)
    mean = theirs.hidden(images)[:, 1:].mean(dim=1)
    expected = theirs.linear(theirs.norm(mean, "fc_norm"), "head")
    torch.testing.assert_close(ours(images), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_scores_of_words_equal_the_restated_ones():
    """Of some positions, in captions of which one is padded."""
    ours = built("captioning")
    official, omitted = to_released(ours)
    assert not omitted and {n for n in official if "beit3." not in n} == WORD_HEAD
    theirs = OfficialCaptioner(official, RELEASED, 51)
    images, positions = random_images(RELEASED), torch.tensor([1, 3, 9, 12, 15])
    expected = theirs.scores(images, IDS, 10, None, PADDING).flatten(0, 1)[positions]
    found = ours(images, IDS, positions, PADDING)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    later = IDS.clone()
    later[0, 5:] = 7
    again = ours(images, later, positions[:2], PADDING)
    torch.testing.assert_close(again, found[:2])  # a token does not see those after it


@pytest.mark.parametrize("task", MAKERS)
def test_the_authors_class_of_a_network_is_named(task):
    network = built(task)
    assert (
        class_of(network.state_dict(), network.network.config)
        == {
            "retrieval": "BEiT3ForRetrieval",
            "vqa": "BEiT3ForVisualQuestionAnswering",
            "nlvr2": "BEiT3ForVisualReasoning",
            "imagenet": "BEiT3ForImageClassification",
            "captioning": "BEiT3ForCaptioning",
        }[task]
    )


@pytest.mark.parametrize("task", MAKERS)
def test_a_released_file_loads_and_is_written_again(task):
    """Into a network of other initial weights, at another resolution too."""
    config, make = MAKERS[task]
    official, _ = to_released(built(task))
    if task == "retrieval":
        official["criterion.logit_scale"] = official.pop("logit_scale")
    torch.manual_seed(5)
    loaded = make(BEiT3(config))
    load_released(loaded, {"model": official})
    again, _ = to_released(loaded)
    for name, tensor in official.items():
        assert torch.equal(again[name.removeprefix("criterion.")], tensor), name
    larger = make(BEiT3(replace(config, image_size=48)))
    load_released(larger, official)
    assert larger.network.vision.positions.shape[0] == 1 + 36


def test_a_head_of_another_task_is_refused_by_name():
    official, _ = to_released(built("vqa"))
    network = built("imagenet")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(StateMismatch, match=r"missing in the head \(4\):") as refused:
        load_released(network, official)
    assert "pooler.dense.weight" in str(refused.value)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_a_head_of_another_number_of_answers_is_refused():
    official, _ = to_released(built("vqa"))
    other = ForVisualQuestionAnswering(BEiT3(UNNORMED), 9)
    with pytest.raises(StateMismatch, match=r"head\.3\.weight: \(7, 96\) given, \(9, 96\)"):
        load_released(other, official)


def released(size: str, image_size: int = 224, *, final_norm: bool = True) -> BEiT3:
    return BEiT3(
        BEiT3Config.named(
            size,
            attention="decoupled",
            fusion_layers=0,
            subln=True,
            image_size=image_size,
            final_norm=final_norm,
        )
    )


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (lambda: ForRetrieval(released("base")), 222.17),
        (lambda: ForRetrieval(released("large")), 674.80),
        (lambda: ForRetrieval(released("base", 384)), 222.46),
        (lambda: ForRetrieval(released("large", 384)), 675.19),
        (
            lambda: ForVisualQuestionAnswering(released("base", 480, final_norm=False), 3129),
            228.11,
        ),
        (
            lambda: ForVisualQuestionAnswering(released("large", 480, final_norm=False), 3129),
            682.99,
        ),
        (
            lambda: ForVisualQuestionAnswering(released("large", 768, final_norm=False), 3129),
            684.42,
        ),
        (lambda: ForCaptioning(released("base", 480), 64001), 270.75),
        (lambda: ForCaptioning(released("large", 480), 64001), 739.03),
        (lambda: ForVisualReasoning(released("base")), 225.72),
        (lambda: ForVisualReasoning(released("large")), 681.11),
    ],
)
def test_parameter_counts_are_the_published_ones(make, millions):
    """Each released file also holds the mask token and the unused rows of the tables."""
    with torch.device("meta"):
        network = make()
        official, _ = to_released(network)
    total = sum(tensor.numel() for tensor in official.values())
    assert round(total / 1e6, 2) == millions


def test_a_text_classifier_reads_the_first_token_and_no_padding():
    torch.manual_seed(0)
    network = ForTextClassification(BEiT3(RELEASED), 3).eval()
    longer = F.pad(IDS[1:, :6], (0, 9), value=1)
    padding = (torch.arange(15) >= 6)[None]
    torch.testing.assert_close(network(longer, padding), network(IDS[1:, :6]))


def test_small_heads_begin_with_nearly_equal_scores():
    torch.manual_seed(0)
    scores = ForVisualReasoning(BEiT3(RELEASED))(
        torch.stack([random_images(RELEASED)] * 2, dim=1), IDS
    )
    assert float(scores.detach().abs().max()) < 1e-3
