"""What a rehearsal at full row counts measures of a step, and the steps that are commands.

A command is measured without torch and Ray in its process, unless it loads them itself.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from measuring import resident_bytes

from orchestration.errors import RecipeError
from orchestration.storage.store import Store

RECIPE: Final = "rehearsal.yaml"


@dataclass(frozen=True)
class Options:
    """The options of the benchmark that its steps need."""

    folder: Path
    fraction: float
    cpus: int
    chars_per_document: int
    smoke: bool

    @property
    def workdir(self) -> Store:
        """The workdir of the workflow."""
        return Store(str(self.folder / "work"))


@dataclass(frozen=True)
class Measured:
    """What one step needed."""

    seconds: float
    driver: int
    "Peak resident memory of the step's own process in bytes."
    rows: int = 0
    bytes: int = 0
    "Bytes committed."
    worker: int = 0
    "Peak memory of a worker in bytes; 0 where no worker ran."
    predicted: int | None = None
    "The plan's prediction of ``worker``, made just before the step; None if it makes none."
    predicted_full: int | None = None
    "The same for the full number of rows and the recipe's own sample of lines."


def command(name: str, options: Options) -> Measured:
    """Run a command of ``beit3`` on the workdir."""
    from pipelines.cli import app

    recipe = [str(options.folder / RECIPE)] if name == "plan" else []
    began = time.perf_counter()
    with suppress(RecipeError):  # a plan ends so where the recipe's hardware is not here
        app([name, *recipe, "--workdir", options.workdir.uri], standalone_mode=False)
    return Measured(time.perf_counter() - began, resident_bytes("VmHWM"))


COMMANDS: Final[Mapping[str, Callable[[Options], Measured]]] = {
    "plan": partial(command, "plan"),
    "plan of training": partial(command, "plan"),
    "status": partial(command, "status"),
}
"The commands by the name of their step."
