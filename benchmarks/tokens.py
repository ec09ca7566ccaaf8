"""Speed of tokenizing texts and images, against the bare encoders on the same cores.

    python benchmarks/tokens.py [--documents 20000] [--images 48] [--cpus 2] [--smoke]

Texts: encoding and packing against ``SentencePieceProcessor.encode``, one thread each.
Images: one slice of ``image_tokens`` from committed JPEGs to committed Parquet (read, decode, crop,
encode, write) against the same encoder's forward over crops that lie in memory, with the same batch
size and threads. Contestants alternate; prints ratios of medians.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece as spm
import torch
from measuring import alternating, parse_options

from dataprep.images import encode_jpeg
from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import document, random_scene
from orchestration import Dataset, Output, Slice
from orchestration.manifest import MANIFEST, SCHEMA_VERSION, File, Manifest, columns_of
from orchestration.slice_commit import commit_slice
from orchestration.storage.store import Store
from pipelines.tokens.held_out import Split
from pipelines.tokens.image_tokens import CropParams, ViewTokenizer
from tokenizer.packing import pack
from tokenizer.text import TextTokenizer, train
from tokenizer.vqkd import VQKD, VQKDConfig

LENGTH = 128
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--cpus", type=int, default=2)
    options = parse_options(parser, documents=2000, images=2)
    rounds = 1 if options.smoke else ROUNDS
    size = {"image_size": 32, "width": 96, "depth": 1, "num_heads": 3} if options.smoke else {}
    config = VQKDConfig(teacher_dim=512, **size)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        texts(Path(folder), options.documents, rounds)
        images(Store(folder), options.images, options.cpus, config, rounds)


def texts(folder: Path, number: int, rounds: int) -> None:
    """Encode and pack documents."""
    rng = np.random.default_rng(0)
    documents = [document(random_scene(rng), rng) for _ in range(number)]
    path = folder / "spm.model"
    path.write_bytes(train(documents[:2000], vocab_size=170, character_coverage=0.9995))
    ours = TextTokenizer.load(path)
    raw = spm.SentencePieceProcessor(model_file=str(path))
    num_tokens = sum(map(len, raw.encode(documents)))
    alone, packed = alternating(
        rounds,
        lambda: raw.encode(documents, num_threads=1),
        lambda: pack(*ours.encode_flat(documents), LENGTH),
    )
    sys.stdout.write(
        f"texts: SentencePiece {num_tokens / alone / 1e6:.2f} M tokens/s, encode and pack "
        f"{num_tokens / packed / 1e6:.2f} M tokens/s: {alone / packed:.2f}x of SentencePiece\n"
    )


def images(store: Store, number: int, cpus: int, config: VQKDConfig, rounds: int) -> None:
    """Encode stored images; the default config has BEiT v2's size."""
    rng = np.random.default_rng(0)
    jpegs = [encode_jpeg(draw(random_scene(rng), 340, 256, rng), 92) for _ in range(number)]
    rows = pa.table({
        "sample_id": [f"p/{i}" for i in range(number)],
        "source": ["p"] * number,
        "label": [""] * number,
        "jpeg": jpegs,
        "captions": [[""]] * number,
        "sha256": [f"{i:x}" for i in range(number)],
        "held_out": pa.nulls(number, pa.bool_()),
        "group": pa.nulls(number, pa.string()),
    })  # fmt: skip
    stored = committed(store.sub("images"), rows, "data")
    row_numbers = pa.table({
        "dataset": [0] * number, "row": range(number), "captions": [[""]] * number,
    })  # fmt: skip
    kept = committed(store.sub("kept"), row_numbers, "data")
    folder = store.sub("tokenizer")
    network = VQKD(config)
    Path(folder.native_path()).mkdir()
    network.save(folder.native_path("vqkd.pt"))
    size = Path(folder.native_path("vqkd.pt")).stat().st_size
    tokenizer = with_manifest(folder, files=[File(path="vqkd.pt", bytes=size, sha256="")])
    params = CropParams(cpus_per_actor=cpus, flip=True)
    stage = ViewTokenizer(params, Split(params.held_out_fraction, 0), [], tokenizer, kept, [stored])
    slice_ = Slice("000000", {"start": 0, "stop": number})
    crops = torch.zeros(
        number * params.num_views, 3, config.image_size, config.image_size
    ).uniform_(-1, 1)
    batches = crops.split(params.batch_size)
    forward, whole = alternating(
        rounds,
        lambda: [stage.tokenizer.encode(batch) for batch in batches],
        lambda: commit_slice(store.sub("out"), slice_, stage(slice_), params.row_group_rows),
    )
    sys.stdout.write(
        f"images: forward alone {len(crops) / forward:.2f} views/s, read to write "
        f"{len(crops) / whole:.2f} views/s: {forward / whole:.2f}x of the forward\n"
    )


def committed(folder: Store, table: pa.Table, name: str, group_rows: int = 256) -> Dataset:
    """Commit one table."""
    output = Output(table.num_rows, {name: table})
    part = commit_slice(folder, Slice("000000", {}), output, group_rows)
    schema = pq.read_schema(folder.open(part.tables[name].path))
    return with_manifest(folder, parts=[part], columns={name: columns_of(schema)})


def with_manifest(folder: Store, **changes: object) -> Dataset:
    """Write the manifest that makes a folder a dataset."""
    values = {
        "schema_version": SCHEMA_VERSION, "stage": "s", "fingerprint": "f",
        "params": {}, "parents": {}, "parts": [], "columns": {}, "files": [], "rounds": [],
        "numbers": {},
    }  # fmt: skip
    folder.write_bytes(MANIFEST, Manifest.model_validate(values | changes).to_bytes())
    return Dataset.open(folder)


if __name__ == "__main__":
    main()
