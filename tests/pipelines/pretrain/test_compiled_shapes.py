"""Compiled blocks on the batches of the real feed: a graph for each shape, none after warm-up."""

from dataclasses import replace

import torch
from torch._dynamo.testing import CompileCounter

from model import BEiT3
from model.training.compiling import compile_blocks
from model.training.objectives import predict
from tests.pipelines.pretrain.small_job import CONFIG, make_job

STEPS = 16


def shape(batch):
    """What of a micro-batch may differ within a stream."""
    ids, images = batch.text_ids, batch.pixels
    return (
        batch.stream,
        None if images is None else tuple(images.shape),
        None if ids is None else tuple(ids.shape),
        batch.text_padding is None,
    )


def test_blocks_are_not_compiled_again_after_each_shape_was_seen(tmp_path):
    """Captions of 3 to 32 tokens; micro-batches of 3, 3 and 2 samples; stochastic depth."""
    torch._dynamo.reset()
    job = make_job(tmp_path, micro_batch=3, max_caption_length=32)
    job = replace(job, config=replace(CONFIG, depth=4, fusion_layers=2))
    feed, network = job.make_feed(0, 1), BEiT3(job.config)
    graphs = CompileCounter()
    compile_blocks(network, backend=graphs)

    def run(batch):
        losses = predict(network, batch.to(torch.device("cpu"))).values()
        torch.stack([made.loss_sum for made in losses]).sum().backward()

    batches = [batch for step in range(STEPS) for batch in feed.step(step)]
    shapes = {shape(batch): batch for batch in batches}
    lengths = {text[1] for stream, _, text, _ in shapes if stream == "pair"}
    assert lengths <= {8, 16, 24, 32} and len(lengths) > 2
    assert len(shapes) <= 2 + 2 + 2 * 4
    for batch in shapes.values():
        run(batch)
    # Blocks with and without a vision-language expert have graphs of their own.
    assert graphs.frame_count == 2 * len(shapes)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in batches:
            run(batch)
    assert graphs.frame_count == 2 * len(shapes)
