"""Where weights to start from lie: a training of this project, an export of it, or a file.

========  ===============================================================================
training  a workdir, a complete output of ``pretrain``, or one checkpoint
          (``…/ray_train/step_00001000``); in a folder or under ``s3://``
export    a folder that ``export`` wrote, or the output of that stage; likewise
file      a file of ``torch.save`` or of safetensors, in this project's or the official
          layout; a path or a URI
========  ===============================================================================

A training and an export say which tokenizers their weights belong to; a file does not. Nothing
from the files is run: the index of a checkpoint, which is a pickle, may name a few classes alone.
"""

import hashlib
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.network.weight_files import read_weights
from orchestration.checkpoint_files import (
    RAY_TRAIN,
    damage_of,
    is_checkpoint_name,
    newest_whole,
    own_files,
)
from orchestration.errors import RecipeError, StoreError
from orchestration.fingerprint import canonical_json, file_digest
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.params import is_uri
from orchestration.plan import IDENTITY, WORKFLOWS, latest_record
from orchestration.storage.remote_files import head_of, version_of
from orchestration.storage.store import Store
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.tokens.given_weights import safetensors_shapes
from pipelines.tokens.text_tokenizer import MODEL_FILE as TEXT_FILE
from pipelines.tokens.vqkd_training import MODEL_FILE as CODES_FILE
from pipelines.training.checkpoints import load_network_state
from tokenizer.text import FILE_NAME as XLMR_FILE

EXPORT: Final = "export"
WEIGHTS_FILE: Final = "model.safetensors"
LABELS_FILE: Final = "labels.txt"
"Of the export of a fine-tuning."
TRAINING: Final = "pretrain"
"Stage whose checkpoints are read."
_OF_EXPORT: Final = (WEIGHTS_FILE, NETWORK_FILE, XLMR_FILE, TEXT_FILE, CODES_FILE, LABELS_FILE)
_SUFFIXES: Final = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
"Names under ``s3://`` that end otherwise are taken for folders."
_HEAD_BYTES: Final = 1 << 20
_INDEX: Final = ".metadata"
_INDEX_CLASSES: Final = {
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "MetadataIndex", "TensorStorageMetadata", "TensorProperties"),
        *("ChunkStorageMetadata", "BytesStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
    "pathlib": ("Path", "PosixPath"),
    "pathlib._local": ("Path", "PosixPath"),
    "collections": ("OrderedDict",),
}


@dataclass(frozen=True)
class Folder:
    """A training's checkpoint or an export."""

    kind: str
    "``checkpoint`` or ``export``."
    store: Store

    def config(self) -> BEiT3Config:
        """Return the configuration of the network.

        Raises:
            RecipeError: its file is missing or damaged.
        """
        try:
            return BEiT3Config.from_json(self.store.read(NETWORK_FILE))
        except StoreError as error:
            raise RecipeError(str(error)) from None
        except ValueError as error:
            raise RecipeError(f"{self.store.uri_of(NETWORK_FILE)}: {error}") from None

    def digest(self) -> str:
        """Return a digest of what is read, the same wherever the folder lies."""
        if self.kind == "checkpoint":
            files = [[file.path, file.bytes, file.sha256] for file in own_files(self.store)]
        else:
            files = [[name, self._content(name)] for name in _OF_EXPORT if self.store.exists(name)]
        return f"sha256:{hashlib.sha256(canonical_json(sorted(files))).hexdigest()}"

    def weights(self) -> dict[str, Tensor]:
        """Read the network's parameters, in this project's names.

        Raises:
            RecipeError: a file is damaged, or could run code.
            UnreadableWeights: the file of an export is damaged.
        """
        if self.kind == EXPORT:
            return read_weights(self.store.fetch(WEIGHTS_FILE))
        if damage := damage_of(self.store):
            raise RecipeError(f"{self.store.uri}: the checkpoint is not whole: {damage}")
        folder = self.store.fetch(NETWORK_FILE).parent
        for file in own_files(self.store):
            self.store.fetch(file.path)
        _check_index(folder / _INDEX)
        with torch.device("meta"):
            network = BEiT3(self.config())
        network = network.to_empty(device="cpu")
        try:
            load_network_state(folder, network)
        except Exception as error:  # a shard that fits its list was damaged before it was listed
            raise RecipeError(f"{self.store.uri}: cannot be read: {_first_line(error)}") from None
        return dict(network.state_dict())

    def outline(self) -> dict[str, Tensor]:
        """Return names and shapes of what :meth:`weights` reads, on the device ``meta``.

        Raises:
            RecipeError: the configuration of a checkpoint is missing or damaged.
            UnreadableWeights: the file of an export is damaged.
        """
        if self.kind == EXPORT:
            return outline_of_file(self.store, WEIGHTS_FILE)
        with torch.device("meta"):
            return dict(BEiT3(self.config()).state_dict())

    def text_tokenizer(self) -> Path | None:
        """Return the file of the vocabulary that the weights belong to, if it is known."""
        return self._tokenizer("text_tokenizer", (XLMR_FILE, TEXT_FILE), TEXT_FILE)

    def image_tokenizer(self) -> Path | None:
        """Return the file of the codebook that the weights belong to, if it is known."""
        return self._tokenizer("image_tokenizer", (CODES_FILE,), CODES_FILE)

    def _tokenizer(self, role: str, beside: tuple[str, ...], of_stage: str) -> Path | None:
        if self.kind == EXPORT:
            names = (name for name in beside if self.store.exists(name))
            return next((self.store.fetch(name) for name in names), None)
        for name, folder in input_folders(_parent(_parent(self.store))):
            if name == role and folder.exists(of_stage):
                return folder.fetch(of_stage)
        return None

    def _content(self, name: str) -> str:
        if self.store.is_local:
            return file_digest(Path(self.store.native_path(name)))
        return str(version_of(self.store.uri_of(name)))


def is_folder(location: str) -> bool:
    """Return whether a location is a training or an export rather than a file."""
    if not is_uri(location):
        return Path(location).is_dir()
    return location.startswith("s3://") and not location.lower().endswith(_SUFFIXES)


def digest_of_folder(location: str) -> str:
    """Return the digest of the checkpoint or export at a location.

    Raises:
        RecipeError: there is none.
    """
    return open_folder(location).digest()


def open_folder(location: str) -> Folder:
    """Find the checkpoint or export at a location.

    Raises:
        RecipeError: there is none, or it is not complete.
    """
    try:
        return _found(Store(location))
    except StoreError as error:
        raise RecipeError(str(error)) from None


def _found(store: Store) -> Folder:
    paths = [Path(store.native_path(name)) for name in _OF_EXPORT] if store.is_local else []
    if broken := next((p for p in paths if p.is_symlink() and not p.exists()), None):
        raise RecipeError(
            f"{broken} is a broken link to {broken.readlink()}; copy the whole export"
        )
    if is_checkpoint_name(store.name) and store.exists(NETWORK_FILE):
        if damage := damage_of(store, read=False):
            raise RecipeError(f"{store.uri}: the checkpoint is not whole: {damage}")
        return Folder("checkpoint", store)
    if store.exists(WEIGHTS_FILE) and store.exists(NETWORK_FILE):
        return Folder(EXPORT, store)
    if store.exists(MANIFEST):
        files = [PurePosixPath(file.path) for file in read_manifest(store).files]
        for file in files:
            if file.name == NETWORK_FILE and file.parent.name:
                return _found(store.sub(file.parent.as_posix()))
    elif store.exists(RAY_TRAIN):
        newest = newest_whole(store, read=False)
        step = f"name one of its checkpoints, such as {newest.uri}" if newest else "it has none"
        raise RecipeError(
            f"{store.uri}: a training that is not complete has no last checkpoint; {step}"
        )
    elif store.exists(WORKFLOWS):
        stages = (latest_record(store, {TRAINING}) or {"stages": {}})["stages"]
        if fingerprint := stages.get(TRAINING):
            return _found(store.sub(f"{TRAINING}/{fingerprint}"))
    raise RecipeError(
        f"{store.uri}: neither a checkpoint of pretrain ({NETWORK_FILE} beside its shards), nor an "
        f"export ({WEIGHTS_FILE} and {NETWORK_FILE}), nor a workdir with a pretraining; a file "
        f"ends in {', '.join(_SUFFIXES)}"
    )


def input_folders(output: Store | None) -> Iterator[tuple[str, Store]]:
    """Yield the name of each stage that an output was made from, and the folder of its output."""
    workdir = _parent(_parent(output))
    if output is None or workdir is None or not output.exists(IDENTITY):
        return
    for name, content in chain(*output.read_json(IDENTITY, {"inputs": dict})["inputs"].values()):
        yield name, workdir.sub(f"{name}/{content.partition('+')[0]}")


def outline_of_file(store: Store, name: str) -> dict[str, Tensor]:
    """Return names and shapes of a safetensors file in a folder, on the device ``meta``.

    Raises:
        UnreadableWeights: the file is damaged.
    """
    if not store.is_local:
        shapes = safetensors_shapes(head_of(store.uri_of(name), _HEAD_BYTES))
        if shapes is not None:
            return {n: torch.empty(t.shape, device="meta") for n, t in shapes.items()}
    tensors = read_weights(store.fetch(name))
    return {n: torch.empty_like(tensor, device="meta") for n, tensor in tensors.items()}


def _parent(store: Store | None) -> Store | None:
    """Return the store of the folder around a store, or None at the top."""
    above = store.uri.rpartition("/")[0] if store is not None else ""
    if not above.strip("/") or (above.startswith("s3:") and above.count("/") < 3):
        return None
    return Store(above, store.storage) if store is not None else None


class _Index(pickle.Unpickler):
    """Reads the index of a checkpoint; it constructs objects of a few classes alone."""

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _INDEX_CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")


def _check_index(path: Path) -> None:
    try:
        _Index(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise RecipeError(
            f"{path}: not the index of a checkpoint, nothing of it is loaded: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def tokenizer_files(folder: Folder | None) -> Iterator[tuple[str, Path | None]]:
    """Yield the stage and the file of each tokenizer that the weights of a folder belong to."""
    yield "text_tokenizer", folder.text_tokenizer() if folder is not None else None
    yield "image_tokenizer", folder.image_tokenizer() if folder is not None else None


@lru_cache
def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a committed file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
