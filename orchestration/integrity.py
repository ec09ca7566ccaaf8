"""Integrity of committed outputs: compare every file with the digest in its manifest.

``repair`` removes exactly the damaged files of a stage, so the next run computes only these again.
A slice gives the same bytes each time, hence the new manifest equals the old one. A training
continues from the newest of its checkpoints that is whole.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from orchestration.checkpoint_files import remove_damaged
from orchestration.errors import ManifestError
from orchestration.manifest import MANIFEST, File, manifest_sha256, read_manifest
from orchestration.retries import ROUNDS, forget_slice
from orchestration.storage.store import Store

_READERS: Final = 8


@dataclass(frozen=True)
class Damage:
    """A committed file that disagrees with its manifest."""

    folder: Store
    path: str
    "Path of the file within the folder."
    slice: str | None
    "Slice that wrote the file; None for a file of the stage itself."
    what: str
    "Description of the damage."

    def __str__(self) -> str:
        return f"{self.folder.uri_of(self.path)}: {self.what}"


def damages(folder: Store) -> Iterator[Damage]:
    """Read every committed file of a stage and yield the damaged ones."""
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
            return Damage(folder, file.path, slice_id, "content differs from the manifest")
        return None

    with ThreadPoolExecutor(_READERS) as pool:
        yield from (damage for damage in pool.map(judge, files) if damage is not None)


def verify_inputs(inputs: Mapping[str, Store]) -> None:
    """Check the digest of every file of a stage's inputs.

    Raises:
        ManifestError: files are damaged; the message lists all of them.
    """
    found = [str(damage) for folder in inputs.values() for damage in damages(folder)]
    if found:
        raise ManifestError(
            "\n".join(["inputs are damaged; `beit3 run … --repair` computes them again", *found])
        )


def check_lineage(inputs: Mapping[str, Store]) -> None:
    """Check that inputs which were made from one another still belong together.

    Curation, for example, names rows of the images by number: a stage that reads both needs the
    very images that were curated.

    Raises:
        ManifestError: an input was made from another content of a second input.
    """
    for name, folder in inputs.items():
        for role in read_manifest(folder).parents.values():
            for parent in role:
                present = inputs.get(parent.stage)
                if present is not None and manifest_sha256(present) != parent.manifest_sha256:
                    raise ManifestError(
                        f"{folder.uri}: {name} was made from another content of {parent.stage} "
                        f"than {present.uri}; remove the folder of {name} and run again"
                    )


def repair(folder: Store) -> list[Damage]:
    """Remove the damaged files of a stage's output; return the damage found.

    Removing the part of a damaged slice and the manifest makes the next run repeat that slice only.
    Of a training, checkpoints that are whole are kept, also those before the committed one.
    """
    found = list(damages(folder))
    if not found:
        return []
    rounds = read_manifest(folder).rounds
    if rounds:
        folder.write_bytes(ROUNDS, json.dumps(rounds).encode())
    folder.remove(MANIFEST)  # from here on the output is incomplete
    for damage in found:
        if damage.slice is not None:
            forget_slice(folder, damage.slice)
        folder.remove(damage.path)
    remove_damaged(folder)
    return found
