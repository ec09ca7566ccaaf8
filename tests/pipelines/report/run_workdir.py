"""A workdir with the outputs of a pretraining, committed without running a stage."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from dataprep.images import encode_jpeg
from dataprep.schemas import reject, rejects_table
from orchestration import Output
from orchestration.fingerprint import fingerprint_of
from orchestration.plan import IDENTITY, RECORD, WORKFLOWS
from orchestration.reporting.attempts import write_attempt
from orchestration.reporting.usage import Usage, add_usage
from orchestration.storage.store import Store
from pipelines.pretrain.evaluation import shown
from pipelines.pretrain.evaluation.likelihood import SCHEMA as LIKELIHOOD
from pipelines.tokens import codebook_report, text_tokenizer
from pipelines.training.history import History
from tests.committing import commit_outputs
from tests.pipelines.report.test_learned import NUMBERS
from tokenizer.text import TextTokenizer, train

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"
RECIPE = {
    "name": f"own {HOSTILE}",
    "train": {"use_gpu": True, "num_workers": 4},
    "image_tokens": {"num_actors": 2, "gpus_per_actor": 0.5},
    "image_tokenizer": {"use_gpu": True, "num_workers": [1, 2]},
}
STAGES = (
    "download/own", "curate", "text_tokenizer", "image_tokenizer", "image_tokens", "pair_tokens",
    "pretrain", "evaluate", "export",
)  # fmt: skip
FINGERPRINT = "0123456789abcdef"
NUM_ROWS, NUM_STEPS, SECONDS = 12, 40, 1800.0
_WORDS = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30


def jpeg(shade: int) -> bytes:
    return encode_jpeg(np.full((16, 16, 3), shade, np.uint8), 90)


class RunWorkdir:
    """The outputs of the first ``complete`` stages of :data:`STAGES`."""

    def __init__(self, folder: Path, complete: int = len(STAGES)) -> None:
        self.store, self.spm = Store(folder), folder / "spm.model"
        folder.mkdir(parents=True, exist_ok=True)
        self.spm.write_bytes(train(_WORDS, vocab_size=25, character_coverage=1.0))
        self.text = TextTokenizer.load(self.spm)
        self.stages = dict.fromkeys(STAGES, FINGERPRINT)
        self.record = {"name": RECIPE["name"], "stages": self.stages, "started_at": 1.8e9,
                       "versions": {"python": "3.11.9", "torch": HOSTILE}}  # fmt: skip
        self.workflow = self.store.sub(f"{WORKFLOWS}/{fingerprint_of(self.stages)}")
        self.workflow.write_bytes(RECORD, json.dumps(self.record).encode())
        self.workflow.write_bytes("recipe.yaml", json.dumps(RECIPE).encode())
        for stage in STAGES[:complete]:
            add_usage(self.folder(stage), Usage(seconds=SECONDS, memory=1 << 30))
            self.folder(stage).write_bytes(IDENTITY, json.dumps({"version": 3}).encode())
            getattr(self, f"_{stage.partition('/')[0]}")(self.folder(stage))

    def folder(self, stage: str) -> Store:
        return self.store.sub(f"{stage}/{FINGERPRINT}")

    def _download(self, folder: Store) -> None:
        rows = pa.table({"sample_id": [f"own/{i}" for i in range(NUM_ROWS)]})
        bad = [reject(f"own/x{i}", "own", ("http_404", "dns")[i % 2], HOSTILE) for i in range(5)]
        output = Output(NUM_ROWS + 5, {"data": rows, "rejects": rejects_table(bad)})
        commit_outputs(folder, [output], params={"format": "csv"})

    def _curate(self, folder: Store) -> None:
        rows = pa.table({"sample_id": [f"own/{i}" for i in range(NUM_ROWS)]})
        commit_outputs(folder, [Output(NUM_ROWS, {"pairs": rows, "images": rows.slice(0, 0)})])

    def _text_tokenizer(self, folder: Store) -> None:
        report = {"num_vocab_rows": 37, "tokens_per_word/own": 1.5, "unknown_fraction/own": 0.01,
                  "character_coverage/own": 0.99}  # fmt: skip
        files = {
            text_tokenizer.MODEL_FILE: self.spm.read_bytes(),
            text_tokenizer.REPORT_FILE: json.dumps(report).encode(),
        }
        commit_outputs(folder, [], files=files)

    def _image_tokenizer(self, folder: Store) -> None:
        report = {"codebook_usage": 0.9, "codebook_perplexity": 12.5, "num_dead_codes": 2.0,
                  "codebook_usage/own": 0.8, "codebook_perplexity/own": 11.0,
                  "histogram": [0.5, 0.5]}  # fmt: skip
        _, png = cv2.imencode(".png", np.full((40, 30, 3), 200, np.uint8))
        files = {
            codebook_report.REPORT_FILE: json.dumps(report).encode(),
            codebook_report.MAPS_FILE: bytes(png),
        }
        commit_outputs(folder, [], files=files)

    def _images(self, number: int) -> pa.Table:
        ids = [f"own/{i}" for i in range(number)]
        return pa.table({"sample_id": ids, "jpeg": [jpeg(9 * i) for i in range(number)]})

    def _image_tokens(self, folder: Store) -> None:
        images = self._images(NUM_ROWS)
        output = Output(NUM_ROWS, {"train": images, "held_out": images.slice(0, 4)})
        commit_outputs(folder, [output])

    def _pair_tokens(self, folder: Store) -> None:
        ids = [[self.text.encode("a red circle")]] * 4
        captions = pa.array(ids, pa.list_(pa.list_(pa.uint16())))
        rows = self._images(4).append_column("captions", captions)
        commit_outputs(folder, [Output(NUM_ROWS, {"train": rows, "held_out": rows})])

    def _pretrain(self, folder: Store) -> None:
        history = History(folder, 1, NUM_STEPS)
        for step in range(1, NUM_STEPS + 1):
            found = {"loss/mlm": 4.0 / step, "accuracy/mlm": step / 100, "lr": 0.1, "skipped": 0.0}
            history.add({**found, "grad_norm": 1.0}, is_last=step == NUM_STEPS)
        checkpoint = Path(folder.native_path("checkpoint"))
        checkpoint.mkdir(parents=True)
        history.write(checkpoint)
        names = folder.names("history", ".parquet")
        files = {f"history/{name}": folder.read(f"history/{name}") for name in names}
        files["ray_train/step_00000040/network.json"] = b"{}"
        commit_outputs(folder, [], files=files, numbers={"num_steps": NUM_STEPS})

    def _evaluate(self, folder: Store) -> None:
        known = {"loss/mlm": 1.8, "num_targets/mlm": 800, "baseline_loss/mlm": 4.1,
                 "accuracy/mlm": 0.55, "baseline_accuracy/mlm": 0.1,
                 "loss/mlm/own": 1.8, "num_targets/mlm/own": 800, "baseline_loss/mlm/own": 4.1,
                 }  # fmt: skip
        for name in ("image_to_text", "text_to_image"):
            for k in (1, 5, 10):
                known[f"retrieval/likelihood/{name}/recall_at_{k}"] = k / 20
                known[f"retrieval/likelihood/chance/recall_at_{k}"] = k / 64
        known["retrieval/likelihood/num_pairs"] = 64
        numbers = {k: v for k, v in NUMBERS.items() if "tuned_heads" not in k} | known
        likelihood = [
            {"caption": i, "row": i, "scores": [-float(abs(i - j)) for j in range(4)]}
            for i in range(4)
        ]
        tables = {
            shown.IMAGES: pa.Table.from_pylist(_shown_images(), shown.IMAGES_SCHEMA),
            shown.WORDS: pa.Table.from_pylist(_shown_words(), shown.WORDS_SCHEMA),
            "likelihood": pa.Table.from_pylist(likelihood, LIKELIHOOD),
            "image_features": _features(),
        }
        outputs = [Output(table.num_rows, {name: table}) for name, table in tables.items()]
        commit_outputs(folder, outputs, numbers=numbers)

    def _export(self, folder: Store) -> None:
        commit_outputs(folder, [], files={"export/network.json": b"{}"})

    def fail(self, stage: str, error: str) -> None:
        """Record an attempt that failed."""
        write_attempt(self.folder(stage), "failed", error)


def _shown_images() -> list[dict]:
    one = {"sample_id": HOSTILE, "source": "own", "crop": jpeg(1), "masked": jpeg(2),
           "predicted": jpeg(3), "num_masked": 7, "attention": jpeg(4)}  # fmt: skip
    codes = {"target": jpeg(5), "num_correct": 3}
    return [one, one | codes, one | codes | {"caption": HOSTILE, "num_correct_other": 2}]


def _shown_words() -> list[dict]:
    best = [{"piece": HOSTILE, "probability": 0.75}, {"piece": "▁red", "probability": 0.125}]
    word = {"position": 1, "right": best, "other": best[1:], "none": [], "attention": jpeg(6)}
    return [
        {"sample_id": "own/1", "source": "own", "crop": jpeg(1), "other_id": HOSTILE,
         "other_crop": jpeg(2), "pieces": ["▁a", HOSTILE, "▁circle"],
         "words": [word, word | {"position": 2, "attention": None}]},
    ]  # fmt: skip


def _features() -> pa.Table:
    """Held-out image i looks like training image i + 1, which has its label."""
    vectors = np.eye(NUM_ROWS, dtype=np.float32)
    rows = [("train", i, vectors[i], f"class {i}") for i in range(NUM_ROWS)]
    rows += [("held_out", i, vectors[i + 1], f"class {i + 1}") for i in range(4)]
    tables, numbers, features, labels = zip(*rows, strict=True)
    flat = pa.array(np.concatenate(features))
    return pa.table(
        {
            "label": list(labels),
            "stream": ["image"] * len(rows),
            "table": list(tables),
            "row": pa.array(numbers, pa.int64()),
            "trained": pa.FixedSizeListArray.from_arrays(flat, NUM_ROWS),
        }
    )
