"""``docs/inference.md`` word by word: every example runs, one after the other, on small models."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.finetune.registry import TASKS
from tests.pipelines.finetune.jobs import vocabulary
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained

PAGE = (Path(__file__).parents[3] / "docs" / "inference.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
KINDS = {
    "retrieval": "retrieval",
    "vqa": "vqa",
    "imagenet": "dual",
    "nlvr2": "nlvr2",
    "glue": "sentences",
    "captioning": "captioning",
    "detection": "detection",
    "segmentation": "segmentation",
}
"Kind of the drawn examples by the workdir that the page names."


@pytest.mark.slow
def test_every_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("dog.jpg", "cat.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(name)
    demo = pretrained(tmp_path / "runs" / "demo", width=64, num_heads=1, max_text_length=1022)
    (tmp_path / "official.pt").symlink_to(demo / "official.pt")
    (tmp_path / "beit3.spm").write_bytes(vocabulary())
    known = {name for kind in TASKS for name in kind.model_fields["name"].annotation.__args__}
    for workdir, kind in KINDS.items():
        if kind != "captioning" or kind in known:
            fine_tuned(tmp_path / "runs" / workdir, builder_of(kind))
    names: dict[str, object] = {"print": lambda *_: None}
    for block in BLOCKS:
        if "runs/captioning" in block and "captioning" not in known:
            continue
        exec(block, names)
    assert len(BLOCKS) >= 10 and (tmp_path / "copies" / "onnx" / "text_encoder.onnx").is_file()
    assert names["features"].shape == (2, 48)
    assert names["filled"].codes.shape == (4, 3) and len(names["right"]) == 4
