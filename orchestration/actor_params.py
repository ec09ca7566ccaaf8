"""Parameters of stages whose slices are processed by actors."""

from typing import Annotated

from pydantic import Field

from orchestration.params import OPERATIONAL, GpusPerActor, StageParams
from orchestration.resources import Resources


class ActorParams(StageParams):
    """How many actors process the slices of a stage, and what each of them reserves."""

    num_actors: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of actors that process slices in parallel."
    cpus_per_actor: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of CPU cores and threads per actor."
    gpus_per_actor: GpusPerActor = 0

    @property
    def resources(self) -> Resources:
        """What an actor reserves."""
        return Resources(self.cpus_per_actor, self.gpus_per_actor)
