"""Files of drawn images, good and bad."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def image_bytes(seed: int, form: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def write_images(folder: Path, number: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}.png" for i in range(number)]
    for i, path in enumerate(paths):
        path.write_bytes(image_bytes(i))
    return paths


BAD_FILES = {
    "page.jpg": (b"<html>not found</html>", "not_an_image"),
    "cut.png": (image_bytes(7)[:300], "undecodable"),
    "empty.png": (b"", "not_an_image"),
}
"Content and reason of files that are no images."
