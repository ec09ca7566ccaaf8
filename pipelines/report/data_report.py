"""Data report: what each source gave, and why its other rows were rejected.

In: the lists, the images and the documents of every source, and curation. Out:
``data_report.html``, one page that holds its images, and ``data_report.json``, its numbers. Per
source: rows beside the published count, outcomes by reason, the success rate beside rates that
others reported, the hosts with most failures, sizes, times and a contact sheet; then what curation
dropped, and how many of the kept rows will be held out from training. Counts come from manifests,
the rest from columns that one worker reads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

from pydantic import Field

from orchestration import Context, Dataset, Stage, feeding
from orchestration.params import StageParams
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.storage.store import Store
from pipelines.readers.expected_memory import kept_images_bytes, total_rows
from pipelines.report.contact_sheets import Sheets, dropped_sheets, sheet
from pipelines.report.held_out_counts import Splits
from pipelines.report.page import render
from pipelines.report.source_counts import ROLES, SourceStages, count, numbers_of

HTML_FILE: Final = "data_report.html"
JSON_FILE: Final = "data_report.json"
_READ_BYTES: Final = 450_000_000
"Memory of the ranges of columns that are counted at the same time."
_COUNTED_BYTES: Final = 40
"Memory for each image: counts by host, and columns of which a quantile is taken."


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


class ReportParams(Params):
    """The section, and how the token datasets will be split."""

    splits: Splits = Splits()
    "Fractions that are held out, of the sections of the tokens."


def stage(
    params: Params,
    *,
    lists: Sequence[Stage],
    images: Sequence[Stage],
    evaluation_sets: Sequence[Stage],
    documents: Sequence[Stage],
    curated: Stage,
    held_out: Sequence[Stage],
    splits: Splits,
) -> Stage:
    """Return the stage ``data_report``.

    Args:
        params: the recipe's section.
        lists: the index stages of sources that are downloaded.
        images: the stages whose images curation read, in its order.
        evaluation_sets: the last stages of the evaluation sets.
        documents: the stages that give documents.
        curated: ``curate``.
        held_out: the stages whose rows are all held out.
        splits: how the token datasets will be split.
    """
    complete = ReportParams(**params.model_dump(exclude_unset=True), splits=splits)
    return Stage(
        "data_report",
        lambda context: run(context, complete),
        complete,
        feeding(
            lists=lists,
            curated=curated,
            images=images,
            evaluation_sets=evaluation_sets,
            documents=documents,
            held_out=held_out,
        ),
        version=4,
        workers=partial(workers, [image.name for image in images]),
    )


def workers(images: Sequence[str], inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of the one worker: the columns that it reads, and the kept images."""
    counted = total_rows(inputs, images) * _COUNTED_BYTES
    return Workers(WORKER_BYTES + _READ_BYTES + kept_images_bytes(inputs, images, 0) + counted, 1)


def run(context: Context, params: ReportParams) -> None:
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
            is_held_out = stage in context.stage.inputs["held_out"]
            sources.append(SourceStages(name, {**before, stage: dataset}, role, is_held_out))
    return sources


def make_report(
    folder: Store, params: ReportParams, sources: Sequence[SourceStages], curated: Dataset
) -> dict[str, float]:
    """Write the page and the JSON file; return the numbers for the manifest."""
    report = count(sources, curated, params.num_hosts, params.splits)
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
