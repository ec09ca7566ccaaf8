"""Generations: the contents that an output folder has held, one after another.

A fingerprint says what an output was made from, not what came out: a repaired download meets a web
that has changed. Each manifest that was committed to a folder is therefore a generation, known by
its digest. Stages that read an output take its generation into their own fingerprints. A new
content makes them stale and gives them a new folder; the same content leaves them fresh.
"""

import hashlib
import json
from typing import Final

from orchestration.manifest import MANIFEST, manifest_sha256
from orchestration.storage.store import Store

GENERATIONS: Final = "generations.json"
"Digests of the manifests that were committed, oldest first."


def commit_manifest(folder: Store, data: bytes, name: str = MANIFEST) -> None:
    """Write the manifest of an output, after its digest is recorded as a generation.

    Under another name than ``manifest.json`` it is not committed yet and no generation.
    """
    digest = hashlib.sha256(data).hexdigest()
    known = _generations(folder)
    if name == MANIFEST and digest not in known:
        folder.write_bytes(GENERATIONS, json.dumps([*known, digest], indent=1).encode())
    folder.write_bytes(name, data)


def content_id(folder: Store) -> str:
    """Return the name by which dependent stages know an output.

    It is the fingerprint for the first generation, and the fingerprint with the beginning of the
    manifest's digest for a later one. An output that is not committed has the name of its latest
    generation, because a repair normally gives the same content again.
    """
    known = _generations(folder)
    if not known:
        return folder.name
    digest = manifest_sha256(folder) if folder.exists(MANIFEST) else known[-1]
    if digest == known[0]:
        return folder.name
    return f"{folder.name}+{digest[:12]}"


def _generations(folder: Store) -> list[str]:
    return folder.read_json_list(GENERATIONS, str) if folder.exists(GENERATIONS) else []
