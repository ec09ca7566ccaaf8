"""Data report: what each source gave, and why its other rows were rejected.

In: the lists, the images and the documents of every source, and curation. Out:
``data_report.html``, one page that holds its images, and ``data_report.json``, its numbers. Per
source: rows beside the published count, outcomes by reason, the success rate beside rates that
others reported, the hosts with most failures, sizes, times and a contact sheet; then what curation
dropped. Counts come from manifests, the rest from columns that one worker reads.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from pydantic import Field

from orchestration import Context, Dataset, Stage, feeding
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.report.contact_sheets import Sheets, dropped_sheets, sheet
from pipelines.report.page import render
from pipelines.report.source_counts import ROLES, SourceStages, count, numbers_of

HTML_FILE: Final = "data_report.html"
JSON_FILE: Final = "data_report.json"


class Params(StageParams):
    """What the report shows."""

    num_images: int = Field(default=48, ge=0)
    "Number of images on the contact sheet of a source."
    num_dropped: int = Field(default=12, ge=0)
    "Number of dropped images shown for each reason of curation."
    num_hosts: int = Field(default=20, ge=0)
    "Number of hosts listed per source, those with most failures first."
    thumbnail_size: int = Field(default=96, ge=16)
    "Length in pixels of a thumbnail's shorter side."


def stage(
    params: Params,
    *,
    lists: Sequence[Stage],
    images: Sequence[Stage],
    evaluation_sets: Sequence[Stage],
    documents: Sequence[Stage],
    curated: Stage,
) -> Stage:
    """Declare the stage; ``lists`` are the index stages of sources that are downloaded."""
    return Stage(
        "data_report",
        lambda context: run(context, params),
        params,
        feeding(
            lists=lists,
            curated=curated,
            images=images,
            evaluation_sets=evaluation_sets,
            documents=documents,
        ),
    )


def run(context: Context, params: Params) -> None:
    """Count and render in one worker."""
    sources = sources_of(context)
    numbers = context.run_task(
        make_report, context.folder, params, sources, context.input("curated")
    )
    context.log.artifact(context.folder.fetch(HTML_FILE))
    context.commit(files=[HTML_FILE, JSON_FILE], numbers=numbers)


def sources_of(context: Context) -> list[SourceStages]:
    """Return the sources of a workflow, grouped by role."""
    lists = dict(zip(context.stage.inputs["lists"], context.inputs("lists"), strict=True))
    sources = []
    for role in ROLES:
        for stage, dataset in zip(context.stage.inputs[role], context.inputs(role), strict=True):
            name = stage.rpartition("/")[2]
            before = {key: value for key, value in lists.items() if key == f"index/{name}"}
            sources.append(SourceStages(name, {**before, stage: dataset}, role))
    return sources


def make_report(
    folder: Store, params: Params, sources: Sequence[SourceStages], curated: Dataset
) -> dict[str, float]:
    """Write the page and the JSON file; return the numbers for the manifest."""
    report = count(sources, curated, params.num_hosts)
    images = {source.name: source.last for source in sources if source.has_images}
    size = params.thumbnail_size
    sheets = Sheets(
        {name: sheet(dataset, params.num_images, size) for name, dataset in images.items()},
        dropped_sheets(curated.table("rejects"), images, report.reasons, params.num_dropped, size),
    )
    folder.write_bytes(JSON_FILE, json.dumps(asdict(report), indent=1).encode())
    page = render("data_report.html", report=report, sheets=sheets)
    folder.write_bytes(HTML_FILE, page.encode())
    return numbers_of(report)
