"""Where the weights of a fine-tuning lie: an earlier fine-tuning, or what a pretraining takes.

===========  ============================================================================
fine-tuning  a workdir whose newest training is a fine-tuning, or the output of its stage
             ``finetune``; in a folder or under ``s3://``
export       the folder that its ``export`` wrote
any other    see :mod:`pipelines.pretrain.start_source`
===========  ============================================================================

The stage ``finetune`` writes weights and labels. Their configuration and vocabulary are in the
output of ``start``, from which it was made.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from model import BEiT3Config
from model.finetuning.released import encoder_of
from model.network.deduced_config import has_final_norm
from model.network.weight_files import read_weights
from orchestration.errors import RecipeError, StoreError
from orchestration.fingerprint import canonical_json
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.params import OrOutput
from orchestration.plan import IDENTITY, WORKFLOWS, latest_record
from orchestration.storage.store import Store
from pipelines.pretrain import start_source
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.start_source import (
    LABELS_FILE,
    Folder,
    input_folders,
    is_folder,
    outline_of_file,
)
from pipelines.tokens.text_tokenizer import MODEL_FILE

STAGE: Final = "finetune"
BEST_FILE: Final = "network.safetensors"
"Best weights in the output of ``finetune``: the state of the task's network."
NAMES_FILE: Final = "labels.json"
"Labels beside them: a list of names, in the order of the scores."
_START: Final = "start"


@dataclass(frozen=True)
class FineTuning(Folder):
    """The complete output of a stage ``finetune``."""

    start: Store
    "Output of its stage ``start``."

    def config(self) -> BEiT3Config:
        """See :class:`Folder`; whether there is a final norm was the task's choice."""
        config = Folder(self.kind, self.start).config()
        return replace(config, final_norm=has_final_norm(encoder_of(self.outline())))

    def digest(self) -> str:
        """See :class:`Folder`."""
        files = [
            [file.path, file.sha256]
            for store, names in (
                (self.store, (BEST_FILE, NAMES_FILE)),
                (self.start, (NETWORK_FILE, MODEL_FILE)),
            )
            for file in read_manifest(store).files
            if file.path in names
        ]
        return f"sha256:{hashlib.sha256(canonical_json(sorted(files))).hexdigest()}"

    def weights(self) -> dict[str, Tensor]:
        """See :class:`Folder`; heads of the task are among them."""
        return read_weights(self.store.fetch(BEST_FILE))

    def outline(self) -> dict[str, Tensor]:
        """See :class:`Folder`."""
        return outline_of_file(self.store, BEST_FILE)

    def text_tokenizer(self) -> Path | None:
        """See :class:`Folder`."""
        return self.start.fetch(MODEL_FILE)


def open_folder(location: str) -> Folder:
    """Find the fine-tuning, the checkpoint or the export at a location.

    Raises:
        RecipeError: there is none, or it is not complete.
    """
    try:
        return _fine_tuning(Store(location)) or start_source.open_folder(location)
    except StoreError as error:
        raise RecipeError(str(error)) from None


def _fine_tuning(store: Store) -> FineTuning | None:
    if store.exists(WORKFLOWS):
        record = latest_record(store, {STAGE, start_source.TRAINING}) or {"stages": {}}
        fingerprint = record["stages"].get(STAGE)
        return _fine_tuning(store.sub(f"{STAGE}/{fingerprint}")) if fingerprint else None
    if not store.exists(IDENTITY) or store.read_json(IDENTITY, {"name": str})["name"] != STAGE:
        return None
    if not store.exists(MANIFEST):
        raise RecipeError(
            f"{store.uri}: the fine-tuning is not complete, so it has no best weights; run it to "
            "its end, or name another start"
        )
    for name, folder in input_folders(store):
        if name == _START and folder.exists(MANIFEST):
            return FineTuning(STAGE, store, folder)
    raise RecipeError(
        f"{store.uri}: the output of its stage {_START}, which has configuration and vocabulary, "
        "is not in its workdir; give the workdir as it was, or the folder that export wrote"
    )


def labels_of(folder: Folder | None) -> list[str] | None:
    """Return the labels that a fine-tuned head scores, in its order; None if they are not known.

    Raises:
        RecipeError: their file is damaged.
    """
    if folder is None:
        return None
    name = NAMES_FILE if isinstance(folder, FineTuning) else LABELS_FILE
    if not folder.store.exists(name):
        return None
    text = folder.store.read(name).decode(errors="replace")
    try:
        if name == NAMES_FILE:
            return [str(label) for label in json.loads(text)]
        entries = sorted(map(json.loads, text.splitlines()), key=lambda entry: entry["label"])
        labels = [entry["answer"] if "answer" in entry else entry["name"] for entry in entries]
        if [entry["label"] for entry in entries] != list(range(len(labels))):
            raise ValueError(f"its numbers are not those from 0 to {len(labels) - 1}, each once")
        if not all(isinstance(label, str) for label in labels):
            raise ValueError("a label is no text")
        return labels
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(f"{folder.store.uri_of(name)}: no list of labels: {reason}") from None


def digest_of_folder(location: str) -> str:
    """Return the digest of what lies at a location.

    Raises:
        RecipeError: there is nothing to start from.
    """
    return open_folder(location).digest()


OR_FOLDER: Final = OrOutput(is_folder, digest_of_folder)
