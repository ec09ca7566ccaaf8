"""Curate: stored images → the rows and captions that are trained on.

In: the images of every source, and those of the evaluation sets. Out: ``pairs`` and ``images``
(sample_id, number of the input dataset, row in it, captions), ``rejects``, and
``caption_rejects``. An image for which several reasons hold is dropped for the first of these:

- ``evaluation_image``: the same as an image of an evaluation set, or a near duplicate of one;
- ``placeholder``: one original in several rows with different captions, as a site shows where an
  image was removed;
- ``caption_length``: no caption has a fitting number of words;
- ``small_original``, ``aspect``: the original's size;
- ``duplicate``: an equal original was kept before;
- ``near_duplicate``: an image that looks the same was kept before.

The work is done in rounds of slices, each of which is committed, so a stage that was killed goes on
with the slices that are missing. Rounds hand sorted tables to each other (``exchange.py``). Neither
the number of partitions nor that of workers changes a byte of the output.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from orchestration import Context, Slice, Stage, feeding
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.slices import Process
from pipelines.curate.decisions import SCHEMAS, decide
from pipelines.curate.edges import (
    find_candidates,
    find_edges,
    find_hash_pairs,
    hash_slices,
    pair_slices,
)
from pipelines.curate.equal_originals import judge_equal
from pipelines.curate.exchange import ROW_GROUP_ROWS, Exchange, remove_rounds
from pipelines.curate.features import read_features
from pipelines.curate.large_drops import report_large_drops
from pipelines.curate.layout import Layout
from pipelines.curate.leaders import find_leaders
from pipelines.curate.merging import move_captions
from pipelines.curate.resolve import NearTables, resolve
from pipelines.curate.rules import Params

_ROW_GROUP_ROWS: Final = 65_536
_COMPARED_BYTES: Final = 1600
"Memory of an image that a task compares: its look, in Arrow, sorted, and as NumPy."
_RESOLVED_BYTES: Final = 10
"Memory of any image in the one task that resolves all verdicts."


def stage(
    params: Params,
    *,
    evaluation_sets: Sequence[Stage],
    pairs: Sequence[Stage],
    images: Sequence[Stage],
    held_out: Sequence[Stage],
) -> Stage:
    """Declare the stage; the order of the datasets decides which of two duplicates is kept.

    Args:
        params: the recipe's section.
        evaluation_sets: stages that give images to leave out.
        pairs: stages that give images with captions.
        images: stages that give images without captions.
        held_out: those of ``pairs`` that are held out from training as a whole.
    """
    return Stage(
        "curate",
        lambda context: run(context, params),
        params,
        feeding(evaluation_sets=evaluation_sets, pairs=pairs, images=images, held_out=held_out),
        version=5,
        workers=partial(workers, params),
    )


def workers(params: Params, inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: the images that a task compares, and a little of all."""
    rows = sum(found.rows or 0 for found in inputs.values())
    compared = min(params.partition_rows, rows or params.partition_rows)
    return Workers(WORKER_BYTES + compared * _COMPARED_BYTES + rows * _RESOLVED_BYTES)


def run(context: Context, params: Params) -> None:
    """Compare all images with each other, then decide on each slice."""
    roles = context.stage.inputs
    held_out = frozenset(i for i, name in enumerate(roles["pairs"]) if name in roles["held_out"])
    layout = Layout(
        context.inputs("evaluation_sets"),
        context.inputs("pairs"),
        context.inputs("images"),
        held_out,
    )
    rounds = _Rounds(context, params, layout)
    sources, size = layout.first_source_row, params.slice_rows
    verdicts = moved = Exchange.nothing(context.folder)
    if layout.num_rows > sources:
        verdicts = rounds.compare()
        new_slices = layout.slices("captions-", sources, layout.first_image_row, size)
        rounds.run(new_slices, partial(move_captions, params, layout, verdicts))
        moved = Exchange.of(context, new_slices, "moved", "kept")
    slices = layout.slices("", sources, layout.num_rows, size)
    process = partial(decide, params, layout, verdicts, moved)
    context.map_slices(slices, process, row_group_rows=_ROW_GROUP_ROWS)
    context.commit(slices, numbers=rounds.numbers(), schemas=SCHEMAS)
    remove_rounds(context.folder)
    report_large_drops(context)


class _Rounds:
    """The rounds before the last; their tables lie in the stage's folder until it is complete."""

    def __init__(self, context: Context, params: Params, layout: Layout) -> None:
        self.context, self.params, self.layout = context, params, layout
        self.slices: list[Slice] = []

    def compare(self) -> Exchange:
        """Find equal originals and near duplicates; return all verdicts that depend on others."""
        context, layout, params = self.context, self.layout, self.params
        new_slices = layout.slices("features-", 0, layout.num_rows, params.slice_rows)
        self.run(new_slices, partial(read_features, params, layout))
        digests = Exchange.of(context, new_slices, "digests", "digest")
        looks = Exchange.of(context, new_slices, "looks", "key")

        sources = layout.first_source_row
        new_slices = self._partitions("equal", digests)
        self.run(
            new_slices, partial(judge_equal, digests, sources, params.min_placeholder_captions)
        )
        equal = Exchange.of(context, new_slices, "equal", "global_row")

        near = None if params.max_hash_distance is None else self._near(looks, equal)
        new_slices = [Slice("resolve", {})]
        self.run(new_slices, partial(resolve, equal, near, layout.num_rows, sources))
        return Exchange.of(context, new_slices, "verdicts", "global_row")

    def _near(self, looks: Exchange, equal: Exchange) -> NearTables:
        context, layout, params = self.context, self.layout, self.params
        tolerance, sources = params.tolerance(), layout.first_source_row
        by_hash = self._partitions("leaders", looks)
        self.run(by_hash, partial(find_leaders, looks, equal, layout.num_rows, sources, tolerance))
        leaders = Exchange.of(context, by_hash, "leaders", "key")
        hashes = Exchange.of(context, by_hash, "hashes", "key")

        new_slices = hash_slices(hashes.num_rows, tolerance.hash_bits, params.partition_rows)
        self.run(new_slices, partial(find_hash_pairs, hashes, tolerance.hash_bits))
        hash_pairs = Exchange.of(context, new_slices, "hash_pairs", "key")

        new_slices = self._partitions("candidates", leaders) if hash_pairs.num_rows else []
        self.run(new_slices, partial(find_candidates, leaders, hash_pairs))
        candidates = Exchange.of(context, new_slices, "candidates", "key")

        by_pair = pair_slices(hash_pairs.num_rows, params.partition_rows)
        self.run(by_pair, partial(find_edges, candidates, hash_pairs, sources, tolerance))
        return NearTables(
            edges=Exchange.of(context, by_pair, "edges", "later"),
            followers=Exchange.of(context, by_hash, "followers", "global_row"),
            refuted=tuple(
                Exchange.of(context, some, "refuted", "global_row") for some in (by_hash, by_pair)
            ),
        )

    def run(self, slices: list[Slice], process: Process) -> None:
        """Run one round."""
        if slices:
            self.context.map_slices(slices, process, row_group_rows=ROW_GROUP_ROWS)
        self.slices += slices

    def _partitions(self, name: str, table: Exchange) -> list[Slice]:
        """Return slices that each take a range of the table's keys."""
        total = -(-table.num_rows // self.params.partition_rows)
        return [
            Slice(f"{name}-{total}-{number:04d}", {"number": number, "total": total})
            for number in range(total)
        ]

    def numbers(self) -> dict[str, float]:
        """Return the sum of each counter over the rounds."""
        numbers: dict[str, float] = {}
        for part in self.context.parts_of(self.slices):
            for name, count in part.counters.items():
                numbers[name] = numbers.get(name, 0) + count
        return numbers
