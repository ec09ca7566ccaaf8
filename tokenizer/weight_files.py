"""Reading the weights that other programs saved, without running anything from the file.

Files of ``torch.save`` and of safetensors. ``model/network/`` and ``tokenizer/`` each have this
file, because neither imports the other; a test holds the two equal.
"""

import argparse
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

_ENVELOPES: Final = ("model", "module", "state_dict", "model_state_dict")
"Keys under which training programs save their weights, beside optimizer, epoch and arguments."
_PREFIXES: Final = ("module.", "_orig_mod.")
"Prefixes that data-parallel training and torch.compile put before every name."
_HEAD_BYTES: Final = 24


def _harmless() -> Iterator[Any]:
    """Yield the classes, beside tensors and containers, that a file may hold: they run no code."""
    yield argparse.Namespace
    for name in ("PosixPath", "WindowsPath"):
        yield getattr(pathlib, name), f"pathlib.{name}"
        yield getattr(pathlib, name), f"pathlib._local.{name}"
    for module in ("numpy.core", "numpy._core"):
        yield np._core.multiarray.scalar, f"{module}.multiarray.scalar"  # type: ignore[attr-defined]
    yield np.dtype
    yield from {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "efd?US"}


class UnreadableWeights(ValueError):
    """A file holds no weights that can be read; the message names the file and says why."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, as :func:`unwrapped` names them.

    Raises:
        FileNotFoundError: the path is not a file.
        UnreadableWeights: the file is empty, damaged, of another format, or holds no tensors, or
            some without values or in a sparse form.
    """
    try:
        tensors = unwrapped(read_saved(path))
        for name, tensor in tensors.items():
            if tensor.is_meta or tensor.layout != torch.strided:
                form = "without values" if tensor.is_meta else "sparse"
                raise UnreadableWeights(f"{path}: {name} is {form}; save plain tensors")
        return tensors
    except UnreadableWeights:
        raise
    except ValueError as error:
        raise UnreadableWeights(f"{path}: {error}") from None


def read_saved(path: str | Path) -> Any:
    """Return what a file of ``torch.save`` or of safetensors holds, tensors on the CPU.

    Raises:
        FileNotFoundError: the path is not a file.
        UnreadableWeights: the file is empty, damaged, of another format, or holds classes that
            are not known to be harmless.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if _is_safetensors(head, path.stat().st_size):
            return load_file(path)
        if _is_torchscript(path):
            raise UnreadableWeights(
                f"{path}: a TorchScript archive, which is a program, not weights alone; if you "
                f"trust it, convert it once: torch.save(torch.jit.load({str(path)!r}, "
                "map_location='cpu').state_dict(), 'weights.pt')"
            )
        with torch.serialization.safe_globals(list(_harmless())), warnings.catch_warnings():
            # torch asks its user to report files of a newer protocol, most of which it reads.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            # Old files are bare pickles, which cannot be mapped into memory.
            is_zip = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except UnreadableWeights:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead the readers to
        raise UnreadableWeights(f"{path}: {_reason(path, error)}") from None


def unwrapped(saved: object) -> dict[str, Tensor]:
    """Return the tensors by name, without the envelopes and prefixes of training programs.

    Raises:
        ValueError: ``saved`` holds no tensors; the message lists its keys.
    """
    while isinstance(saved, Mapping):
        inner = next((saved[k] for k in _ENVELOPES if isinstance(saved.get(k), Mapping)), None)
        if inner is None:
            break
        saved = inner
    tensors = (
        {str(name): value for name, value in saved.items() if isinstance(value, Tensor)}
        if isinstance(saved, Mapping)
        else {}
    )
    if not tensors:
        found = (
            f"its keys: {', '.join(map(str, list(saved)[:8])) or 'none'}"
            if isinstance(saved, Mapping)
            else f"it is a {type(saved).__name__}"
        )
        raise ValueError(
            f"it holds no weights, neither at its top level nor under {', '.join(_ENVELOPES)} "
            f"({found}); give a file of named tensors"
        )
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins as safetensors: the length of its JSON header, then the header."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _reason(path: Path, error: Exception) -> str:
    """Return why a file cannot be read, in one line."""
    if not path.stat().st_size:
        return "the file is empty; fetch it again"
    if isinstance(error, pickle.UnpicklingError) and (classes := _unsafe_classes(path)):
        return (
            f"it holds objects of {', '.join(classes)}, which are not loaded because they could "
            "run code; save its weights alone: torch.save(state_dict, 'weights.pt')"
        )
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    begins = f", it begins with {head.decode()!r}" if head.isascii() else ""
    first_line = (str(error).splitlines() or [""])[0][:200]
    detail = "" if isinstance(error, pickle.UnpicklingError) else f" ({first_line or 'cut short'})"
    return f"neither a torch nor a safetensors file, or damaged{begins}{detail}; fetch it again"


def _unsafe_classes(path: Path) -> list[str]:
    """Return the names of the classes in a torch file that are neither torch's nor harmless."""
    try:
        with torch.serialization.safe_globals(list(_harmless())):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a zip file of torch.save
        return []
