"""Prepare: annotations and images of one split of a task → its examples.

Out: ``data`` (see ``dataprep.schemas.EXAMPLES``) and ``rejects``: every example of the files ends
in exactly one of the two.
"""

from pydantic import Field

from orchestration import Context, Stage
from orchestration.params import StageParams
from pipelines.finetune.formats.format import TaskFormat


class Params(StageParams):
    """The files of a split, and what an example of the task must have."""

    source: TaskFormat
    "The files."
    num_images: int = Field(ge=0)
    "Number of images of an example."
    num_texts: tuple[int, int | None]
    "Fewest and most texts of an example; null sets no limit."
    needs_labels: bool
    "Whether an example without labels is a reject."


def stage(
    params: TaskFormat,
    *,
    split: str,
    num_images: int,
    num_texts: tuple[int, int | None],
    needs_labels: bool,
) -> Stage:
    """Declare the stage ``prepare/<split>``; ``split`` is train, dev or test.

    The other arguments are those of the task that the examples are for.
    """
    full = Params(
        source=params, num_images=num_images, num_texts=num_texts, needs_labels=needs_labels
    )
    return Stage(f"prepare/{split}", lambda context: run(context, full, split), full)


def run(context: Context, params: Params, split: str) -> None:
    """Read the annotations in one worker, then the images of each slice in some worker."""
    raise NotImplementedError
