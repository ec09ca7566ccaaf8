"""Pairs and images of each source, beside the paper's: what the order of the pair stream weighs."""

from collections.abc import Iterator, Mapping

from dataprep.sources.published import PAPER_PAIRS, published
from orchestration.manifest import Manifest
from orchestration.reporting.estimates import Estimate
from pipelines.ingest.source import Source
from pipelines.ingest.sources.visual_genome import VisualGenome
from pipelines.workflows.pretrain_recipe import PretrainRecipe


def pair_counts(
    recipe: PretrainRecipe, estimates: Mapping[str, Estimate], complete: Mapping[str, Manifest]
) -> tuple[int, Iterator[str]]:
    """Return the number of samples in an epoch of the pair stream, and lines that explain it.

    Counts are those of the stage that gives the pair stream if it is complete, else estimates: rows
    of the sources times the mean number of captions of such a source.
    """
    tokens = complete.get(recipe.rows_stage("pair"))
    pairs: dict[str, float] = {}
    images: dict[str, float] = {}
    for name, source in recipe.sources.items():
        if source.kind != "pairs" or source.held_out:
            continue
        if tokens is not None:
            images[name] = tokens.numbers.get(f"images/{name}", 0)
            pairs[name] = tokens.numbers.get(f"pairs/{name}", 0)
        else:
            first = source.stages(name, recipe.download)[0].name
            images[name] = estimates[first].rows or 0
            pairs[name] = images[name] * captions_per_image(source)
    by = pairs if recipe.train.pairs_by == "caption" else images
    weights = recipe.train.source_weights
    epoch = {name: count * weights.get(name, 1) for name, count in by.items()}
    return round(sum(epoch.values())), _lines(images, pairs, epoch, tokens is not None)


def captions_per_image(source: Source) -> float:
    """Return the mean number of captions of an image, as far as it is published."""
    mean = published(source.format).captions_per_image
    if isinstance(source, VisualGenome):
        mean /= source.regions_per_caption
        return min(mean, source.max_captions) if source.max_captions is not None else mean
    return mean


def _lines(
    images: Mapping[str, float],
    pairs: Mapping[str, float],
    epoch: Mapping[str, float],
    measured: bool,
) -> Iterator[str]:
    if not sum(images.values()):
        return
    about = "" if measured else "about "
    yield (
        f"pairs: {about}{_short(sum(pairs.values()))} over {about}{_short(sum(images.values()))} "
        f"images (the paper's: {PAPER_PAIRS})"
    )
    for name in images:
        if not measured and not images[name]:
            yield f"  {name}: the number of its pairs is not known yet"
            continue
        fraction = epoch[name] / (sum(epoch.values()) or 1)
        yield (
            f"  {name}: {about}{_short(pairs[name])} pairs over {_short(images[name])} images, "
            f"{fraction:.1%} of the pair stream"
        )


def _short(number: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
