"""Pretrain: three token datasets → a BEiT-3 checkpoint.

In: image, text and pair tokens, both tokenizers (the image tokenizer not with the codes of
another one). Out: the last checkpoint
(``torch.distributed.checkpoint`` shards), ``network.json``, the history of the metrics (Parquet
files in ``history``), a figure of the losses, and records of skipped steps. Each step takes exactly
as many samples of each stream as the recipe says (paper, section 2.3).
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from model import BEiT3Config
from model.training import float8
from model.training.batch import Stream
from model.training.cost import memory_bytes
from orchestration import Context, Stage, feeding
from orchestration.branches import branch_numbers
from orchestration.checkpoint_files import newest_whole, step_of
from orchestration.errors import StageError
from orchestration.manifest import File
from orchestration.params import StageParams
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.training import files_of, fit
from pipelines.pretrain import start_from
from pipelines.pretrain.crops import NewViews
from pipelines.pretrain.evaluate_while_training import CheckpointEvaluator, Evaluation
from pipelines.pretrain.evaluation.params import Params as EvaluationParams
from pipelines.pretrain.feed_bytes import feed_bytes, process_bytes
from pipelines.pretrain.loss_figure import draw_losses
from pipelines.pretrain.params import Params
from pipelines.pretrain.skipped_steps import skipped_files
from pipelines.pretrain.start_tokenizers import TokenizerParams, tokenizer_params
from pipelines.pretrain.training_task import PretrainJob
from pipelines.readers.expected_memory import CUDA_BYTES, total_rows
from pipelines.tokens import (
    given_codes,
    image_tokenizer,
    image_tokens,
    text_tokenizer,
    text_tokens,
    vqkd_training,
)
from pipelines.tokens.given_weights import num_codes_of
from pipelines.training.history import complete_curve
from pipelines.training.loop import train
from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD, VQKDConfig

FIGURE_FILE: Final = "losses.png"
_ORDERED_BYTES: Final = 12
"Memory of a row in the order of its stream, while the order is built."
ROLES: Final[Mapping[Stream, str]] = {"image": "images", "text": "texts", "pair": "pairs"}
"Role of the input of each stream."


def stage(
    params: Params,
    *,
    seed: int,
    images: Stage,
    texts: Stage,
    pairs: Stage,
    text_tokenizer: Stage,
    image_tokenizer: Stage | None,
    evaluation: EvaluationParams | None = None,
    evaluation_seed: int = 0,
) -> Stage:
    """Return the stage ``pretrain``.

    Args:
        params: the recipe's section ``train``.
        seed: of the recipe, unless the section has its own.
        images: ``image_tokens`` or ``given_codes/images``.
        texts: ``text_tokens``.
        pairs: ``pair_tokens`` or ``given_codes/pairs``.
        text_tokenizer: ``text_tokenizer``.
        image_tokenizer: ``image_tokenizer``; None if the codes are given.
        evaluation: how checkpoints are evaluated while the training goes on.
        evaluation_seed: seed of the stage ``evaluate``.
    """
    params = params if params.seed is not None else params.model_copy(update={"seed": seed})
    crops = images.params
    assert isinstance(crops, image_tokens.CropParams)
    codes = crops if image_tokenizer is None else image_tokenizer.params
    tokenizers = tokenizer_params(text_tokenizer.params, codes)
    codebook = {} if image_tokenizer is None else {"image_tokenizer": image_tokenizer}
    measured = evaluation or EvaluationParams()
    return Stage(
        "pretrain",
        lambda context: run(context, params, crops, tokenizers, measured, evaluation_seed),
        params,
        feeding(
            images=images,
            texts=texts,
            pairs=pairs,
            text_tokenizer=text_tokenizer,
            **codebook,
        ),
        seed=params.seed,
        version=7,
        requires=partial(_requires, params, tokenizers),
        resources=params.resources,
        expects=partial(_expects_after, params, texts, text_tokenizer, codes),
        workers=partial(workers, params, {"image": images, "text": texts, "pair": pairs}),
    )


def _requires(params: Params, tokenizers: TokenizerParams) -> str | None:
    """Return why the training cannot start, as far as it is known before."""
    if params.float8 and (fault := float8.unavailable()):
        return f"train.float8: {fault}; or set train.float8=false"
    return start_from.requires(params, tokenizers)


def _expects_after(params: Params, texts: Stage, words: Stage, codes: StageParams) -> Expected:
    assert isinstance(texts.params, text_tokens.Params)
    assert isinstance(words.params, text_tokenizer.Params)
    if isinstance(codes, given_codes.Params):
        num_codes = codes.num_codes
    else:
        assert isinstance(codes, image_tokenizer.Params)
        num_codes = num_codes_of(codes, codes.weights)
    return expects(params, texts.params.length, words.params.vocab_size, num_codes)


def expects(params: Params, text_length: int, vocab_size: int, num_codes: int) -> Expected:
    """Return the samples to train on, the checkpoint's bytes and a worker's memory."""
    config = params.network.config(vocab_size=vocab_size, num_codes=num_codes)
    per_sample = params.sample_shapes(config, text_length)
    layout = params.layout(params.min_workers)
    memory = memory_bytes(config, per_sample, layout)
    return Expected(
        rows=params.steps * sum(params.samples_per_step.values()),
        bytes=memory["weights"] + memory["optimizer state"],
        memory=sum(memory.values()),
    )


def workers(
    params: Params, streams: Mapping[Stream, Stage], inputs: Mapping[str, Expected]
) -> Workers:
    """Predict a worker's memory in its machine: the order, row groups, processes that cut."""
    ordered = [streams[stream].name for stream in ("image", "pair")]
    held = total_rows(inputs, ordered) * _ORDERED_BYTES
    held += process_bytes(params) + feed_bytes(
        params,
        {stream: stage.params for stream, stage in streams.items()},
        {stream: inputs[stage.name] for stream, stage in streams.items()},
    )
    weights = params.network.weight_bytes()
    copied = 3 * weights  # with the optimizer state, while a checkpoint is written
    held += copied // (params.min_workers if params.sharding == "full" else 1)
    held += CUDA_BYTES if params.use_gpu else 4 * weights
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.min_workers)


def run(
    context: Context,
    params: Params,
    crops: image_tokens.CropParams,
    tokenizers: TokenizerParams,
    evaluation: EvaluationParams,
    evaluation_seed: int,
) -> None:
    """Train with Ray Train, draw the losses, commit."""
    text = context.input("text_tokenizer")
    vocab_size = TextTokenizer.load(text.fetch(text_tokenizer.MODEL_FILE)).num_rows
    tokenizer, new_views = None, None
    if isinstance(crops, given_codes.Params):
        config = params.network.config(vocab_size=vocab_size, num_codes=crops.num_codes)
    else:
        tokenizer = context.input("image_tokenizer")
        codes = VQKD.load(tokenizer.fetch(vqkd_training.MODEL_FILE)).config
        config = params.network.config(vocab_size=vocab_size, num_codes=codes.num_codes)
        _check_grid(codes, config)
        if params.codes == "online":  # drawn as the stored ones, cut at the tokenizer's size
            new_views = NewViews(crops.min_crop_scale, crops.flip, codes.image_size)
    inputs = {stream: context.input(role) for stream, role in ROLES.items()}
    datasets = {stream: dataset.table("train") for stream, dataset in inputs.items()}
    job = PretrainJob(
        params, context.seed, datasets, text, config, tokenizer, new_views, context.folder
    )
    try:  # report a mismatch here, before any worker starts
        job.make_feed(0, params.max_workers)
    except ValueError as error:
        raise StageError(f"pretrain cannot start: {error}") from None
    outputs = {"text_tokenizer": text} | ({"image_tokenizer": tokenizer} if tokenizer else {})
    start_from.prepare(context, params, config, tokenizers, outputs)
    evaluator = None
    if params.evaluate_every is not None:
        measured = Evaluation(evaluation, params.feed_params(), evaluation_seed, inputs, text)
        newest = newest_whole(context.folder, read=False)
        done = 0 if newest is None else step_of(newest)
        every = params.evaluate_every
        evaluator = CheckpointEvaluator(context, measured, every, params.steps, done)
    checkpoint = fit(context, params, train, job, evaluator)
    curve = complete_curve(context, checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        figure = Path(temporary) / FIGURE_FILE
        draw_losses(curve.points(), figure)
        context.log.artifact(figure)
        context.folder.write_file(FIGURE_FILE, figure)
    numbers = {
        "num_steps": params.steps,
        "num_skipped_steps": curve.num_skipped,
        **branch_numbers(context.folder),
    }
    if params.spike_factor is not None:
        numbers["num_spikes"] = curve.num_spikes
    files: list[str | File] = [
        *files_of(context, checkpoint),
        *curve.files,
        *skipped_files(context.folder),
        *start_from.report_files(context),
    ]
    context.commit(files=files, numbers=numbers)
    context.folder.remove(start_from.START_FOLDER)


def _check_grid(codes: VQKDConfig, config: BEiT3Config) -> None:
    """Check that a view has as many codes as the network has patches.

    Raises:
        StageError: it has not.
    """
    if codes.grid != config.grid:
        raise StageError(
            f"pretrain cannot start: the tokenizer's grid is {codes.grid} x {codes.grid}, the "
            f"network's {config.grid} x {config.grid}; set image_tokenizer.image_size to "
            f"{config.grid} * image_tokenizer.patch_size"
        )
