"""The stages of the sources that a recipe names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestration import Stage
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.source import Kind, Source

SourceStages = Mapping[str, Sequence[Stage]]
"The stages of each source by name; the last one of a source gives its rows."


def stages_of(sources: Mapping[str, Source], download: DownloadParams | None) -> SourceStages:
    """Return the stages of each source by name."""
    # Which sources are held out changes the token datasets alone, not how a source is read.
    read = {name: source.model_copy(update={"held_out": False}) for name, source in sources.items()}
    return {name: source.stages(name, download) for name, source in read.items()}


@dataclass(frozen=True)
class SourceRows:
    """The last stages of the sources, which give their rows, by the kind of source."""

    pairs: Sequence[Stage]
    images: Sequence[Stage]
    documents: Sequence[Stage]
    held_out: Sequence[Stage]
    "Those of sources that are not trained on."

    @property
    def all_images(self) -> list[Stage]:
        """Return the stages that give images, in the order in which curation reads them."""
        return [*self.pairs, *self.images]

    def held_out_of(self, stages: Collection[Stage]) -> list[Stage]:
        """Return those of some stages whose rows are all held out."""
        return [stage for stage in self.held_out if stage in stages]


def rows_of(sources: Mapping[str, Source], stages: SourceStages) -> SourceRows:
    """Return the stages that give the rows of sources, of which ``stages`` has those of each."""
    last = {name: stages[name][-1] for name in sources}

    def of_kind(kind: Kind) -> list[Stage]:
        return [last[name] for name, source in sources.items() if source.kind == kind]

    return SourceRows(
        pairs=of_kind("pairs"),
        images=of_kind("images"),
        documents=of_kind("texts"),
        held_out=[last[name] for name, source in sources.items() if source.held_out],
    )
