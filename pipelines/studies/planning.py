"""The plan of a study: its runs, which outputs they share, and what is left to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from orchestration.plan import PlannedStage, State
from orchestration.reporting.estimates import Estimate, estimate
from orchestration.reporting.results import human_seconds
from pipelines.studies.opening import StudyRun


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study and the state of its stages."""

    run: StudyRun
    stages: Sequence[PlannedStage]
    estimates: dict[str, Estimate]

    def todo(self) -> list[PlannedStage]:
        """Return the stages that are not complete."""
        return [p for p in self.stages if p.state is not State.FRESH]


@dataclass(frozen=True)
class Cost:
    """Time of outputs that are to be made."""

    seconds: float
    "Sum over the outputs whose time is known from earlier ones."
    num_unknown: int
    "Number of outputs whose time is not."

    @property
    def words(self) -> str:
        """The time in words."""
        unknown = f"{self.num_unknown} outputs of unknown time" if self.num_unknown else ""
        known = f"≈ {human_seconds(self.seconds)}" if self.seconds or not unknown else ""
        return " and ".join(filter(None, [known, unknown]))


def plan_runs(runs: Sequence[StudyRun]) -> list[PlannedRun]:
    """Return the runs of a study with the state of their stages.

    Raises:
        RecipeError: an external file is missing, or a stage of a run cannot run.
    """
    planned = []
    for run in runs:
        stages = run.plan()
        run.opened.workflow.check(stages)
        planned.append(PlannedRun(run, stages, estimate(stages, run.opened.store)))
    return planned


def runs_table(planned: Sequence[PlannedRun]) -> Table:
    """Return a table of the runs: what each still has to do, without what an earlier one does."""
    table = Table("", "run", "seed", "to do", "time", title="runs", title_justify="left")
    seen: set[tuple[str, str]] = set()
    for number, each in enumerate(planned, start=1):
        own = [p for p in each.todo() if (p.stage.name, p.fingerprint) not in seen]
        seen |= {(p.stage.name, p.fingerprint) for p in own}
        words = ", ".join(p.stage.name for p in own) if own else "nothing: complete"
        cost = cost_of([(p, each.estimates[p.stage.name]) for p in own]).words if own else ""
        table.add_row(str(number), escape(each.run.variant), str(each.run.seed), words, cost)
    return table


def stages_table(planned: Sequence[PlannedRun]) -> Table:
    """Return a table of the stages: how many outputs the runs need of each, and how many exist."""
    table = Table("stage", title="outputs of all runs", title_justify="left")
    for column in ("outputs", "runs", "complete"):
        table.add_column(column, justify="right")
    table.add_column("shared by")
    for name in dict.fromkeys(p.stage.name for each in planned for p in each.stages):
        all_of = [p for each in planned for p in each.stages if p.stage.name == name]
        outputs = {p.fingerprint: p for p in all_of}
        complete = sum(p.state is State.FRESH for p in outputs.values())
        shared = "all runs" if len(outputs) == 1 else "" if len(outputs) == len(all_of) else "some"
        table.add_row(name, str(len(outputs)), str(len(all_of)), str(complete), shared)
    return table


def total_cost(planned: Sequence[PlannedRun]) -> Cost:
    """Return the time of all outputs that are to be made, each counted once."""
    return cost_of([(p, each.estimates[p.stage.name]) for each in planned for p in each.todo()])


def cost_of(outputs: Sequence[tuple[PlannedStage, Estimate]]) -> Cost:
    """Return the time of some outputs, each counted once."""
    distinct = {(p.stage.name, p.fingerprint): found for p, found in outputs}
    seconds = [found.seconds for found in distinct.values()]
    known = [value for value in seconds if value is not None]
    return Cost(sum(known), len(seconds) - len(known))
