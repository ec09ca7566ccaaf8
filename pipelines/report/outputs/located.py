"""What a path or URI in a workdir names: the workdir, an output, a part of one, or a checkpoint."""

import os
from dataclasses import dataclass
from typing import Final

from orchestration.checkpoint_files import is_checkpoint_name
from orchestration.errors import RecipeError
from orchestration.manifest import MANIFEST
from orchestration.params import is_uri
from orchestration.plan import IDENTITY, WORKFLOWS, latest_record
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store

_PART: Final = ".parquet"
_DEEPEST: Final = 6
"Levels from a file of an output up to its workdir."


@dataclass(frozen=True)
class Located:
    """What was named; everything but the workdir is None where the path does not name it."""

    workdir: Store
    output: Store | None = None
    "Folder of a stage's output."
    part: str | None = None
    "Path of one Parquet file within the output."
    checkpoint: Store | None = None


def locate(where: str, storage: StorageParams) -> Located:
    """Return what a path or URI names.

    Args:
        where: a workdir, ``<workdir>/<stage>``, ``<workdir>/<stage>/<fingerprint>``, or a Parquet
            file or a checkpoint within an output.
        storage: how an object store is reached.

    Raises:
        RecipeError: it is none of these.
        StoreError: the store cannot be read.
    """
    where = where.rstrip("/") or where
    part = None
    if where.endswith(_PART):
        where = where if is_uri(where) else os.path.abspath(where)  # noqa: PTH100  # links stay
        where, _, file = where.rpartition("/")
        where, _, table = where.rpartition("/")
        part = f"{table}/{file}"
    here = Store(where, storage)
    if part is not None:
        if not _is_output(here):
            raise RecipeError(
                f"{here.uri_of(part)}: no Parquet file of a table; one lies at "
                "<workdir>/<stage>/<fingerprint>/<table>/<name>.parquet"
            )
        return Located(_workdir_of(here), here, part)
    workdir = _workdir_of(here)
    if here == workdir:
        return Located(workdir)
    if is_checkpoint_name(here.name):
        return Located(workdir, checkpoint=here)
    if _is_output(here):
        return Located(workdir, here)
    return Located(workdir, _newest(workdir, here))


def _is_output(folder: Store) -> bool:
    return folder.exists(MANIFEST) or folder.exists(IDENTITY)


def _workdir_of(here: Store) -> Store:
    """Return the folder at or above ``here`` in which workflows have run."""
    folder = here
    for _ in range(_DEEPEST):
        if folder.exists(WORKFLOWS):
            return folder
        above = folder.uri.rpartition("/")[0]
        if not above.strip("/") or above.endswith((":/", ":")):
            break
        try:
            folder = Store(above, here.storage)
        except Exception:  # the bucket itself is no prefix
            break
    raise RecipeError(
        f"{here.uri}: no workflow has run here or above; name a workdir, an output "
        "<workdir>/<stage>/<fingerprint>, or a Parquet file or checkpoint in it"
    )


def _newest(workdir: Store, stage: Store) -> Store:
    """Return the output of a stage in the workdir's last workflow."""
    name = stage.uri.removeprefix(f"{workdir.uri}/")
    record = latest_record(workdir)
    stages = record["stages"] if record else {}
    if name not in stages:
        for each in stages:
            rest = name.removeprefix(f"{each}/")
            output = workdir.sub(f"{each}/{rest.partition('/')[0]}")
            if rest != name and "/" in rest and _is_output(output):
                raise RecipeError(
                    f"{stage.uri}: neither a Parquet file nor a checkpoint nor an export; name "
                    f"the output that it belongs to, {output.uri}"
                )
        raise RecipeError(
            f"{stage.uri}: no stage of the last workflow is named {name!r}; stages: "
            f"{', '.join(stages)}"
        )
    return workdir.sub(f"{name}/{stages[name]}")
