"""The image and the text encoder of a model as ONNX files, for programs without torch.

``image_encoder.onnx`` has the input ``images`` (B, 3, H, W) float32, normalized; B is free.
``text_encoder.onnx`` has the inputs ``ids`` (B, T) int64 and ``padding`` (B, T) bool, True =
padded; B is free, and T up to the network's longest text. Both have the output ``features`` (B, D)
float32 of length 1, which ``embed_images`` and ``embed_texts`` return in fp32.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.pretrained import made_folder

if TYPE_CHECKING:
    from pipelines.inference.loaded_model import LoadedModel

IMAGE_FILE: Final = "image_encoder.onnx"
TEXT_FILE: Final = "text_encoder.onnx"
_OPSET: Final = 18
_PACKAGES: Final = ("onnx", "onnxscript")


class _OfImages(nn.Module):
    def __init__(self, model: "LoadedModel") -> None:
        super().__init__()
        self.network, self._features = model.network, model.image_features

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self._features(images), dim=-1)


class _OfTexts(nn.Module):
    def __init__(self, model: "LoadedModel") -> None:
        super().__init__()
        self.network, self._features = model.network, model.text_features

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        return F.normalize(self._features(ids, padding), dim=-1)


def write_onnx(model: "LoadedModel", folder: str | Path) -> list[Path]:
    """Write both encoders; return the paths of the files.

    Args:
        model: on any device.
        folder: is made if it does not exist.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is missing.
        OSError: a file stands in the folder's place, or it cannot be written.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"the export to ONNX needs {' and '.join(missing)}: pip install 'beit3-pipeline[onnx]'"
        )
    folder = made_folder(folder)
    config = model.source.config
    size, length = config.image_size, min(config.max_text_length, 9)
    batch = torch.export.Dim("batch")
    texts = {0: batch, 1: torch.export.Dim("length", max=config.max_text_length)}
    images = torch.zeros(2, 3, size, size, device=model.device)
    ids = torch.full((2, length), 4, device=model.device)
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[1, -1] = True
    _write(_OfImages(model), (images,), folder / IMAGE_FILE, images={0: batch})
    _write(_OfTexts(model), (ids, padding), folder / TEXT_FILE, ids=texts, padding=texts)
    return [folder / IMAGE_FILE, folder / TEXT_FILE]


def _write(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, **shapes: Any) -> None:
    program = torch.onnx.export(
        module.eval(),
        inputs,
        input_names=list(shapes),
        output_names=["features"],
        dynamic_shapes=shapes,
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path)
