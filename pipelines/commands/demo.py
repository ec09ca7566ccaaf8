"""``beit3 demo``: pretraining on a drawn miniature web, and a fine-tuning of what it learned."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import DEMO_WORKDIR, Overrides, Workdir, console

if TYPE_CHECKING:
    from pipelines.open_recipe import Opened

_PREFIX = "finetune/tiny-"

DemoTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Fine-tune the pretrained network for a task, and a network from scratch beside it: "
        "captioning, retrieval, imagenet, vqa, nlvr2, glue, detection or segmentation. --set then "
        "changes the fine-tuning.",
    ),
]


def demo(
    workdir: Workdir = DEMO_WORKDIR,
    set_: Overrides = [],  # noqa: B006
    task: DemoTask = None,
) -> None:
    """Run the whole workflow on a drawn miniature web, in minutes.

    Example: beit3 demo --task vqa
    """
    from pipelines.commands.run import run_opened
    from pipelines.open_recipe import open_recipe

    if task is not None:
        _check_task(task)
    opened = open_recipe("tiny", workdir, set_ if task is None else [], console)
    run_opened(opened, new_training=True)
    if task is None:
        return
    runs = {
        name: open_recipe(
            f"{_PREFIX}{task}",
            f"{opened.store.uri}-{task}",
            [f"start_from={opened.store.uri}", *set_, *more],
            console,
        )
        for name, more in (("pretrained", []), ("from scratch", ["network.fresh_weights=true"]))
    }
    # The workdir stands for its newest workflow, which is to be that of the pretrained network.
    for each in reversed(runs.values()):
        run_opened(each, new_training=True)
    console.print(_comparison({name: _scores(each) for name, each in runs.items()}))


def _check_task(task: str) -> None:
    from orchestration.errors import RecipeError
    from pipelines.builtin_recipes import builtin_recipes

    known = [n.removeprefix(_PREFIX) for n in builtin_recipes() if n.startswith(_PREFIX)]
    if task not in known:
        raise RecipeError(f"--task {task}: no such task; the tasks are {', '.join(known)}")


def _scores(opened: "Opened") -> dict[str, float]:
    from orchestration.manifest import read_manifest

    (score,) = (p for p in opened.workflow.plan(opened.store) if p.stage.name == "score")
    return read_manifest(opened.store.sub(score.path)).numbers


def _comparison(scores: dict[str, dict[str, float]]) -> "object":
    """Return a table: each metric of the pretrained network, of the control, and by chance."""
    from rich.table import Table

    from pipelines.report.scores import measured

    table = Table("metric", *scores, "chance", title="fine-tuned", title_justify="left")
    for row in measured(next(iter(scores.values()))):
        if row.value is None:
            continue  # it was only published
        values = [f"{some[row.name]:.3f}" for some in scores.values()]
        table.add_row(row.name, *values, "" if row.chance is None else f"{row.chance:.3f}")
    return table
