"""Checkpoints in a stage's folder: what belongs to one, whether it is whole, which is the newest.

A checkpoint is the folder ``ray_train/step_<number>``, or ``step_<number>_branch_<number>`` after
the training went back (:mod:`orchestration.branches`). Each worker adds a list of its own files
with sizes and digests once the files of all workers are durable. The checkpoint is whole if the
lists of all workers are there and every listed file is as its list says. Other files, such as those
of a killed attempt with more workers, do not count.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from orchestration.branches import counts, read_branches
from orchestration.manifest import File, file_of
from orchestration.storage.store import Store

RAY_TRAIN: Final = "ray_train"
"Folder of the checkpoints within a stage's folder; Ray Train writes it."
_NAME: Final = re.compile(r"step_([0-9]+)(?:_branch_([0-9]+))?")
_LIST: Final = "files-"
_DIGITS: Final = 5
"Of each number in the name of a list."
_READERS: Final = 8


def checkpoint_name(step: int, branch: int = 0) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"step_{step:08d}" + (f"_branch_{branch}" if branch else "")


def is_checkpoint_name(name: str) -> bool:
    """Return whether a folder of this name may be a checkpoint."""
    return _NAME.fullmatch(name) is not None


def step_of(checkpoint: Store) -> int:
    """Return the number of steps that a checkpoint has done."""
    return _step_and_branch(checkpoint.name)[0]


def _step_and_branch(name: str) -> tuple[int, int]:
    found = _NAME.fullmatch(name)
    assert found, name
    return int(found[1]), int(found[2] or 0)


def write_list(folder: Path, rank: int, num_workers: int) -> None:
    """List the files that one worker has written, in a file beside them."""
    local = Store(folder)
    files = [file_of(local, path) for path, _ in local.walk()]
    text = json.dumps([file.model_dump() for file in files])
    (folder / list_name(rank, num_workers)).write_text(text)


def remove_lists(checkpoint: Store) -> None:
    """Remove all lists of a checkpoint, so that it is not whole whatever its files are."""
    for name in checkpoint.names("", ".json"):
        if name.startswith(_LIST):
            checkpoint.remove(name)


def own_files(checkpoint: Store) -> list[File]:
    """Return the files of a whole checkpoint with paths in its folder, its lists included.

    Sizes and digests are those that the workers have listed; only the lists are read.
    """
    lists, files = _whole(checkpoint, read=False)
    return [*(file_of(checkpoint, name) for name in lists), *files]


def damage_of(checkpoint: Store, *, read: bool = True) -> str | None:
    """Return what a checkpoint lacks to be whole, or None if it is whole.

    Args:
        checkpoint: folder of the checkpoint.
        read: whether to read every file and compare digests, or to compare sizes alone.
    """
    try:
        _whole(checkpoint, read=read)
    except ValueError as error:
        return str(error)
    return None


def checkpoints(folder: Store) -> Iterator[Store]:
    """Yield the checkpoints in a stage's folder, newest first, whole or not.

    Those of an abandoned branch are left out.
    """
    run, branches = folder.sub(RAY_TRAIN), read_branches(folder)
    for name in sorted(filter(_NAME.fullmatch, run.folders()), key=_step_and_branch, reverse=True):
        step, branch = _step_and_branch(name)
        if counts(branches, branch, step):
            yield run.sub(name)


def newest_whole(
    folder: Store,
    *,
    read: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Store | None:
    """Return the newest whole checkpoint in a stage's folder, or None.

    Args:
        folder: folder of the stage.
        read: see :func:`damage_of`.
        tell: receives a line for each newer checkpoint, which is damaged.
    """
    for checkpoint in checkpoints(folder):
        damage = damage_of(checkpoint, read=read)
        if damage is None:
            return checkpoint
        tell(f"checkpoint {checkpoint.name} is not used: {damage}")
    return None


def remove_old(
    folder: Store, newest: Store, num_to_keep: int, keep_every: int | None = None
) -> None:
    """Remove all checkpoints before ``newest`` but those to keep; one that is not whole counts not.

    Args:
        folder: folder of the stage.
        newest: a whole checkpoint; it and later ones stay.
        num_to_keep: number of newest whole checkpoints to keep, ``newest`` included.
        keep_every: further checkpoints stay if their step is a multiple of it.
    """
    num_kept = 1
    for checkpoint in [c for c in checkpoints(folder) if step_of(c) < step_of(newest)]:
        if num_kept < num_to_keep and damage_of(checkpoint, read=False) is None:
            num_kept += 1
        elif keep_every is None or step_of(checkpoint) % keep_every:
            folder.remove(f"{RAY_TRAIN}/{checkpoint.name}")


def remove_damaged(folder: Store) -> None:
    """Remove the checkpoints that are not whole, and strays in the others; nothing is lost."""
    for checkpoint in checkpoints(folder):
        if damage_of(checkpoint) is not None:
            folder.remove(f"{RAY_TRAIN}/{checkpoint.name}")
            continue
        own = {file.path for file in own_files(checkpoint)}
        for path in [path for path, _ in checkpoint.walk() if path not in own]:
            checkpoint.remove(path)


def _whole(checkpoint: Store, *, read: bool) -> tuple[list[str], list[File]]:
    """Return the names of the lists and the listed files of a checkpoint.

    Raises:
        ValueError: the checkpoint is not whole.
    """
    sizes = dict(checkpoint.walk())
    names = {name for name in sizes if name.startswith(_LIST) and name.endswith(".json")}
    damage = "it has no list of its files"
    # Other names, such as those of copies, have no number of workers.
    counts = sorted({_num_workers(name) for name in names} - {0})
    read = read or len(counts) > 1  # of the lists of two attempts, sizes alone may fit both
    for num_workers in counts:
        lists = [list_name(rank, num_workers) for rank in range(num_workers)]
        if missing := sorted(set(lists) - names):
            damage = f"{missing[0]} is missing"
            continue
        try:
            files = [File(**item) for name in lists for item in json.loads(checkpoint.read(name))]
        except (ValueError, TypeError, RecursionError):
            damage = "a list of its files cannot be read"
            continue
        wrong = _wrong_size(files, sizes) or (_wrong_content(checkpoint, files) if read else None)
        if wrong is None:
            return lists, files
        damage = wrong
    raise ValueError(damage)


def _wrong_size(files: list[File], sizes: dict[str, int]) -> str | None:
    for file in files:
        if file.path not in sizes:
            return f"{file.path} is missing"
        if sizes[file.path] != file.bytes:
            return f"{file.path} has {sizes[file.path]} bytes instead of {file.bytes}"
    return None


def _wrong_content(checkpoint: Store, files: list[File]) -> str | None:
    with ThreadPoolExecutor(_READERS) as pool:
        for file, found in zip(
            files, pool.map(lambda file: file_of(checkpoint, file.path), files), strict=True
        ):
            if found != file:
                return f"the content of {file.path} has changed"
    return None


def list_name(rank: int, num_workers: int) -> str:
    """Return the name of a worker's list of its files."""
    return f"{_LIST}{rank:0{_DIGITS}d}-of-{num_workers:0{_DIGITS}d}.json"


def _num_workers(name: str) -> int:
    """Return the number of workers in a list's name, or 0 if it is not the name of a list."""
    count = name.removesuffix(".json").rpartition("-of-")[2]
    return int(count) if len(count) == _DIGITS and count.isdecimal() else 0
