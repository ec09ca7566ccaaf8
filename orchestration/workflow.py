"""Workflows: a graph of stages that is planned and run over a workdir."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from orchestration.branches import Branch
from orchestration.cluster import check_ray_can_start
from orchestration.errors import RecipeError
from orchestration.going_back import went_back
from orchestration.manifest import Manifest
from orchestration.plan import Impossible, PlannedStage, State, complete_manifests, make_plan
from orchestration.recipe import Recipe
from orchestration.reporting.run_log import RunLog
from orchestration.resources import missing_here
from orchestration.stage import Stage
from orchestration.storage.store import Store
from orchestration.training import TrainingParams


@dataclass(frozen=True)
class Workflow:
    """A recipe and its stages, each listed after its inputs."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    impossible: Impossible = lambda complete: ()
    "Returns why the workflow cannot be completed, given the manifests of complete stages by name."

    def __post_init__(self) -> None:
        known: set[str] = set()
        for stage in self.stages:
            for name in stage.input_names:
                if name not in known:
                    raise ValueError(f"{stage.name}: its input {name} is not an earlier stage")
            if stage.name in known:
                raise ValueError(f"two stages are named {stage.name}")
            known.add(stage.name)

    def plan(self, workdir: Store) -> list[PlannedStage]:
        """Return the state of every stage.

        Raises:
            RecipeError: an external file is missing.
        """
        return make_plan(self.stages, workdir)

    def run(
        self,
        workdir: Store,
        console: Console,
        *,
        only: str | None = None,
        until: str | None = None,
        jobs: int = 1,
        verify: bool = False,
        retry: Sequence[str] = (),
        back: Branch | None = None,
        new_training: bool = False,
        within: RunLog | None = None,
    ) -> list[PlannedStage]:
        """Run the stages that are not fresh; return the plan that was carried out.

        Args:
            workdir: folder of all outputs.
            console: output for the user.
            only: run this stage alone; its inputs must be fresh.
            until: run this stage and the stages that it depends on.
            jobs: largest number of stages that run at the same time.
            verify: check the digest of every input file before a stage reads it.
            retry: rejection reasons; rows of ``only`` with these reasons are processed again.
            back: an earlier step from which the training among these stages continues.
            new_training: start a training although one with other settings is unfinished.
            within: MLflow run of which the workflow's run becomes a child.

        Raises:
            RecipeError: a requirement of a stage or of Ray is not met; nothing was written.
            LockError: another driver works on the workdir.
            StageError: a stage failed; its committed parts are kept.
        """
        plan = self.plan(workdir)
        todo = [p for p in self.select(plan, only, until) if p.state is not State.FRESH]
        if retry:
            todo = [self._retried(plan, only, retry)]
        if back is not None:
            todo = self._with_training_back(plan, todo, only, workdir, back)
        if not new_training:
            _refuse_new_training(todo)
        self.check(todo)
        if missing := self.missing_here(todo):
            raise RecipeError(
                "\n".join(["this machine is too small, nothing was started", *missing])
            )
        if todo:
            complete = complete_manifests(plan)
            if not only:
                self.refuse_impossible(complete)
            check_ray_can_start(self.recipe.cluster)
            from orchestration.runner import Runner  # imports Ray, which a plan never needs

            runner = Runner(
                self.recipe,
                workdir,
                console,
                plan,
                complete,
                jobs=jobs,
                verify=verify,
                impossible=self.impossible if not only else lambda complete: (),
                within=within,
            )
            if runner.run(todo) and only is None:
                console.print("inputs have different content than before: planning again")
                return self.run(
                    workdir,
                    console,
                    until=until,
                    jobs=jobs,
                    verify=verify,
                    new_training=new_training,
                    within=within,
                )
        return plan

    def _with_training_back(
        self,
        plan: Sequence[PlannedStage],
        todo: Sequence[PlannedStage],
        only: str | None,
        workdir: Store,
        back: Branch,
    ) -> list[PlannedStage]:
        """Return the stages to run, of which the one training goes back to an earlier step."""
        chosen = todo if only is None else [p for p in plan if p.stage.name == only]
        trainings = [p for p in chosen if isinstance(p.stage.params, TrainingParams)]
        if len(trainings) != 1:
            names = [p.stage.name for p in plan if isinstance(p.stage.params, TrainingParams)]
            raise RecipeError(
                f"--from-step: {len(trainings) or 'no'} trainings are to be run; add --only with "
                f"one of: {', '.join(names) or 'none, as the recipe has no training'}"
            )
        (training,) = trainings
        changed = went_back(training, workdir, back)
        others = [p for p in todo if p is not training]
        return others if changed is None else [*others, changed]

    def _retried(
        self, plan: Sequence[PlannedStage], name: str | None, reasons: Sequence[str]
    ) -> PlannedStage:
        """Return a planned stage whose run is a round of retries."""
        able = [p.stage.name for p in plan if p.stage.retry is not None]
        planned = next((p for p in plan if p.stage.name == name), None)
        if planned is None or planned.stage.retry is None:
            raise RecipeError(f"--retry needs --only with one of: {', '.join(able)}")
        if planned.state is not State.FRESH:
            raise RecipeError(
                f"{name} is {planned.state}: run it first, then retry its rejected rows"
            )
        again = planned.stage.retry
        return replace(
            planned, stage=replace(planned.stage, run=lambda context: again(context, reasons))
        )

    def check(self, planned: Sequence[PlannedStage]) -> None:
        """Check the requirements of the stages that are not fresh.

        Raises:
            RecipeError: requirements are not met; the message lists all of them.
        """
        unmet = [
            f"{p.stage.name}: {need}"
            for p in planned
            if p.state is not State.FRESH and (need := p.stage.requires())
        ]
        if unmet:
            raise RecipeError("\n".join(["some stages cannot run, nothing was started", *unmet]))

    def missing_here(self, planned: Sequence[PlannedStage]) -> list[str]:
        """Return what this machine lacks for the stages that are not fresh, one text for each.

        Nothing is said of a cluster that is joined.
        """
        return [
            f"{p.stage.name}: {words}"
            for p in planned
            if p.state is not State.FRESH
            and (words := missing_here(p.stage.resources, self.recipe.cluster))
        ]

    def refuse_impossible(self, complete: Mapping[str, Manifest]) -> None:
        """Check that the complete stages allow the workflow to be completed.

        Raises:
            RecipeError: they do not; the message names the keys to change.
        """
        if reasons := self.impossible(complete):
            raise RecipeError("\n".join(["the workflow cannot be completed", *reasons]))

    def select(
        self, plan: Sequence[PlannedStage], only: str | None, until: str | None
    ) -> list[PlannedStage]:
        """Return the planned stages that ``only`` or ``until`` selects.

        Raises:
            RecipeError: no stage has that name, an input of ``only`` is not fresh, or both names
                are given.
        """
        if only and until:
            raise RecipeError("--only and --until exclude each other; give one of them")
        by_name = {planned.stage.name: planned for planned in plan}
        for name in (only, until):
            if name is not None and name not in by_name:
                raise RecipeError(f"no stage is named {name!r}; stages: {', '.join(by_name)}")
        if only:
            unfit = [
                n for n in by_name[only].stage.input_names if by_name[n].state is not State.FRESH
            ]
            if unfit:
                raise RecipeError(
                    f"{only} needs {', '.join(unfit)}, which {'is' if len(unfit) == 1 else 'are'} "
                    f"not fresh; use --until {only}"
                )
            return [by_name[only]]
        if until:
            wanted = {until}
            for planned in reversed(plan):
                if planned.stage.name in wanted:
                    wanted |= set(planned.stage.input_names)
            return [planned for planned in plan if planned.stage.name in wanted]
        return list(plan)


def _refuse_new_training(todo: Sequence[PlannedStage]) -> None:
    """Refuse to start a training at its first step while another is unfinished.

    Raises:
        RecipeError: a changed setting or input would silently give up the steps that are done.
    """
    lines = [f"{p.stage.name}: {line}" for p in todo for line in p.unfinished]
    if lines:
        raise RecipeError(
            "\n".join(
                [
                    "a training would start at step 0 although one with other settings is "
                    "unfinished, nothing was started",
                    *lines,
                    "undo the change to continue that one, or add --new-training",
                ]
            )
        )
