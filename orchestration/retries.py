"""Rounds of retries: process the rejected rows of a committed stage again.

A round covers the parts that hold rejects with the requested reasons. For each such part, a new
part ``<slice>-r<round>`` takes over all of its rejected rows: rows that succeed now become data,
the others are rejects again. The old part keeps its data and loses its rejects, so every row is
still in exactly one table of one part. The manifest is replaced last, in one write; until then the
old manifest is valid. The new manifest is a new generation of the output, which makes the stages
that read it stale (:mod:`orchestration.generations`).

A repair removes damaged parts and the manifest of an output. The next run then repeats the first
run and each round in order: committed parts are reused, the missing ones are processed.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from orchestration.errors import RecipeError
from orchestration.generations import commit_manifest
from orchestration.manifest import (
    MANIFEST,
    PARTS,
    REJECTS,
    Manifest,
    Part,
    part_path,
    read_manifest,
)
from orchestration.slices import Process, Slice
from orchestration.stage import Context
from orchestration.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

INTENT: Final = "retry.json"
ROUNDS: Final = "rounds.json"
"File of an output under repair that lists the rounds to repeat."
_PENDING: Final = "manifest.pending.json"
_ROUND: Final = "-r"


def retry(
    context: Context,
    slices: Sequence[Slice],
    factory: Callable[[], Process],
    patterns: Sequence[str],
    *,
    num_actors: int,
    num_cpus: float,
    row_group_rows: int,
) -> None:
    """Run one round of retries over a committed output and commit it.

    Args:
        context: context of the stage.
        slices: the slices of the stage's first run.
        factory: makes a process that reads its rows with :func:`rejected_rows`.
        patterns: rejection reasons to retry; ``x`` stands for a digit, as in ``http_5xx``.
        num_actors: see :meth:`Context.map_slices_with_actors`.
        num_cpus: see :meth:`Context.map_slices_with_actors`.
        row_group_rows: see :meth:`Context.map_slices_with_actors`.

    Raises:
        RecipeError: no reject has such a reason, or a round for other reasons is unfinished.
        StageError: some slices failed; the parts of the others are kept.
    """
    before = read_manifest(context.folder, context.manifest_name)
    reasons = [reason for reason in before.rejects if matches(reason, patterns)]
    if not reasons and context.manifest_name == MANIFEST:
        found = ", ".join(f"{reason} {n}" for reason, n in sorted(before.rejects.items()))
        raise RecipeError(
            f"{before.stage} has no rejects for {', '.join(patterns)}; it has {found}"
        )
    number = len(before.rounds) + 1
    _declare(context.folder, number, patterns)
    payloads = {slice_.id: slice_.payload for slice_ in slices}
    again = {
        part.slice: Slice(
            f"{_first(part.slice)}{_ROUND}{number}",
            {
                **payloads[_first(part.slice)],
                "rejects": part.tables[REJECTS].path,
                "reasons": sorted(reasons),
            },
            sum(part.rejects.values()),
        )
        for part in before.parts
        if any(reason in part.rejects for reason in reasons)
    }
    new_slices = list(again.values())
    context.map_slices_with_actors(
        new_slices, factory, num_actors=num_actors, num_cpus=num_cpus, row_group_rows=row_group_rows
    )
    new = dict(zip(again, context.parts_of(new_slices), strict=True))
    context.before_commit()
    manifest = merged(before, new, patterns)
    commit_manifest(context.folder, manifest.to_bytes(), context.manifest_name)


def run_with_rounds(context: Context) -> None:
    """Run a stage, then repeat the rounds of retries that its output had before a repair."""
    folder, stage = context.folder, context.stage
    if stage.retry is None or not folder.exists(ROUNDS):
        stage.run(context)
        return
    context.manifest_name = _PENDING
    stage.run(context)
    for patterns in folder.read_json_list(ROUNDS, list):
        stage.retry(context, patterns)
    commit_manifest(folder, folder.read(_PENDING))
    folder.remove(ROUNDS)
    folder.remove(_PENDING)


def forget_slice(folder: Store, slice_id: str) -> None:
    """Remove a slice's part and the parts of later rounds, which were made from its rejects."""
    first, _, number = slice_id.partition(_ROUND)
    folder.remove(part_path(slice_id))
    for name in folder.names(PARTS, ".json"):
        other, _, later = name.removesuffix(".json").partition(_ROUND)
        if other == first and later and int(later) > int(number or 0):
            folder.remove(f"{PARTS}/{name}")


def rejected_rows(folder: Store, slice_: Slice) -> "tuple[pa.Table, pa.Table] | None":
    """Return the rejected rows of a slice as (rows to process again, rows to keep as rejects).

    Returns None for a slice of the first run.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if "rejects" not in slice_.payload:
        return None
    rejects = pq.read_table(folder.open(slice_.payload["rejects"]))
    wanted = pc.is_in(rejects["reason"], pa.array(slice_.payload["reasons"], pa.string()))
    return rejects.filter(wanted), rejects.filter(pc.invert(wanted))


def matches(reason: str, patterns: Sequence[str]) -> bool:
    """Return whether a rejection reason matches one of the patterns."""
    return any(re.fullmatch(_regex(pattern), reason) for pattern in patterns)


def _regex(pattern: str) -> str:
    status = pattern.removeprefix("http_")
    return re.escape(pattern) if status == pattern else "http_" + status.replace("x", r"\d")


def merged(before: Manifest, new: dict[str, Part], patterns: Sequence[str]) -> Manifest:
    """Return the manifest after a round.

    ``new`` holds the parts of the round by the id of the slice whose rejects they take over.
    """
    parts: list[Part] = []
    for part in before.parts:
        if part.slice not in new:
            parts.append(part)
            continue
        tables = {name: table for name, table in part.tables.items() if name != REJECTS}
        kept = part.num_rows_in - sum(part.rejects.values())
        parts.append(part.model_copy(update={"tables": tables, "rejects": {}, "num_rows_in": kept}))
        parts.append(new[part.slice])
    rounds = [*before.rounds, sorted(patterns)]
    return before.model_copy(update={"parts": parts, "rounds": rounds})


def _declare(folder: Store, number: int, patterns: Sequence[str]) -> None:
    """Record the round before it starts: a killed round must be finished with the same reasons."""
    intent = {"round": number, "reasons": sorted(patterns)}
    if folder.exists(INTENT):
        begun = folder.read_json(INTENT, {"round": int, "reasons": list})
        if begun["round"] == number and begun != intent:
            raise RecipeError(
                f"{folder.uri}: a retry of {','.join(begun['reasons'])} was started and not "
                f"finished; finish it first, with --retry {','.join(begun['reasons'])}"
            )
    folder.write_bytes(INTENT, json.dumps(intent).encode())


def _first(slice_id: str) -> str:
    return slice_id.partition(_ROUND)[0]
