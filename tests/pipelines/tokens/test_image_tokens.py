"""Training crops exactly the pixels that were tokenized."""

import numpy as np
import pyarrow as pa
import torch

from dataprep.images import encode_jpeg
from model import BEiT3Config
from orchestration.slices import Slice
from orchestration.storage.store import Store
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.tokens.held_out import Split
from pipelines.tokens.image_tokens import CropParams, ViewTokenizer
from tests.committing import commit_tables
from tokenizer.text import TextTokenizer, train
from tokenizer.vqkd import VQKD, VQKDConfig

SIZE = 32
TOKENIZER = VQKDConfig(
    image_size=SIZE, patch_size=8, width=64, depth=1, num_heads=1, decoder_depth=1, num_codes=16,
    code_dim=4, teacher_dim=8,
)  # fmt: skip
NUM_IMAGES = 250
NUM_VIEWS = 4


class Recording(ViewTokenizer):
    """Records the crops that it encodes."""

    crops: list[np.ndarray]

    def _codes(self, crops):
        self.crops = [*getattr(self, "crops", []), *crops]
        return super()._codes(crops)


def test_training_crops_a_thousand_views_to_the_pixels_that_were_tokenized(tmp_path):
    rng = np.random.default_rng(0)
    images = [
        encode_jpeg(rng.integers(0, 255, (*rng.integers(20, 90, 2), 3), dtype=np.uint8), 90)
        for _ in range(NUM_IMAGES)
    ]
    table = pa.table({
        "sample_id": [f"p/{i}" for i in range(NUM_IMAGES)],
        "source": ["own"] * NUM_IMAGES,
        "label": [""] * NUM_IMAGES,
        "jpeg": images,
        "captions": [["x"]] * NUM_IMAGES,
        "sha256": [str(i) for i in range(NUM_IMAGES)],
        "held_out": [None] * NUM_IMAGES,
        "group": [None] * NUM_IMAGES,
    })  # fmt: skip
    store = Store(tmp_path)
    images = commit_tables(store.sub("images"), [table], row_group_rows=64)
    locations = pa.table({
        "dataset": [0] * NUM_IMAGES, "row": range(NUM_IMAGES), "captions": [["x"]] * NUM_IMAGES,
    })  # fmt: skip
    kept = commit_tables(store.sub("kept"), [locations], row_group_rows=64)
    torch.manual_seed(0)
    VQKD(TOKENIZER).save(tmp_path / "vqkd.pt")
    files = {"vqkd.pt": (tmp_path / "vqkd.pt").read_bytes()}
    tokenizer = commit_tables(store.sub("tokenizer"), [], row_group_rows=1, files=files)

    params = CropParams(num_views=NUM_VIEWS, min_crop_scale=0.08, flip=True)
    stage = Recording(params, Split(0, 5), [], tokenizer, kept, [images])
    output = stage(Slice("0", {"start": 0, "stop": NUM_IMAGES})).tables["train"]
    assert len(stage.crops) == NUM_IMAGES * NUM_VIEWS == 1000
    views = np.array(output["views"].to_pylist()).reshape(-1, 5)
    assert 400 < views[:, 4].sum() < 600  # flips

    (tmp_path / "spm").write_bytes(train(["a b c d e"] * 9, vocab_size=9, character_coverage=1))
    network = BEiT3Config(
        32, 1, 1, 32, image_size=SIZE, patch_size=8, fusion_layers=1, vocab_size=20, num_codes=16
    )
    feed = FeedParams(0.15, 0.5, 0.4, "separate", 8, 0.0, 0.0, False)
    builder = SampleBuilder("image", network, TextTokenizer.load(tmp_path / "spm"), feed, 1)
    seen = set()
    slots = np.arange(NUM_IMAGES)
    for step in range(12):
        batch = builder.build(output, step, slots)
        pixels = batch.pixels.numpy()
        for row in slots:
            crops = stage.crops[row * NUM_VIEWS : (row + 1) * NUM_VIEWS]
            same = [v for v in range(NUM_VIEWS) if np.array_equal(pixels[row], crops[v])]
            view = same[0]  # two views of a small image may be equal
            codes = output["codes"][int(row)].as_py()[view * 16 : (view + 1) * 16]
            assert batch.codes[row].tolist() == codes
            seen.update((row, v) for v in same)
    assert len(seen) > 950
