"""DataReport report: what each source gave, and why the rest of it did not.

In: the lists, the images and the documents of every source, and curation. Out:
``data_report.html``, one page that holds its images, and ``data_report.json``, its numbers. Per
source: rows beside the published count, outcomes by reason, the success rate beside what others
reported, the hosts that failed most, sizes, times, a contact sheet; then what curation dropped.

Counts come from manifests, the rest from columns read in one worker. Nothing depends on this
stage, which is why it alone may write times: two runs of the same work differ in these.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from pydantic import Field

from orchestration import Context, Dataset
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.report.contact_sheets import Sheets, dropped_sheets, sheet
from pipelines.report.page import page
from pipelines.report.source_counts import ROLES, Source, count, numbers_of

HTML_FILE: Final = "data_report.html"
JSON_FILE: Final = "data_report.json"


class Params(StageParams):
    """What the report shows."""

    images: int = Field(default=48, ge=0)
    "On the contact sheet of a source."
    dropped: int = Field(default=12, ge=0)
    "Images shown for each reason that curation gave."
    hosts: int = Field(default=20, ge=0)
    "Of a source, those with most failures."
    side: int = Field(default=96, ge=16)
    "Pixels of the shorter side of an image that is shown."


def run(context: Context, params: Params) -> None:
    """Count and draw in one worker."""
    sources = sources_of(context)
    numbers = context.run_task(
        make_report, context.folder, params, sources, context.input("curated")
    )
    context.log.artifact(context.folder.fetch(HTML_FILE))
    context.commit(files=[HTML_FILE, JSON_FILE], numbers=numbers)


def sources_of(context: Context) -> list[Source]:
    """Return the sources of a workflow, those of a role together."""
    lists = dict(zip(context.stage.inputs["lists"], context.inputs("lists"), strict=True))
    sources = []
    for role in ROLES:
        for stage, dataset in zip(context.stage.inputs[role], context.inputs(role), strict=True):
            name = stage.rpartition("/")[2]
            before = {key: value for key, value in lists.items() if key == f"index/{name}"}
            sources.append(Source(name, {**before, stage: dataset}, role))
    return sources


def make_report(
    folder: Store, params: Params, sources: Sequence[Source], curated: Dataset
) -> dict[str, float]:
    """Write the page and its numbers; return those that the manifest keeps."""
    report = count(sources, curated, params.hosts)
    images = {source.name: source.last for source in sources if source.has_images}
    sheets = Sheets(
        {name: sheet(images, params.images, params.side) for name, images in images.items()},
        dropped_sheets(
            curated.table("rejects"), images, report.reasons, params.dropped, params.side
        ),
    )
    folder.write_bytes(JSON_FILE, json.dumps(asdict(report), indent=1).encode())
    folder.write_bytes(HTML_FILE, page(report, sheets).encode())
    return numbers_of(report)
