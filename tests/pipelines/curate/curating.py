"""Curation of a drawn corpus in a process of its own, which a test kills.

python -m tests.pipelines.curate.curating WORKDIR
"""

import sys
from functools import partial

from rich.console import Console

from orchestration import Context, Output, Recipe, Slice, Stage, Workflow
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams
from orchestration.storage.store import Store
from pipelines.curate.curate import Params, stage
from tests.pipelines.curate.test_against_brute_force import ROLES, SOURCES, as_table, corpus

NUM_ROWS = 600
PARAMS = Params(slice_rows=60, partition_rows=60, max_aspect_ratio=8)


def import_rows(source: str, context: Context) -> None:
    slices = [Slice("000000", {})]
    context.map_slices(slices, partial(import_slice, source))
    context.commit(slices)


def import_slice(source: str, slice_: Slice) -> Output:
    mine = [row for row in corpus(1, NUM_ROWS) if row.name.startswith(source)]
    return Output(len(mine), {"data": as_table(mine)})


def workflow() -> Workflow:
    stages = {
        source: Stage(f"import/{source}", partial(import_rows, source), StageParams())
        for source in SOURCES
    }
    roles = {
        role: [each for source, each in stages.items() if source[1] == role[0]] for role in ROLES
    }
    recipe = Recipe(name="curating", cluster=ClusterParams(num_cpus=2, object_store_mb=128))
    return Workflow(recipe, (*stages.values(), stage(PARAMS, **roles, held_out=[])))


if __name__ == "__main__":
    workflow().run(Store(sys.argv[1]), Console(file=sys.stdout))
