"""The whole workflow through the command line: ground truth, kills of the driver, and reruns.

One workdir is run without interruption; the driver of another is killed three times with SIGKILL
and continued. The tests of single stages cover bad input.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from model import BEiT3, BEiT3Config
from model.network.interop import from_official
from model.network.loading import load
from orchestration import Dataset
from orchestration.checkpoint_files import newest_whole
from orchestration.errors import StoreError
from orchestration.fingerprint import fingerprint_of
from orchestration.plan import latest_record
from orchestration.storage.store import Store
from pipelines.open_recipe import open_recipe
from pipelines.pretrain.check_export import check_export
from tokenizer import VQKD, TextTokenizer

pytestmark = pytest.mark.slow

RECIPE = "tiny"
SMALL = [
    "miniweb={num_cc3m: 180, num_cc12m: 150, num_classes: 4, num_images_per_class: 35, "
    "num_documents: 300}",
    "download.slice_rows=24",
    "text_tokenizer.vocab_size=150",
    "text_tokens.row_group_rows=32",
    "image_tokens.row_group_rows=16",
    "pair_tokens.row_group_rows=16",
    "image_tokenizer.steps=24",
    "image_tokenizer.checkpoint_every=12",
    "image_tokenizer.min_usage=0.05",
    "train.steps=40",
    "train.warmup_steps=20",
    "train.checkpoint_every=5",
    "train.texts_per_step=16",
]
TIMEOUT_S = 1200


def command(workdir: Path, *more: str, verb: str = "run") -> list[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return [
        sys.executable, "-m", "pipelines.cli", verb, str(RECIPE), "--workdir", str(workdir),
        *settings, *more,
    ]  # fmt: skip


def run(workdir: Path, *more: str, verb: str = "run") -> str:
    done = subprocess.run(
        command(workdir, *more, verb=verb), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_and_kill(workdir: Path, when: Callable[[], bool]) -> None:
    """Start a run and send the driver SIGKILL as soon as ``when`` holds."""
    log = (workdir.parent / f"{workdir.name}.log").open("w")
    with log, subprocess.Popen(command(workdir), stdout=log, stderr=log) as process:
        deadline = time.monotonic() + TIMEOUT_S
        while not when():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)


def folder(workdir: Path, stage: str) -> Store:
    record = latest_record(Store(workdir))
    return Store(workdir / stage / record["stages"][stage])


def rows(workdir: Path, stage: str, table: str = "data") -> pa.Table:
    return Dataset.open(folder(workdir, stage)).table(table).read()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "work"
    output = run(workdir)
    for word in (
        "stages", "learned", "MLM", "MIM", "MVLM",
        "data report", "checkpoint", "export", "beit3 ui", "run report",
    ):  # fmt: skip
        assert word in output
    return workdir


@pytest.mark.parametrize("source", ["cc3m", "cc12m", "imagenet21k"])
def test_every_row_ends_as_the_miniature_web_s_truth_says(undisturbed, source):
    truth = [
        row
        for row in pq.read_table(undisturbed / "miniweb" / "truth.parquet").to_pylist()
        if row["source"] == source
    ]
    stages = [f"index/{source}", f"download/{source}"]
    if source == "imagenet21k":
        stages = [f"import/{source}"]
    images = {row["sample_id"]: row for row in rows(undisturbed, stages[-1]).to_pylist()}
    rejects = [
        (row["sample_id"], row["reason"])
        for stage in stages
        for row in rows(undisturbed, stage, "rejects").to_pylist()
    ]
    assert set(images) == {row["sample_id"] for row in truth if row["outcome"] == "ok"}
    assert sorted(rejects) == sorted(
        (row["sample_id"], row["outcome"]) for row in truth if row["outcome"] != "ok"
    )
    assert len({reason for _, reason in rejects}) >= (1 if source == "imagenet21k" else 10)
    for row in truth:
        if row["outcome"] == "ok" and not row["placeholder"]:
            image = images[row["sample_id"]]
            assert (image["original_width"], image["original_height"]) == (
                row["width"],
                row["height"],
            )
            assert min(image["width"], image["height"]) == 96


def test_the_data_report_counts_what_the_truth_says(undisturbed):
    truth = pq.read_table(undisturbed / "miniweb" / "truth.parquet").to_pylist()
    report = json.loads(folder(undisturbed, "data_report").read("data_report.json"))
    for source in report["sources"][:3]:
        mine = [row for row in truth if row["source"] == source["name"]]
        expected = Counter("stored" if r["outcome"] == "ok" else r["outcome"] for r in mine)
        assert {o["reason"]: o["rows"] for o in source["outcomes"]} == expected
        assert source["rows"] == len(mine)
    drops = sum(row["drops"]["placeholder"] for row in report["curation"] if row["drops"])
    assert drops == sum(row["placeholder"] for row in truth)


def test_the_run_report_shows_every_part_and_is_an_artifact_of_the_workflow_s_run(undisturbed):
    record = latest_record(Store(undisturbed))
    page = undisturbed / "workflows" / fingerprint_of(record["stages"]) / "run_report.html"
    html = page.read_text()
    for section in ("stages", "data", "tokenizers", "training-1", "training-2", "evaluation",
                    "patches", "words", "neighbors", "recipe"):  # fmt: skip
        assert f'<h2 id="{section}">' in html, section
    for words in ("throughput", "waiting for data", "Images of a caption by likelihood"):
        assert words in html, words
    assert f"{len(record['stages'])} of {len(record['stages'])} stages are complete" in html
    assert len(html) < 3_000_000
    (artifact,) = (undisturbed / "mlflow-artifacts").rglob("run_report.html")
    assert artifact.read_text() == html


def test_curation_drops_the_placeholders_and_nothing_else(undisturbed):
    truth = pq.read_table(undisturbed / "miniweb" / "truth.parquet").to_pylist()
    placeholders = {row["sample_id"] for row in truth if row["placeholder"]}
    assert placeholders
    assert set(rows(undisturbed, "curate", "rejects")["sample_id"].to_pylist()) == placeholders
    kept = {row["sample_id"] for row in truth if row["outcome"] == "ok"} - placeholders
    tables = (rows(undisturbed, "curate", name) for name in ("pairs", "images"))
    assert {i for table in tables for i in table["sample_id"].to_pylist()} == kept


def test_token_datasets_are_split_into_training_and_held_out_rows(undisturbed):
    for stage, kind in (("pair_tokens", "pairs"), ("image_tokens", "images")):
        parts = [
            set(rows(undisturbed, stage, t)["sample_id"].to_pylist()) for t in ("train", "held_out")
        ]
        assert parts[0] and parts[1] and not parts[0] & parts[1]
        assert parts[0] | parts[1] == set(
            rows(undisturbed, "curate", kind)["sample_id"].to_pylist()
        )


def test_the_export_is_readable_by_its_readers(undisturbed):
    export = Path(folder(undisturbed, "export").native_path("export"))
    config = BEiT3Config.from_json((export / "network.json").read_text())
    network = BEiT3(config)
    network.load_state_dict(load_file(export / "model.safetensors"))
    official = torch.load(export / "torchscale.pt", weights_only=True)["model"]
    assert "beit3.encoder.layers.0.self_attn.q_proj.A.weight" in official
    assert any("fusion" in name for name in network.state_dict())
    decoupled = BEiT3(replace(config, attention="decoupled", fusion_layers=0))
    load(decoupled, from_official(official))
    theirs = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        num_classes=0,
        global_pool="token",
        scale_attn_norm=True,
        scale_mlp_norm=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-5),
    ).eval()
    theirs.load_state_dict(load_file(export / "timm" / "model.safetensors"))
    images = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        features = network.eval()(images=images).hidden
        for other in (decoupled.eval()(images=images).hidden, theirs.forward_features(images)):
            torch.testing.assert_close(features, other, atol=1e-4, rtol=1e-4)
    text = TextTokenizer.load(export / "sentencepiece.bpe.model")
    assert config.vocab_size == text.num_rows
    codes = VQKD.load(export / "vqkd.pt").encode(torch.zeros(1, 3, 64, 64))
    assert codes.shape == (1, config.num_patches)
    assert [finding.details for finding in check_export(export) if not finding.ok] == []


def table_rows(output: str) -> list[list[str]]:
    """The rows of a printed table, with the lines of a folded cell joined without spaces."""
    found: list[list[str]] = []
    for line in output.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            if cells[0]:
                found.append(cells)
            else:
                found[-1] = [a + b for a, b in zip(found[-1], cells, strict=True)]
    return found


@pytest.mark.parametrize("kind", ["index", "download"])
def test_the_rejects_of_a_stage_are_shown_with_their_lines_in_the_list(undisturbed, kind):
    rejects = rows(undisturbed, f"{kind}/cc3m", "rejects").to_pylist()
    shown = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "rejects", f"{kind}/cc3m", "--limit", "100",
         "--workdir", str(undisturbed)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.startswith(f"{kind}/cc3m: {len(rejects)} rejects (")
    table, path = table_rows(shown), undisturbed / "miniweb" / "cc3m.tsv"
    assert len(table) == len(rejects) > 0
    lines = path.read_text().splitlines()
    for (name, where, reason, _), reject in zip(table, rejects, strict=True):
        assert (name, reason) == (reject["sample_id"], reject["reason"])
        file, _, number = where.rpartition(":")
        columns = lines[int(number) - 1].split("\t")
        assert file == str(path)
        assert len(columns) != 2 if kind == "index" else columns[1] == reject["url"]


def test_a_recipe_that_cannot_be_completed_is_refused_before_anything_starts(undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    done = subprocess.run(
        command(
            undisturbed, "--set", "train.substreams=16",
            "--set", "train.images_per_step=16", "--set", "train.pairs_per_step=48",
        ),
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 1 and "started" not in done.stdout
    said = " ".join(done.stderr.split())
    assert "the workflow cannot be completed" in said and "Traceback" not in said
    assert "train.substreams = 16 needs as many row groups, but the image stream has" in said
    assert "set image_tokens.row_group_rows=" in said
    after = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert after == before


def test_the_same_command_again_does_nothing(undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    output = run(undisturbed)
    assert "started" not in output and "stale" not in output and "missing" not in output
    after = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert after == before


def test_each_stage_gives_the_output_recorded_for_its_version(undisturbed, check_stage_outputs):
    opened = open_recipe(RECIPE, str(undisturbed), SMALL, Console(quiet=True))
    check_stage_outputs(RECIPE, undisturbed, opened.workflow.stages)


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("retrieval", "mean_recall"),
        # tests/crashes/test_finetuning.py always fine-tunes for classes.
        pytest.param("imagenet", "score", marks=pytest.mark.exhaustive),
        pytest.param("captioning", "own_tokens/cider", marks=pytest.mark.exhaustive),
    ],
)
def test_the_network_is_fine_tuned_for_a_task(undisturbed, tmp_path, task, metric):
    workdir = tmp_path / task
    settings = [f"start_from={undisturbed}", "miniweb.num_flickr30k=80",
                "miniweb.num_coco_retrieval=80",
                "miniweb.num_images_per_imagenet1k_class=4", "finetune.steps=4"]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    arguments = [f"finetune/tiny-{task}", "--workdir", str(workdir), "--shrink", *words]
    beit3 = [sys.executable, "-m", "pipelines.cli"]
    done = subprocess.run([*beit3, "run", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads(folder(workdir, "score").read("score.json"))
    assert 0 <= numbers[f"test/{metric}"] <= (10 if "cider" in metric else 1)
    compared = subprocess.run([*beit3, "compare", str(workdir)], capture_output=True, text=True)
    assert f"{numbers[f'test/{metric}']:.4f}" in compared.stdout
    changed = [*arguments, "--set", "finetune.lr=1e-5"]
    plan = subprocess.run([*beit3, "plan", *changed], capture_output=True, text=True).stdout
    fresh = {line.split("│")[1].strip() for line in plan.splitlines() if " fresh " in line}
    assert {"start", "prepare/train", "prepare/test", "labels"} <= fresh
    assert not fresh & {"finetune", "predict/test", "score", "export"}


def test_a_run_killed_in_each_kind_of_stage_ends_the_same(undisturbed, tmp_path):
    workdir = tmp_path / "work"

    def parts() -> dict[str, int]:
        found = workdir.glob("download/cc3m/*/parts/*.json")
        return {path.name: path.stat().st_mtime_ns for path in found}

    run_and_kill(workdir, lambda: len(parts()) >= 2)
    manifests = list(workdir.glob("download/cc3m/*/manifest.json"))
    committed = parts()
    assert not manifests and 2 <= len(committed) < 8

    def first_checkpoint(stage: str) -> bool:
        with suppress(StoreError):  # the run removes old ones meanwhile
            found = (newest_whole(Store(each), read=False) for each in workdir.glob(f"{stage}/*"))
            return any(each is not None for each in found)
        return False

    run_and_kill(workdir, lambda: first_checkpoint("image_tokenizer"))
    assert not list(workdir.glob("image_tokenizer/*/manifest.json"))
    run_and_kill(workdir, lambda: first_checkpoint("pretrain"))
    assert committed.items() <= parts().items()  # what was committed was not done again
    assert not list(workdir.glob("pretrain/*/manifest.json"))
    assert "interrupted" in run(workdir, verb="plan")
    status = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "status", "--workdir", str(workdir)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "interrupted" in status.stdout

    output = run(workdir)
    assert "✓ pretrain" in output and "✓ pair_tokens" not in output

    mine = load_file(Path(folder(workdir, "export").native_path("export")) / "model.safetensors")
    theirs = load_file(
        Path(folder(undisturbed, "export").native_path("export")) / "model.safetensors"
    )
    assert mine.keys() == theirs.keys()
    unequal = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert unequal == []
    codebooks = [
        VQKD.load(folder(each, "image_tokenizer").native_path("vqkd.pt")).state_dict()
        for each in (workdir, undisturbed)
    ]
    assert all(torch.equal(codebooks[0][name], codebooks[1][name]) for name in codebooks[0])
    for stage in ("download/cc3m", "pair_tokens", "text_tokens", "image_tokens"):
        assert folder(workdir, stage).read("manifest.json") == folder(undisturbed, stage).read(
            "manifest.json"
        )


@pytest.fixture(scope="module")
def changed(undisturbed) -> dict[str, Any]:
    """The plan and the run of a changed parameter on two workers, and the pretrainings."""
    settings = ("train.steps=41", "train.num_workers=2", "train.cpus_per_worker=1")
    change = [word for setting in settings for word in ("--set", setting)]
    before = folder(undisturbed, "pretrain")
    plan = run(undisturbed, *change, verb="plan")
    output = run(undisturbed, *change)
    after = folder(undisturbed, "pretrain")
    return {"plan": plan, "output": output, "pretrain": (before, after)}


def test_a_changed_training_parameter_reruns_training_and_what_follows(changed):
    lines = changed["plan"].splitlines()
    stale = [line.split("│")[1].strip() for line in lines if " stale " in line]
    assert stale == ["pretrain", "evaluate", "export"]
    assert "steps: 40 → 41" in changed["plan"]
    lines = changed["output"].splitlines()
    done = [line.split()[1].rstrip(":") for line in lines if line.startswith("✓")]
    assert done == stale


def test_two_workers_give_the_loss_curve_of_one(changed):
    """During the warm-up of 20 steps, the learning rate does not depend on their number."""
    curves = []
    for stage, num_steps in zip(changed["pretrain"], (40, 41), strict=True):
        history = pq.read_table(stage.native_path("history"))
        assert history["step"].to_pylist() == list(range(1, num_steps + 1))
        names = [f"loss/{name}" for name in ("mlm", "mim", "mvlm_text", "mvlm_image")]
        curves.append([history[name].to_numpy()[:20] for name in names])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
