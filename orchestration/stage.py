"""Stages: the declaration of a stage, and the context that its ``run`` receives.

A stage's output lies at ``<workdir>/<stage>/<fingerprint>/``; see :mod:`orchestration.fingerprint`.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from orchestration.dataset import Dataset
from orchestration.errors import StageError
from orchestration.fingerprint import identity_of, semantic
from orchestration.generations import commit_manifest
from orchestration.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    File,
    Manifest,
    Parent,
    Part,
    columns_of,
    file_of,
    manifest_sha256,
)
from orchestration.params import StageParams
from orchestration.recipe import SliceParams
from orchestration.reporting.attempts import error_words
from orchestration.reporting.progress import StageProgress
from orchestration.reporting.run_log import RunLog
from orchestration.reporting.usage import Expected, Workers, peak_memory
from orchestration.resources import Resources
from orchestration.slices import Process, Quarantine, Slice
from orchestration.storage import remote_files
from orchestration.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

P = TypeVar("P", bound=StageParams)
R = TypeVar("R")


@dataclass(frozen=True)
class Stage:
    """One node of a workflow."""

    name: str
    run: "Callable[[Context], None]"
    params: StageParams
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Names of the input stages by role; :func:`feeding` makes them. The order in a role counts."
    seed: int | None = None
    "The recipe's seed, for a stage that draws random numbers; part of the fingerprint."
    version: int = 1
    "Version of the code; raise it when a change of the code changes the output."
    requires: Callable[[], str | None] = lambda: None
    "Returns what the stage needs and does not find, or None; called before anything runs."
    retry: "Callable[[Context, Sequence[str]], None] | None" = None
    "Processes rejected rows of the committed output again; see ``orchestration.retries``."
    expects: Callable[[], Expected] = Expected
    "Returns the expected size of the output; called for a plan when there is none yet."
    resources: Resources = field(default_factory=Resources)
    "What must be free for the stage to start."
    workers: Callable[[Mapping[str, Expected]], Workers | None] = lambda inputs: None
    "Returns the workers and their memory, given the size of each input stage's output by name."

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input stages, each once."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))

    def identity(self, input_fingerprints: Mapping[str, str]) -> dict[str, Any]:
        """Return everything that the fingerprint is made of; see :func:`identity_of`."""
        return identity_of(
            name=self.name,
            version=self.version,
            params=self.params,
            seed=self.seed,
            inputs=self.inputs,
            input_fingerprints=input_fingerprints,
        )


def feeding(**roles: Stage | Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """Return :attr:`Stage.inputs` for the stages that feed each role."""
    return {
        role: (stages.name,) if isinstance(stages, Stage) else tuple(s.name for s in stages)
        for role, stages in roles.items()
    }


@dataclass
class Context:
    """Everything that a stage's ``run`` uses: inputs, output folder, ways to work and to commit."""

    stage: Stage
    fingerprint: str
    folder: Store
    input_folders: Mapping[str, Store]
    "Output folder of each input stage by name."
    progress: StageProgress
    log: RunLog
    slices: SliceParams = field(default_factory=SliceParams)
    before_commit: Callable[[], None] = lambda: None
    "Raises if the output must not be committed: the lock is lost, or a file has changed."
    stopping: threading.Event = field(default_factory=threading.Event)
    "Set when the workflow is interrupted; no further slice is started."
    graceful: set[str] = field(default_factory=set)
    "Names of the stages that end by themselves soon after ``stopping`` is set."
    memory: int = 0
    "Largest peak memory of a worker so far, in bytes."
    manifest_name: str = MANIFEST
    "Name of the manifest that :meth:`commit` writes; a repair uses another until it is complete."
    _parts: dict[str, Part] = field(default_factory=dict)
    "Parts by slice id, for the slices that this run has mapped over."

    @property
    def seed(self) -> int:
        """The stage's seed; the stage must have been declared with one."""
        assert self.stage.seed is not None, f"{self.stage.name}: declare the stage with seed=..."
        return self.stage.seed

    def inputs(self, role: str) -> list[Dataset]:
        """Return the input datasets of a role, in their declared order."""
        return [Dataset.open(self.input_folders[name]) for name in self.stage.inputs[role]]

    def input(self, role: str) -> Dataset:
        """Return the input dataset of a role that has exactly one."""
        (dataset,) = self.inputs(role)
        return dataset

    def map_slices(
        self,
        slices: Sequence[Slice],
        process: Process,
        *,
        row_group_rows: int = 1024,
        num_cpus: float = 1,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Run ``process`` as a Ray task on each slice that has no committed part yet.

        Raises:
            StageError: slices failed, or ended their worker and there is no ``quarantine``.
        """
        self._run(slices, lambda: process, row_group_rows, num_cpus, 0, 0, quarantine)

    def map_slices_with_actors(
        self,
        slices: Sequence[Slice],
        factory: Callable[[], Process],
        *,
        num_actors: int,
        row_group_rows: int = 1024,
        num_cpus: float = 1,
        num_gpus: float = 0,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Run slices as :meth:`map_slices` does, on actors that each call ``factory`` once.

        Use it for a process that holds heavy objects: an actor lives as long as the stage runs.
        """
        self._run(slices, factory, row_group_rows, num_cpus, num_gpus, num_actors, quarantine)

    def _run(
        self,
        slices: Sequence[Slice],
        factory: Callable[[], Process],
        row_group_rows: int,
        num_cpus: float,
        num_gpus: float,
        num_actors: int,
        quarantine: Quarantine | None,
    ) -> None:
        from orchestration.slice_runner import run_slices  # imports Ray, which a plan never needs

        parts, memory = run_slices(
            self.folder,
            slices,
            factory,
            self.progress,
            row_group_rows=row_group_rows,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            num_actors=num_actors,
            retries=self.slices,
            stopping=self.stopping,
            quarantine=quarantine,
        )
        self._parts |= parts
        self.memory = max(self.memory, memory)

    def run_task(
        self, function: Callable[..., R], *args: Any, num_cpus: float = 1, num_gpus: float = 0
    ) -> R:
        """Run a function as one Ray task and return its result.

        Raises:
            StageError: the function failed, or ended its worker.
        """
        import ray

        def task() -> tuple[R, int]:
            return function(*args), peak_memory()

        remote = ray.remote(task).options(num_cpus=num_cpus, num_gpus=num_gpus)
        try:
            result, memory = ray.get(remote.remote())
        except ray.exceptions.RayError as error:
            words = error_words(getattr(error, "cause", error))
            raise StageError(f"{self.stage.name}: {words}") from error
        self.memory = max(self.memory, memory)
        return cast(R, result)

    def local_files(self, params: P) -> P:
        """Return ``params`` with each URI of an external file replaced by a local copy's path.

        The copies are kept until the stage commits. Workers reach the same copies through
        :func:`orchestration.storage.remote_files.with_local_files`.

        Raises:
            StageError: a file cannot be read, or has changed since the workflow was planned.
        """
        if versions := remote_files.versions_of(params):
            self.run_task(remote_files.copy_files, versions, self.folder)
        return remote_files.with_local_files(params, self.folder)

    def parts_of(self, slices: Sequence[Slice]) -> list[Part]:
        """Return the committed parts of slices that this run has mapped over."""
        return [self._parts[slice_.id] for slice_ in slices]

    def read_parts(
        self, slices: Sequence[Slice], table: str = "data", columns: list[str] | None = None
    ) -> "pa.Table":
        """Return what these slices have written, before the stage is committed."""
        from orchestration.slice_commit import read_tables  # imports pyarrow

        paths = [self._parts[slice_.id].tables[table].path for slice_ in slices]
        return read_tables(self.folder, paths, columns)

    def commit(
        self,
        slices: Sequence[Slice] = (),
        files: Sequence[str | File] = (),
        numbers: Mapping[str, float] | None = None,
        schemas: "Mapping[str, pa.Schema] | None" = None,
    ) -> None:
        """Write the manifest, which makes the output complete and readable.

        Args:
            slices: slices whose parts belong to the output.
            files: further files of the output, as paths in its folder or with known digests.
            numbers: results by name.
            schemas: tables that the output has even if there is no slice to write them.

        Raises:
            LockError: another driver may have taken the workdir; nothing was committed.
            StageError: a file that the parameters name has changed; nothing was committed.
        """
        parts = self.parts_of(slices)
        if schemas and not parts:
            from orchestration.empty_tables import commit_empty  # imports Ray

            parts = [commit_empty(self.folder, schemas)]
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            stage=self.stage.name,
            fingerprint=self.fingerprint,
            params=semantic(self.stage.params),
            parents={role: list(self._parents(names)) for role, names in self.stage.inputs.items()},
            parts=parts,
            columns=self._columns(parts),
            files=sorted(map(self._file, files), key=lambda file: file.path),
            rounds=[],
            numbers=dict(numbers or {}),
        )
        self.before_commit()
        commit_manifest(self.folder, manifest.to_bytes(), self.manifest_name)
        if remote_files.versions_of(self.stage.params):
            remote_files.remove_copies(self.folder)

    def _columns(self, parts: Sequence[Part]) -> dict[str, list[str]]:
        """Return the columns of each table, which are those of its first part."""
        import pyarrow.parquet as pq

        last_to_first = reversed(parts)
        first = {name: table.path for part in last_to_first for name, table in part.tables.items()}
        return {
            name: columns_of(pq.read_schema(self.folder.open(path))) for name, path in first.items()
        }

    def _parents(self, names: Sequence[str]) -> Iterator[Parent]:
        for name in names:
            folder = self.input_folders[name]
            digest = manifest_sha256(folder)
            yield Parent(stage=name, fingerprint=folder.name, manifest_sha256=digest)

    def _file(self, file: str | File) -> File:
        return file if isinstance(file, File) else file_of(self.folder, file)
