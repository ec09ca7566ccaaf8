"""Whether what was committed is still what was committed: size always, digest here.

A damaged part names itself. ``repair`` takes exactly what is damaged out of a stage, so that the
next run computes it again; a slice gives the same bytes each time, hence so does the manifest.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from orchestration.errors import ManifestError
from orchestration.manifest import MANIFEST, File, read_manifest
from orchestration.retries import ROUNDS, forget_slice
from orchestration.storage.store import Store

_READERS: Final = 8


@dataclass(frozen=True)
class Damage:
    """A committed file that is not what its manifest says."""

    folder: Store
    path: str
    slice: str | None
    "Whose table it is; None for a file of the stage itself."
    what: str

    def __str__(self) -> str:
        return f"{self.folder.uri_of(self.path)}: {self.what}"


def damages(folder: Store) -> Iterator[Damage]:
    """Read every committed file of a stage and yield those that are damaged."""
    manifest = read_manifest(folder)
    files: list[tuple[File, str | None]] = [
        (table, part.slice) for part in manifest.parts for table in part.tables.values()
    ]
    files += [(file, None) for file in manifest.files]

    def judge(item: tuple[File, str | None]) -> Damage | None:
        file, slice_id = item
        if folder.size(file.path) is None:
            return Damage(folder, file.path, slice_id, "missing")
        size, sha256 = folder.size_and_sha256(file.path)
        if size != file.bytes:
            return Damage(
                folder, file.path, slice_id, f"{size} bytes, its manifest says {file.bytes}"
            )
        if sha256 != file.sha256:
            return Damage(folder, file.path, slice_id, "another content than its manifest says")
        return None

    with ThreadPoolExecutor(_READERS) as pool:
        yield from (damage for damage in pool.map(judge, files) if damage is not None)


def verify_inputs(inputs: Mapping[str, Store]) -> None:
    """Check the digest of everything that a stage is about to read.

    Raises:
        ManifestError: something is damaged; all of it is listed.
    """
    found = [str(damage) for folder in inputs.values() for damage in damages(folder)]
    if found:
        raise ManifestError(
            "\n".join(["inputs are damaged; `beit3 run … --repair` computes them again", *found])
        )


def repair(folder: Store) -> list[Damage]:
    """Take what is damaged out of a stage's output; return it.

    A damaged slice loses its part and the stage its manifest, so a run redoes that slice alone. A
    damaged file of the stage itself was not made by slices: the whole output goes.
    """
    found = list(damages(folder))
    if not found:
        return []
    rounds = read_manifest(folder).rounds
    if rounds:
        folder.write_bytes(ROUNDS, json.dumps(rounds).encode())
    folder.remove(MANIFEST)  # from here on nobody takes the output for whole
    for damage in found:
        if damage.slice is not None:
            forget_slice(folder, damage.slice)
    if any(damage.slice is None for damage in found):
        for name in folder.folders():
            folder.remove(name)
    return found
