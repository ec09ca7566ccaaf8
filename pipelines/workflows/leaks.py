"""Which images of public benchmarks a recipe may train on."""

from collections.abc import Callable, Iterator
from typing import Final

from pipelines.ingest.source import Source
from pipelines.ingest.sources.coco import Coco
from pipelines.ingest.sources.flickr30k import Flickr30k
from pipelines.ingest.sources.visual_genome import VisualGenome
from pipelines.workflows.pretrain_recipe import PretrainRecipe

Covers = Callable[[str, Source], bool]
"Whether an entry of ``evaluation_sets``, given by name and source, holds a benchmark's images."


def _coco(name: str, source: Source) -> bool:
    return isinstance(source, Coco) and {"val", "test"} <= set(source.splits)


def _flickr30k(name: str, source: Source) -> bool:
    return isinstance(source, Flickr30k) and "test" in source.splits


def _named(start: str) -> Covers:
    return lambda name, source: name.startswith(start)


BENCHMARKS: Final[dict[str, Covers]] = {
    "COCO (Karpathy's val and test)": _coco,
    "Flickr30K": _flickr30k,
    "VQAv2 (an entry named vqav2…)": _named("vqav2"),
    "NLVR2 (an entry named nlvr2…)": _named("nlvr2"),
}
"The paper's benchmarks whose images lie on the web, and which evaluation set holds each."


def possible_leaks(recipe: PretrainRecipe) -> Iterator[str]:
    """Yield which benchmark images may be trained on, and how to leave them out."""
    trained = {name: source for name, source in recipe.sources.items() if not source.held_out}
    for name, source in trained.items():
        if isinstance(source, VisualGenome) and None in (source.image_data, source.coco):
            yield (
                f"sources.{name}: half of Visual Genome's images are COCO's, those that COCO "
                "evaluates on among them; set image_data and coco to leave them out"
            )
        if isinstance(source, Coco) and (split := {"val", "test"} & set(source.splits)):
            yield (
                f"sources.{name}: trains on COCO's {' and '.join(sorted(split))}, on which models "
                "are evaluated; set splits to [train, restval]"
            )
    # The miniature web's images are in no benchmark.
    images = [name for name, source in trained.items() if source.kind != "texts"]
    if recipe.miniweb is not None or not images:
        return
    open_ = [
        benchmark
        for benchmark, covers in BENCHMARKS.items()
        if not any(covers(name, source) for name, source in recipe.evaluation_sets.items())
    ]
    if open_:
        yield (
            f"evaluation_sets: images of {', '.join(open_)} may be among those of "
            f"{', '.join(images)}; add the benchmarks that you evaluate on"
        )
