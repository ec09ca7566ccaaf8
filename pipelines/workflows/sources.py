"""The stages of the sources that a recipe names."""

from collections.abc import Mapping, Sequence

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


def last_stages(sources: Mapping[str, Source], stages: SourceStages, kind: Kind) -> list[Stage]:
    """Return the stages that give the rows of the sources of a kind."""
    return [stages[name][-1] for name, source in sources.items() if source.kind == kind]
