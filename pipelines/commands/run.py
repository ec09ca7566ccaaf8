"""``beit3 plan`` and ``beit3 run``: the commands that take a recipe."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipelines.commands.options import (
    DataFolder,
    Overrides,
    RecipeName,
    Shrink,
    Workdir,
    WorkdirOrNone,
    console,
    say,
)

if TYPE_CHECKING:
    from orchestration.branches import Branch
    from orchestration.plan import PlannedStage
    from orchestration.storage.store import Store
    from pipelines.open_recipe import Opened

_MOST_SKIPPED: Final = 1_000_000_000
"Steps of data beyond which the number of a sample would exceed 64 bits."
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Run only this stage.")]
Until = Annotated[
    str | None, typer.Option(metavar="STAGE", help="Run this stage and the stages that it needs.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of stages that may run at the same time.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Check the SHA-256 of every file that a stage reads.")
]
Repair = Annotated[
    bool, typer.Option("--repair", help="Find damaged outputs and compute them again.")
]
Retry = Annotated[
    str | None,
    typer.Option(
        metavar="REASONS",
        help="With --only: process again the rejects with these reasons, e.g. timeout,http_5xx.",
    ),
]
Scale = Annotated[
    bool,
    typer.Option("--scale", help="Tabulate the pretraining on 8 to 512 GPUs; print nothing else."),
]
FromStep = Annotated[
    int | None,
    typer.Option(
        "--from-step",
        min=1,
        metavar="N",
        help="Continue the training from its kept checkpoint of step N; later ones are set aside.",
    ),
]
SkipSteps = Annotated[
    int,
    typer.Option(
        "--skip-steps",
        min=0,
        max=_MOST_SKIPPED,
        metavar="M",
        help="With --from-step: leave out the data of the next M steps.",
    ),
]
NewTraining = Annotated[
    bool,
    typer.Option(
        "--new-training",
        help="Start a training although one with other settings is unfinished; that one is kept.",
    ),
]


def plan(
    recipe: RecipeName,
    workdir: WorkdirOrNone = None,
    set_: Overrides = [],  # noqa: B006
    data: DataFolder = None,
    shrink: Shrink = False,
    scale: Scale = False,
) -> None:
    """Print the state of each stage and why, what the sources hold, and what the settings imply.

    Of a study: its runs, the outputs that they share, and the time that is left. Nothing runs.

    Example: beit3 plan tiny --workdir runs/tiny --set train.steps=3000
    """
    if scale:
        if shrink:
            raise typer.BadParameter("sizes are those of the recipe", param_hint="--scale --shrink")
        _print_scale(recipe, set_)
        return
    if workdir is None:
        raise typer.BadParameter("is needed without --scale", param_hint="--workdir")
    from pipelines.studies.opening import is_study

    if not shrink and is_study(recipe):
        _print_study(recipe, workdir, set_, data)
        return
    from orchestration.plan import complete_manifests
    from orchestration.reporting.estimates import estimate
    from orchestration.reporting.memory import machine_memory, memory_warnings
    from orchestration.reporting.summary import plan_table
    from pipelines.open_recipe import open_recipe
    from pipelines.workflows.plan_lines import plan_lines

    opened = open_recipe(recipe, workdir, set_, console, data=data, shrink=shrink)
    planned = opened.workflow.plan(opened.store)
    estimates = estimate(planned, opened.store)
    console.print(plan_table(planned, estimates))
    complete = complete_manifests(planned)
    for line in plan_lines(opened.recipe, estimates, complete):
        say(line)
    cluster = opened.recipe.cluster
    if available := machine_memory(cluster):
        for line in memory_warnings(planned, estimates, cluster, available):
            say(f"memory: {line}")
    for line in opened.workflow.missing_here(planned):
        say(f"this machine: {line}")
    opened.workflow.check(planned)
    opened.workflow.refuse_impossible(complete)


def _print_study(name: str, workdir: str, overrides: Sequence[str], data: str | None) -> None:
    from pipelines.studies.opening import open_study
    from pipelines.studies.planning import plan_runs, runs_table, stages_table, total_cost

    opened = open_study(name, workdir, overrides, console, data=data)
    planned = plan_runs(opened.runs)
    console.print(runs_table(planned))
    console.print(stages_table(planned))
    say(f"{len(planned)} runs, one after the other: {total_cost(planned).words}")


def _print_scale(name: str, overrides: Sequence[str]) -> None:
    """Print a pretraining on 8 to 512 GPUs; no file that the recipe names is read or fetched."""
    from orchestration.errors import RecipeError
    from orchestration.recipe import load_recipe
    from orchestration.recipe_extends import read_extended
    from pipelines.builtin_recipes import recipe_path, recipe_paths
    from pipelines.open_recipe import names_study
    from pipelines.workflows.gpu_rates import GPUS
    from pipelines.workflows.kinds import recipe_type
    from pipelines.workflows.pretrain_recipe import PretrainRecipe
    from pipelines.workflows.scale import scale_table

    path, known = recipe_path(name), recipe_paths()
    values, _ = read_extended(path, known)
    if names_study(path, values) or recipe_type(values) is not PretrainRecipe:
        raise RecipeError(f"--scale: {path} is no recipe of a pretraining, which it is for")
    contact = "download.contact=nobody"  # which a recipe needs, though nothing is downloaded here
    recipe = load_recipe(PretrainRecipe, path, known=known, overrides=[contact, *overrides])
    for gpu in GPUS:
        for line in scale_table(recipe, gpu):
            say(line)


def run(
    recipe: RecipeName,
    workdir: Workdir,
    set_: Overrides = [],  # noqa: B006
    data: DataFolder = None,
    shrink: Shrink = False,
    only: Only = None,
    until: Until = None,
    jobs: Jobs = 1,
    verify: Verify = False,
    repair: Repair = False,
    retry: Retry = None,
    from_step: FromStep = None,
    skip_steps: SkipSteps = 0,
    new_training: NewTraining = False,
) -> None:
    """Run every stage that is not fresh. A killed run continues where it stopped.

    Example: beit3 run tiny --workdir runs/tiny --until curate
    """
    from orchestration.branches import Branch
    from orchestration.errors import RecipeError
    from pipelines.open_recipe import open_recipe

    if skip_steps and from_step is None:
        raise RecipeError(f"--skip-steps {skip_steps} needs --from-step")
    back = None if from_step is None else Branch(from_step, skip_steps)
    opened = open_recipe(recipe, workdir, set_, console, data=data, shrink=shrink)
    reasons = retry.split(",") if retry else ()
    run_opened(
        opened,
        only,
        until,
        jobs=jobs,
        verify=verify,
        repair=repair,
        retry=reasons,
        back=back,
        new_training=new_training,
    )


def run_opened(
    opened: "Opened",
    only: str | None = None,
    until: str | None = None,
    *,
    jobs: int = 1,
    verify: bool = False,
    repair: bool = False,
    retry: Sequence[str] = (),
    back: "Branch | None" = None,
    new_training: bool = False,
) -> None:
    """Print the plan of an opened recipe, run its stages and print the summary.

    Raises:
        PipelineError: a stage cannot run or failed; committed outputs are kept.
    """
    from orchestration.plan import State
    from orchestration.reporting.estimates import estimate
    from orchestration.reporting.summary import plan_table
    from pipelines.open_recipe import miniweb_served
    from pipelines.summary import print_summary, reported

    workflow, store = opened.workflow, opened.store
    planned = workflow.plan(store)
    if repair:
        _repair(store, workflow.select(planned, only, until))
        planned = workflow.plan(store)
    console.print(plan_table(planned, estimate(planned, store)))
    todo = [p for p in workflow.select(planned, only, until) if p.state is not State.FRESH]
    if retry:
        todo = [p for p in planned if p.stage.name == only]
    with reported(console, store), miniweb_served(opened, todo) as served:
        planned = served.run(
            store,
            console,
            only=only,
            until=until,
            jobs=jobs,
            verify=verify,
            retry=retry,
            back=back,
            new_training=new_training,
        )
    print_summary(console, store, {p.stage.name: p.fingerprint for p in planned})


def _repair(store: "Store", planned: "Sequence[PlannedStage]") -> None:
    from orchestration.integrity import repair
    from orchestration.plan import State
    from orchestration.storage.lock import workdir_lock

    with workdir_lock(store), console.status("reading every committed file"):
        found = [
            damage
            for stage in planned
            if stage.state is State.FRESH
            for damage in repair(store.sub(stage.path))
        ]
    console.print(f"{len(found)} damaged files")
    for damage in found:
        say(f"  {damage}")
