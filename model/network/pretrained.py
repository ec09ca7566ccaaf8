"""Networks from where they are published or stored, and back into a folder.

=======  ====================================================================================
folder   ``network.json`` and ``model.safetensors``: an export of this project; of a
         fine-tuning's export the encoder is taken
file     weights in the official layout or this project's, of torch or safetensors; their
         shapes say the configuration
hub      ``owner/name`` or ``owner/name@revision``: such a folder on the Hugging Face hub,
         through ``huggingface_hub`` and its cache
=======  ====================================================================================

A path that exists is never looked up on the hub, nor is a name without revision whose first part is
a folder here: it is a path with a typing error. Nothing in a file is run.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.network.config import BEiT3Config
from model.network.deduced_config import config_of
from model.network.layouts import in_our_layout, refuse_values
from model.network.loading import PARTS, check_depth, check_names, load, part_of
from model.network.weight_files import read_weights

NETWORK_FILE: Final = "network.json"
WEIGHTS_FILE: Final = "model.safetensors"
HEADS: Final = ("mlm_head", "mim_head")
"Prediction heads of the pretraining, which other networks do not have."
_WEIGHTS: Final = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
"Endings of files of weights, which names on the hub do not have."
_HUB_NAME: Final = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.+))?")
_OF_OTHER_PROGRAMS: Final = ("official.*", "torchscale.pt", "timm/*")
"Files of an export that hold its weights once more."


class NotAModel(ValueError):
    """There is no model that can be loaded; the message is one sentence."""


class Pretrained(nn.Module):
    """Loading and saving, which :class:`model.BEiT3` inherits."""

    config: BEiT3Config

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Return the network at a source, see above, in fp32 and in evaluation mode.

        Prediction heads that the weights do not have are removed from the network.

        Raises:
            NotAModel: there is none, it is not whole, or it is another program's.
        """
        path = located(source)
        try:
            config, state = read_folder(path) if path.is_dir() else read_file(path)
            return cls.of_weights(config, state)
        except NotAModel:
            raise
        except (ValueError, OSError) as error:
            raise NotAModel(one_line(path, error)) from None

    @classmethod
    def of_weights(cls, config: BEiT3Config, state: Mapping[str, Tensor]) -> Self:
        """Return the network of a configuration with the weights of :func:`read_file`.

        Raises:
            StateMismatch: the weights are not those of the configuration.
            StartMismatch: a value is no finite number.
        """
        refuse_values(state)
        check_depth(state, config.depth)
        with torch.device("meta"):  # no time for initial values
            network = cls(config)
        parts = {part_of(name) for name in state}
        for head in HEADS:
            if head not in parts:
                delattr(network, head)
        check_names(state, network.state_dict(), PARTS)  # before memory for wrong sizes is taken
        network = network.to_empty(device="cpu")
        load(network, state)
        return network.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration and weights, which :meth:`from_pretrained` reads.

        Args:
            folder: is made if it does not exist; both files are replaced.

        Raises:
            OSError: a file stands in the folder's place, or it cannot be written.
        """
        write_folder(made_folder(folder), self.config, self.state_dict())


def made_folder(folder: str | Path) -> Path:
    """Make a folder, with those that it lies in, unless it exists.

    Raises:
        OSError: a file stands in its place, or it cannot be made.
    """
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FileExistsError(f"{path} is, or lies in, a file; name a new folder") from None
    return path


def located(source: str | Path) -> Path:
    """Return the path of a source; a folder of the hub is fetched.

    Raises:
        NotAModel: neither a path nor a folder of the hub is there.
    """
    name = str(source)
    if not name.strip():
        raise NotAModel(f"{name!r} is no name of a model; give a folder, a file or owner/name")
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (ValueError, RuntimeError, OSError) as error:  # U+0000, no home, a name too long
        words = getattr(error, "strerror", None) or error
        raise NotAModel(f"{name!r:.200}: no path of a model ({words})") from None
    if not (found := _HUB_NAME.fullmatch(name)) or name.startswith("."):
        raise NotAModel(f"{name}: there is no such folder or file")
    if found[2] is None and (path.parent.exists() or path.suffix in _WEIGHTS):
        raise NotAModel(
            f"{name}: there is no such folder or file; a model of that name on the Hugging Face "
            f"hub is {name}@main"
        )
    return _from_hub(name, found[1], found[2])


def read_folder(folder: Path) -> tuple[BEiT3Config, dict[str, Tensor]]:
    """Return configuration and state of the network in a folder.

    Raises:
        NotAModel: a file is missing, or the configuration is damaged.
        ValueError: the weights are damaged.
    """
    if why := why_not(folder):
        raise NotAModel(f"{folder}: {why}")
    path = folder / NETWORK_FILE
    try:
        config = BEiT3Config.from_json(path.read_bytes())
    except ValueError as error:
        raise NotAModel(one_line(path, error)) from None
    return config, in_our_layout(read_weights(folder / WEIGHTS_FILE))[1]


def read_file(path: Path) -> tuple[BEiT3Config, dict[str, Tensor]]:
    """Return configuration and state of the network whose weights are in a file.

    Raises:
        ValueError: the file is damaged, or not of a whole network.
    """
    saved = read_weights(path)
    return config_of(saved), in_our_layout(saved)[1]


def write_folder(folder: Path, config: BEiT3Config, state: Mapping[str, Tensor]) -> None:
    """Write what :func:`read_folder` reads."""
    (folder / NETWORK_FILE).write_text(config.to_json())
    save_state(state, folder / WEIGHTS_FILE)


def save_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; transformers and others refuse one without ``format``."""
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(copies, path, metadata={"format": "pt"})


def why_not(folder: Path) -> str | None:
    """Return in words why there is no network of this project in a folder; None if there is."""
    names = {path.name for path in folder.iterdir()}
    if {NETWORK_FILE, WEIGHTS_FILE} <= names:
        return None
    if NETWORK_FILE in names:
        return f"it has {NETWORK_FILE} but no {WEIGHTS_FILE}; copy the whole folder"
    if "adapter_config.json" in names:
        return "it holds an adapter (LoRA) of another model; there is no BEiT-3 network in it"
    if "config.json" in names:
        return _of_config(folder / "config.json")
    if files := sorted(n for n in names if n.endswith(_WEIGHTS)):
        return (
            f"it is no export ({NETWORK_FILE} is missing); to load one of its files, name it, "
            f"such as {folder / files[0]}"
        )
    if not names:
        return "the folder is empty"
    return f"it has neither {NETWORK_FILE} nor {WEIGHTS_FILE}; name the folder of an export"


def one_line(path: str | Path, error: Exception) -> str:
    """Return an error as one line that begins with the path."""
    words = " ".join(str(error).split())
    return words if words.startswith(str(path)) else f"{path}: {words}"


def _of_config(path: Path) -> str:
    try:
        config: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "its config.json is not JSON"
    if isinstance(config, dict) and "architecture" in config:
        return (
            f"it holds timm's model {config['architecture']!s:.60}, and timm's layout has images "
            "alone; give the folder of the whole network"
        )
    kind = config.get("model_type") if isinstance(config, dict) else None
    return (
        f"it holds a model of transformers ({kind!s:.60}), not a BEiT-3 network"
        if kind
        else f"it has another program's config.json and no {NETWORK_FILE}"
    )


def _from_hub(source: str, name: str, revision: str | None) -> Path:
    """Return the folder of the cache that holds an export on the hub."""
    from huggingface_hub import hf_hub_download, snapshot_download

    unanswered = None
    try:
        unanswered = _unanswered(name, revision)
        cached = unanswered is not None
        hf_hub_download(name, NETWORK_FILE, revision=revision, local_files_only=cached)
        # All files only now, as another program's model may have gigabytes.
        folder = snapshot_download(
            name,
            revision=revision,
            ignore_patterns=[*_OF_OTHER_PROGRAMS],
            local_files_only=cached,
        )
    except Exception as error:  # the hub's client raises errors of its HTTP library, too
        reason = unanswered or error
        lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
        words = "does not answer" if unanswered else f"gives no {NETWORK_FILE} of {name}"
        raise NotAModel(
            f"{source}: there is no such folder or file here, and the Hugging Face hub {words}: "
            f"{': '.join([type(reason).__name__, *lines[:1]])}"
        ) from None
    return Path(folder)


def _unanswered(name: str, revision: str | None) -> Exception | None:
    """Return why the hub does not answer at all, or None.

    The functions that fetch try for half a minute to reach it, even where all is in the cache.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        url = hf_hub_url(name, NETWORK_FILE, revision=revision)
        get_hf_file_metadata(url, token=get_token())
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled):
        return None  # an answer, or nothing that was asked: the fetching says what it is
    except Exception as error:
        return error
    return None
