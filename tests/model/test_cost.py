"""Computed costs against torch's own counters on networks that run."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model import BEiT3, BEiT3Config
from model.training.cost import (
    ParallelLayout,
    SampleShape,
    activation_bytes,
    forward_flops,
    memory_bytes,
    parameters_by_part,
    sample_shapes,
    step_flops,
)
from tests.model.networks import ONE_EXPERT, RELEASED, SHARED, network, random_images

FORMS = pytest.mark.parametrize(
    "config",
    [
        SHARED,
        RELEASED,
        BEiT3Config.named("tiny", vocab_size=60, num_codes=20, attention="decoupled"),
        replace(ONE_EXPERT, image_target="pixels"),
    ],
    ids=["paper", "released", "decoupled", "one expert"],
)
KINDS = pytest.mark.parametrize("kind", ["image", "text", "pair"])


def test_the_giant_has_the_paper_s_parameters_by_part_in_the_cost_table():
    parts = parameters_by_part(BEiT3Config.named("giant"))
    assert {name: round(count / 1e6) for name, count in parts.items() if "heads" not in name} == {
        "vision experts": 692,
        "language experts": 692,
        "vision-language experts": 52,
        "token embedding": 90,
        "attention": 317,
        "patch embedding, positions, LayerNorms": 3,
    }
    with torch.device("meta"):
        whole = sum(p.numel() for p in BEiT3(BEiT3Config.named("giant")).parameters())
    assert sum(parts.values()) == whole


def run(made: BEiT3, kind: str):
    """Encode two samples and predict some patches and tokens of each."""
    image = random_images(made.config) if kind != "text" else None
    words = torch.randint(4, 60, (2, 12)) if kind != "image" else None
    encoded = made(image, words)
    logits = []
    if image is not None:
        logits.append(made.mim_head(encoded.patches[:, :3]))
    if words is not None:
        logits.append(made.mlm_head(encoded.text[:, :2]))
    return logits


def sample(config: BEiT3Config, kind: str) -> SampleShape:
    image, text = kind != "text", kind != "image"
    return SampleShape((1 + config.num_patches) * image, 12 * text, 3 * image, 2 * text)


@FORMS
@KINDS
def test_operations_equal_those_that_torch_counts(config, kind):
    made = network(config)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        run(made, kind)
    assert 2 * forward_flops(config, sample(config, kind)) == counter.get_total_flops()


@FORMS
@KINDS
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activation_bytes_equal_what_the_blocks_keep(config, kind, precision):
    """Blocks alone, without the embeddings, the last LayerNorm and the heads."""
    made = network(config)
    weights = {p.untyped_storage().data_ptr() for p in made.parameters()}
    shapes = {tuple(p.shape[::order]) for p in made.parameters() for order in (1, -1)}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # Under bf16 the copies of weights are known by their shapes.
        if storage.data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            kept[storage.data_ptr()] = storage
        return tensor

    image = made.vision(random_images(config), None).detach() if kind != "text" else None
    text = made.language(torch.randint(4, 60, (2, 12)), 0).detach() if kind != "image" else None
    parts = tuple(None if p is None else p.requires_grad_() for p in (image, text))
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        for block in made.blocks:
            parts = block(parts, None, None, kind == "pair")
    measured = sum(storage.nbytes() for storage in kept.values())
    layout = ParallelLayout(precision=precision)
    assert 2 * activation_bytes(config, sample(config, kind), layout) == pytest.approx(
        measured,
        rel=0.07,  # a decoupled pair without sub-LayerNorm keeps one copy more
    )


@FORMS
@KINDS
@pytest.mark.parametrize("recomputing", ["selective", "full"])
def test_operations_done_again_equal_those_that_torch_counts(config, kind, recomputing):
    """The fused attention of CPUs is kept by ``selective`` and counts nothing in torch."""

    def counted(mode: str) -> int:
        made = network(config)
        made.activation_checkpointing = mode
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION),
        ):
            sum(logits.sum() for logits in run(made, kind)).backward()
        return counter.get_total_flops()

    again = counted(recomputing) - counted("none")
    shape = sample(config, kind)
    if recomputing == "selective":
        batch = {kind: shape}
        assert again == 2 * (
            step_flops(config, batch, {kind: 1}, "selective")
            - step_flops(config, batch, {kind: 1}, "none")
        )
    else:  # all products of the blocks but the last one, whose output nothing needs
        products = 4 * config.width**2 + config.ffn_width * config.width
        again -= 2 * 2 * config.depth * shape.length * products
        first_experts = (config.depth - config.fusion_layers) * shape.image_length
        second_products = first_experts * config.ffn_width * config.width
        assert again == 2 * 2 * second_products * (kind == "pair")


@FORMS
@KINDS
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_selective_activation_bytes_equal_the_outputs_of_the_costly_operations(
    config, kind, precision
):
    class Outputs(TorchDispatchMode):
        """Adds up the outputs of products that widen their input, and of attention."""

        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if function.name().split("::")[1].startswith(("mm", "addmm")):
                width_in, width_out = args[-1].shape
                self.total += made.nbytes * (width_out > width_in)
            elif "attention" in function.name():
                self.total += sum(each.nbytes for each in made[:2])
            return made

    made = network(config)
    image = made.vision(random_images(config), None).detach() if kind != "text" else None
    text = made.language(torch.randint(4, 60, (2, 12)), 0).detach() if kind != "image" else None
    parts = (image, text)
    inputs = sum(p.nbytes for p in parts if p is not None)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"), Outputs() as outputs:
        for block in made.blocks:
            parts = block(parts, None, None, kind == "pair")
    shape = sample(config, kind)
    one_block = activation_bytes(config, shape, ParallelLayout(precision=precision))
    one_block //= config.depth
    layout = ParallelLayout(precision=precision, activation_checkpointing="selective")
    kept = 2 * (activation_bytes(config, shape, layout) - one_block)
    assert kept == pytest.approx(outputs.total + config.depth * inputs, rel=0.02)


def test_a_step_of_the_giant_costs_6_operations_per_weight_and_token():
    """The rule of thumb covers most of the operations; attention and heads are the rest."""
    config = BEiT3Config.named("giant")
    batch = sample_shapes(config, text_length=512)
    counts = dict.fromkeys(batch, 2048)
    total = step_flops(config, batch, counts, activation_checkpointing="none")
    weights = config.depth * (4 * 1408**2 + 2 * 1408 * 6144)
    tokens = 2048 * (257 + 512 + 257 + 64)
    assert total == pytest.approx(6 * weights * tokens, rel=0.1)
    assert step_flops(config, batch, counts, activation_checkpointing="full") == total * 4 // 3


def test_sharding_and_activation_checkpointing_reduce_memory():
    config = BEiT3Config.named("giant")
    batch = sample_shapes(config)
    alone = memory_bytes(config, batch, ParallelLayout(micro_batch=8))
    many = memory_bytes(config, batch, ParallelLayout(num_workers=256, micro_batch=8, sharded=True))
    assert many["optimizer state"] == alone["optimizer state"] // 256
    lean = memory_bytes(
        config, batch, ParallelLayout(micro_batch=8, activation_checkpointing="full")
    )
    assert lean["activations"] < alone["activations"] / 5
    assert lean["weights"] == alone["weights"] == 4 * sum(parameters_by_part(config).values())
