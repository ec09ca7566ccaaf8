"""Whether a recipe can be completed with its data, and what its settings imply.

``impossible`` judges by the committed counts of rows alone, so what it says is certain; the runner
asks it again after each stage, before hours are spent on the next one. ``implications`` uses
estimates as well and refuses nothing.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from model.training.batch import Stream
from orchestration.manifest import Manifest
from orchestration.reporting.estimates import Estimate
from pipelines.ingest.source import Kind
from pipelines.pretrain.start_from import plan_lines
from pipelines.pretrain.start_tokenizers import contradictions_of, tokenizer_params
from pipelines.tokens.image_tokens import Params as ImageTokensParams
from pipelines.tokens.vqkd_training import GROUP_ROWS
from pipelines.workflows.compute_time import compute_times
from pipelines.workflows.feed_memory import feed_memory
from pipelines.workflows.pair_counts import pair_counts
from pipelines.workflows.pretrain_recipe import STREAM_KINDS, PretrainRecipe
from pipelines.workflows.scale import scale_lines

_BYTES_PER_PIECE: Final = 50
"Text per piece of the vocabulary below which its training usually fails."
_MOST_EXPOSURES: Final = 30
"Times that a stored view may be seen before a plan advises more views."
_FEW_HELD_OUT: Final = 100
"Held-out rows below which the figures of two checkpoints differ by chance."
_IMAGE_STREAMS: Final[tuple[Stream, ...]] = ("image", "pair")
_KEPT_TABLES: Final[Mapping[Kind, str]] = {"pairs": "pairs", "images": "images"}


def impossible(recipe: PretrainRecipe, complete: Mapping[str, Manifest]) -> list[str]:
    """Return why the workflow cannot be completed; empty if nothing speaks against it.

    Args:
        recipe: the recipe.
        complete: manifests of the complete stages by name.
    """
    start = () if "pretrain" in complete else _start_contradictions(recipe, complete)
    return [*_empty_kinds(recipe, complete), *_too_few_rows(recipe, complete), *start]


def _start_contradictions(
    recipe: PretrainRecipe, complete: Mapping[str, Manifest]
) -> Iterator[str]:
    """Weights to start from belong to a vocabulary and a codebook."""
    tokenizers = tokenizer_params(
        recipe.text_tokenizer, recipe.given_codes or recipe.image_tokenizer
    )
    return contradictions_of(recipe.train, tokenizers, complete)


def _empty_kinds(recipe: PretrainRecipe, complete: Mapping[str, Manifest]) -> Iterator[str]:
    """A stream needs rows of its kind; all its sources together must give some."""
    for stream, kind in STREAM_KINDS.items():
        count = recipe.train.samples_per_step[stream]
        stages = _last_stages(recipe, kind)
        if not count or not stages or not all(name in complete for name in stages):
            continue
        if not any(complete[name].num_rows("data") for name in stages):
            found = "; ".join(f"{name}: {_rejects(complete[name])}" for name in stages)
            yield (
                f"no {kind} to train on, but train.{stream}s_per_step = {count} ({found}). "
                "Correct the sources, or set it to 0"
            )


def _last_stages(recipe: PretrainRecipe, kind: Kind) -> list[str]:
    return [
        source.stages(name, recipe.download)[-1].name
        for name, source in recipe.sources.items()
        if source.kind == kind and not source.held_out
    ]


def _rejects(manifest: Manifest) -> str:
    counts = ", ".join(f"{reason} {n}" for reason, n in manifest.rejects.most_common(3))
    return f"{manifest.num_rows_in} rows read, rejected: {counts or 'none'}"


def _too_few_rows(recipe: PretrainRecipe, complete: Mapping[str, Manifest]) -> Iterator[str]:
    """Each substream needs a row group, as ``model.training.order`` deals them out."""
    if "curate" in complete:
        curated = complete["curate"]
        for stream in _IMAGE_STREAMS:
            section = f"{stream}_tokens"
            if section not in complete:
                tokens = getattr(recipe, section)
                rows = curated.num_rows(f"{stream}s")
                yield from _few_groups(recipe, stream, section, rows, _groups(rows, tokens))
        if recipe.image_tokenizer.weights is None and "image_tokenizer" not in complete:
            kept = sum(curated.num_rows(table) for table in _KEPT_TABLES.values())
            yield from _few_images(recipe, kept, f"curation kept {kept}")
    for stream in STREAM_KINDS:
        rows_stage = recipe.rows_stage(stream)
        if rows_stage in complete:
            parts = (part.tables["train"] for part in complete[rows_stage].parts)
            sizes = [rows for table in parts for rows in table.row_groups]
            yield from _few_groups(recipe, stream, f"{stream}_tokens", sum(sizes), len(sizes))


def _few_images(recipe: PretrainRecipe, num_images: int, words: str) -> Iterator[str]:
    substreams = recipe.image_tokenizer.substreams
    if -(-num_images // GROUP_ROWS) < substreams:
        yield (
            f"image_tokenizer.substreams = {substreams} needs more than "
            f"{(substreams - 1) * GROUP_ROWS} images, {words}; set it "
            f"to {num_images // GROUP_ROWS or 1} or less"
        )


def _few_images_expected(
    recipe: PretrainRecipe, estimates: Mapping[str, Estimate], num_images: int
) -> Iterator[str]:
    """As far as the number of images of every source is known before it is read."""
    stage = estimates.get("image_tokenizer")
    names = [
        name
        for stream in _IMAGE_STREAMS
        for group in _first_stages(recipe, STREAM_KINDS[stream])
        for name in group
    ]
    if not (stage and stage.measured) and all(estimates[name].rows is not None for name in names):
        yield from _few_images(recipe, num_images, f"the sources have about {num_images}")


def _few_groups(
    recipe: PretrainRecipe, stream: Stream, section: str, rows: int, groups: int
) -> Iterator[str]:
    count, substreams = recipe.train.samples_per_step[stream], recipe.train.substreams
    if count and groups < substreams:
        size = getattr(recipe, section).row_group_rows
        yield (
            f"train.substreams = {substreams} needs as many row groups, but the {stream} stream "
            f"has {groups} ({rows} rows, {section}.row_group_rows = {size}); set "
            f"{section}.row_group_rows={max(rows // (2 * substreams), 1)} or fewer substreams"
        )


def _groups(rows: int, tokens: ImageTokensParams) -> int:
    """Return the largest possible number of row groups: held-out rows may leave fewer."""
    whole, rest = divmod(rows, tokens.slice_rows)
    per_slice = -(-tokens.slice_rows // tokens.row_group_rows)
    return whole * per_slice + -(-rest // tokens.row_group_rows)


def implications(
    recipe: PretrainRecipe, estimates: Mapping[str, Estimate], complete: Mapping[str, Manifest]
) -> Iterator[str]:
    """Yield what steps, batches, and vocabulary mean for the rows that are expected."""
    train = recipe.train
    num_pairs, pair_lines = pair_counts(recipe, estimates, complete)
    yield from pair_lines
    rows: dict[str, int] = {}
    num_held_out: dict[str, int] = {}
    for stream, kind in STREAM_KINDS.items():
        rows[stream], num_held_out[stream] = (
            sum(filter(None, (estimates[name].rows for name in names)))
            for names in _first_stages(recipe, kind)
        )
        count = train.samples_per_step[stream]
        # A text row is a packed sequence: their number is known once text_tokens is complete.
        if stream != "text" and count and rows[stream]:
            per_epoch = num_pairs if stream == "pair" else rows[stream]
            epochs = train.steps * count / max(per_epoch, 1)
            yield (
                f"train.steps = {train.steps} x {stream}s_per_step = {count} over about "
                f"{per_epoch} {stream}s: {epochs:.3g} epochs"
            )
            yield from _views(recipe, stream, rows[stream])
            section = f"{stream}_tokens"
            groups = _groups(rows[stream], getattr(recipe, section))
            if section not in estimates or not estimates[section].measured:
                yield from _few_groups(recipe, stream, section, rows[stream], groups)
    # Both tokenizers are trained on held-out rows as well.
    captioned = rows["pair"] + num_held_out["pair"]
    tokenizer, images = recipe.image_tokenizer, rows["image"] + num_held_out["image"] + captioned
    if tokenizer.weights is None and images:
        epochs = tokenizer.steps * tokenizer.batch_size / images
        yield (
            f"image_tokenizer.steps = {tokenizer.steps} x batch_size = {tokenizer.batch_size} "
            f"over about {images} images: {epochs:.3g} epochs"
        )
        yield from _few_images_expected(recipe, estimates, images)
    num_images = {stream: rows[stream] + num_held_out[stream] for stream in _IMAGE_STREAMS}
    yield from compute_times(recipe, num_images, estimates)
    yield from feed_memory(recipe)
    yield from scale_lines(recipe)
    yield from plan_lines(
        recipe.train,
        tokenizer_params(recipe.text_tokenizer, recipe.given_codes or recipe.image_tokenizer),
    )
    yield from _beyond_the_end(recipe)
    yield from _held_out(recipe, estimates)
    yield from _vocabulary(recipe, captioned)


def _beyond_the_end(recipe: PretrainRecipe) -> Iterator[str]:
    """What is asked for at steps that a training does not have."""
    for name in ("image_tokenizer", "train"):
        params = getattr(recipe, name)
        if params.profile_steps is not None and params.profile_steps[0] > params.steps:
            yield (
                f"{name}.profile_steps = {list(params.profile_steps)} begins after {name}.steps = "
                f"{params.steps}: nothing is traced"
            )
    every, steps = recipe.train.evaluate_every, recipe.train.steps
    if every is not None and every >= steps:
        yield (
            f"train.evaluate_every = {every} is not below train.steps = {steps}: only the stage "
            "evaluate evaluates the network"
        )


def _views(recipe: PretrainRecipe, stream: Stream, num_images: int) -> Iterator[str]:
    """A view that is seen often is memorized: its crop and codes never change."""
    num_views = getattr(recipe, f"{stream}_tokens").num_views
    if recipe.train.codes == "online":
        if num_views > 1:
            yield (
                f"{stream}_tokens.num_views = {num_views}: train.codes = online draws new views; "
                "one stored view is enough for the evaluation"
            )
        return
    seen = recipe.train.steps * recipe.train.samples_per_step[stream] / (num_images * num_views)
    line = f"{stream}_tokens.num_views = {num_views}: each view is seen {seen:.3g} times"
    if seen > _MOST_EXPOSURES:
        needed = math.ceil(num_views * seen / _MOST_EXPOSURES)
        line += f"; with {needed} views it would be at most {_MOST_EXPOSURES}"
    yield line


def _first_stages(recipe: PretrainRecipe, kind: Kind) -> tuple[list[str], list[str]]:
    """Return the first stages of the sources that are trained on, and of those held out."""
    trained, held_out = (
        [
            source.stages(name, recipe.download)[0].name
            for name, source in recipe.sources.items()
            if source.kind == kind and source.held_out == is_held_out
        ]
        for is_held_out in (False, True)
    )
    return trained, held_out


def _held_out(recipe: PretrainRecipe, estimates: Mapping[str, Estimate]) -> Iterator[str]:
    """How many rows are about to be held out for ``evaluate``."""
    for stream, kind in STREAM_KINDS.items():
        section, count, total = f"{stream}_tokens", 0.0, 0
        fraction = getattr(recipe, section).held_out_fraction
        sources = recipe.sources if recipe.train.samples_per_step[stream] else {}
        for name, source in sources.items():
            if source.kind != kind:
                continue
            if column := getattr(source, "split_column", None):
                yield f"sources.{name}.split_column = {column} says which {kind} are held out"
            elif rows := estimates[source.stages(name, recipe.download)[0].name].rows:
                count += rows if source.held_out else rows * fraction
                total += rows
        if total:
            few = ", few to compare checkpoints by: raise it or hold out a source"
            yield (
                f"{section}.held_out_fraction = {fraction:g}: about {count:.0f} of {total} "
                f"{'documents' if kind == 'texts' else kind} are held out for evaluation"
                f"{few if count < _FEW_HELD_OUT else ''}"
            )


def _vocabulary(recipe: PretrainRecipe, num_pairs: int) -> Iterator[str]:
    """A vocabulary larger than its corpus supports is refused by SentencePiece."""
    if recipe.text_tokenizer.model is not None:
        return
    paths = [Path(source.file) for source in recipe.sources.values() if source.kind == "texts"]  # type: ignore[attr-defined]
    if not all(path.is_file() for path in paths):
        return
    num_bytes = sum(path.stat().st_size for path in paths) + num_pairs * _BYTES_PER_PIECE
    size = recipe.text_tokenizer.vocab_size
    if num_bytes < size * _BYTES_PER_PIECE:
        yield (
            f"text_tokenizer.vocab_size = {size} is large for about {num_bytes} bytes of text; "
            f"set it to about {max(num_bytes // _BYTES_PER_PIECE, 10)}"
        )
