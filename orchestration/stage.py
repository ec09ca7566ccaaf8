"""Stages: what a stage is, and what its ``run`` is given.

A stage's *fingerprint* is a hash of its name, its code version, its semantic parameters and the
fingerprints of its inputs. Its output lies at ``<workdir>/<stage>/<fingerprint>/``.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.dataset import Dataset
from orchestration.errors import StageError
from orchestration.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    File,
    Manifest,
    Parent,
    Part,
    canonical_json,
    columns_of,
    manifest_sha256,
)
from orchestration.params import StageParams, semantic
from orchestration.recipe import SliceParams
from orchestration.reporting.progress import StageProgress
from orchestration.reporting.tracking import RunLog
from orchestration.reporting.usage import Expected, peak_memory
from orchestration.slices import Process, Slice
from orchestration.storage import remote_files
from orchestration.storage.store import Store

P = TypeVar("P", bound=StageParams)
R = TypeVar("R")


@dataclass(frozen=True)
class Stage:
    """One node of a workflow."""

    name: str
    run: "Callable[[Context], None]"
    params: StageParams
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Names of the stages that feed it, by role; the order within a role has a meaning."
    seed: int | None = None
    "Of the recipe, for a stage that draws random numbers; part of the fingerprint."
    version: int = 1
    "Raise it when a change of the code changes the output."
    requires: Callable[[], str | None] = lambda: None
    "Says what is lacking to run the stage, or None; asked before anything runs."
    retry: "Callable[[Context, Sequence[str]], None] | None" = None
    "Processes rejected rows of the committed output again; see ``orchestration.retries``."
    expects: Callable[[], Expected] = Expected
    "Says what the stage will give, for plans; asked when it is not there yet."

    @property
    def input_names(self) -> tuple[str, ...]:
        """The stages that feed it, each once."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))

    def identity(self, input_fingerprints: Mapping[str, str]) -> dict[str, Any]:
        """Return what the fingerprint is made of."""
        return {
            "name": self.name,
            "version": self.version,
            "params": semantic(self.params) | ({} if self.seed is None else {"seed": self.seed}),
            "inputs": {
                role: [[name, input_fingerprints[name]] for name in names]
                for role, names in self.inputs.items()
            },
        }


def feeding(**roles: Stage | Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """Return the names of input stages by role, as :attr:`Stage.inputs` takes them."""
    return {
        role: (stages.name,) if isinstance(stages, Stage) else tuple(s.name for s in stages)
        for role, stages in roles.items()
    }


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits for a stage's identity."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


@dataclass
class Context:
    """What a stage's ``run`` is given: its inputs, its folder, and ways to commit."""

    stage: Stage
    fingerprint: str
    folder: Store
    input_folders: Mapping[str, Store]
    "Folder of each input stage by name."
    progress: StageProgress
    log: RunLog
    slices: SliceParams = field(default_factory=SliceParams)
    before_commit: Callable[[], None] = lambda: None
    "Raises where the output must not be committed: the workdir's lock is lost."
    stopping: threading.Event = field(default_factory=threading.Event)
    "Set when the person who runs the workflow wants it to end."
    memory: int = 0
    "Bytes of the largest worker so far."
    manifest_name: str = MANIFEST
    "Of the file that a commit writes; another one while an output is not whole by it."
    _parts: dict[str, Part] = field(default_factory=dict)
    "Committed in this run or before, of the slices that it went through."

    @property
    def seed(self) -> int:
        """The stage's seed."""
        assert self.stage.seed is not None, f"{self.stage.name} was given no seed"
        return self.stage.seed

    def inputs(self, role: str) -> list[Dataset]:
        """Return the datasets of a role, in order."""
        return [Dataset.open(self.input_folders[name]) for name in self.stage.inputs[role]]

    def input(self, role: str) -> Dataset:
        """Return the only dataset of a role."""
        (dataset,) = self.inputs(role)
        return dataset

    def map_slices(
        self,
        slices: Sequence[Slice],
        process: Process,
        *,
        row_group_rows: int = 1024,
        num_cpus: float = 1,
    ) -> None:
        """Run ``process`` on each slice whose part is not there yet.

        Raises:
            StageError: some slices failed; the others are kept.
        """
        self._run(slices, partial(_same, process), row_group_rows, num_cpus, 0, num_actors=0)

    def map_slices_with_actors(
        self,
        slices: Sequence[Slice],
        factory: Callable[[], Process],
        *,
        num_actors: int,
        row_group_rows: int = 1024,
        num_cpus: float = 1,
        num_gpus: float = 0,
    ) -> None:
        """As :meth:`map_slices`; ``factory`` makes the process once per actor.

        For processes with heavy objects: actors live as long as the stage runs.
        """
        self._run(slices, factory, row_group_rows, num_cpus, num_gpus, num_actors)

    def _run(
        self,
        slices: Sequence[Slice],
        factory: Callable[[], Process],
        row_group_rows: int,
        num_cpus: float,
        num_gpus: float,
        num_actors: int,
    ) -> None:
        from orchestration.slice_runner import run_slices  # Ray loads only when a stage runs

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
        )
        self._parts |= parts
        self.memory = max(self.memory, memory)

    def run_task(
        self, function: Callable[..., R], *args: Any, num_cpus: float = 1, num_gpus: float = 0
    ) -> R:
        """Run a function as one Ray task and return what it gives.

        Raises:
            StageError: the function failed.
        """
        import ray

        def task() -> tuple[R, int]:
            return function(*args), peak_memory()

        remote = ray.remote(task).options(num_cpus=num_cpus, num_gpus=num_gpus)
        try:
            result, memory = ray.get(remote.remote())
        except ray.exceptions.RayTaskError as error:
            raise StageError(f"{self.stage.name}: {error.cause}") from error
        self.memory = max(self.memory, memory)
        return cast(R, result)

    def local_files(self, params: P) -> P:
        """Return ``params`` with local copies of the files that they name by URI.

        They stay until the stage commits. Workers find the same copies with
        :func:`orchestration.storage.remote_files.with_local_files`.

        Raises:
            StageError: a file cannot be read, or has changed since the workflow was planned.
        """
        if versions := remote_files.versions_of(params):
            self.run_task(remote_files.copy_files, versions, self.folder)
        return remote_files.with_local_files(params, self.folder)

    def parts_of(self, slices: Sequence[Slice]) -> list[Part]:
        """Return the parts of slices that this run went through."""
        return [self._parts[piece.id] for piece in slices]

    def read_parts(self, slices: Sequence[Slice], table: str = "data") -> pa.Table:
        """Return the rows that these slices of this stage have written, before the commit."""
        paths = [self._parts[piece.id].tables[table].path for piece in slices]
        return pa.concat_tables([pq.read_table(self.folder.open(path)) for path in paths])

    def files_of(self, folder: Store) -> list[str]:
        """Return the files of a folder within the stage's own, as :meth:`commit` takes them."""
        within = folder.uri.removeprefix(f"{self.folder.uri}/")
        return [f"{within}/{path}" for path, _ in folder.walk()]

    def commit(
        self,
        slices: Sequence[Slice] = (),
        files: Sequence[str] = (),
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        """Write the manifest: from here on the output is whole.

        Args:
            slices: whose parts belong to the output.
            files: paths within the stage's folder.
            numbers: results by name.
        """
        parts = self.parts_of(slices)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            stage=self.stage.name,
            fingerprint=self.fingerprint,
            params=semantic(self.stage.params),
            parents={role: list(self._parents(names)) for role, names in self.stage.inputs.items()},
            parts=parts,
            columns=self._columns(parts),
            files=[self._file(path) for path in sorted(files)],
            rounds=[],
            numbers=dict(numbers or {}),
        )
        self.before_commit()
        self.folder.write_bytes(self.manifest_name, manifest.to_bytes())
        if remote_files.versions_of(self.stage.params):
            remote_files.remove_copies(self.folder)

    def _columns(self, parts: Sequence[Part]) -> dict[str, list[str]]:
        """Of each table; all parts come from one process, so the first speaks for them."""
        first: dict[str, str] = {}
        for part in parts:
            for name, table in part.tables.items():
                first.setdefault(name, table.path)
        return {
            name: columns_of(pq.read_schema(self.folder.open(path))) for name, path in first.items()
        }

    def _parents(self, names: Sequence[str]) -> Iterator[Parent]:
        for name in names:
            folder = self.input_folders[name]
            yield Parent(
                stage=name, fingerprint=folder.name, manifest_sha256=manifest_sha256(folder)
            )

    def _file(self, path: str) -> File:
        size, sha256 = self.folder.size_and_sha256(path)
        return File(path=path, bytes=size, sha256=sha256)


def _same(process: Process) -> Process:
    return process
