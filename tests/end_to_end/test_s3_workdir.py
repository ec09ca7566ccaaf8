"""A workflow with a training runs in a workdir on S3 that only the environment leads to."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import boto3
import pytest

from tests.s3 import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_a_training_runs_on_s3_with_the_endpoint_of_a_profile(s3_endpoint, tmp_path: Path):
    prefix = uuid.uuid4().hex
    (tmp_path / "config").write_text(
        f"[profile trainer]\nregion = us-east-1\nendpoint_url = {s3_endpoint}\n"
        "aws_access_key_id = AKIATRAINER\naws_secret_access_key = hidden-secret\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environment |= {"AWS_PROFILE": "trainer", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    settings = [
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        *("image_tokenizer.steps=6", "image_tokenizer.warmup_steps=2"),
        "image_tokenizer.min_usage=0",
        *("miniweb.num_cc3m=60", "miniweb.num_cc12m=60", "miniweb.num_images_per_class=8"),
    ]
    command = [sys.executable, "-m", "pipelines.cli", "run", "tiny", "--until", "image_tokenizer"]
    command += ["--workdir", f"s3://{BUCKET}/{prefix}"]
    command += [argument for setting in settings for argument in ("--set", setting)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ image_tokenizer: 6 steps" in done.stdout
    objects = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    pages = objects.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    found = {item["Key"]: item["Size"] for page in pages for item in page["Contents"]}
    assert any(key.endswith("ray_train/step_00000006/history.json") for key in found)
    artifact, page = sorted(key for key in found if key.endswith("/run_report.html"))
    assert "/mlflow-artifacts/" in artifact and found[artifact] == found[page]
    assert f"run report  s3://{BUCKET}/{page}" in done.stdout
    assert [key for key in found if key.endswith("/")] == []  # a prefix has no object of its own
    for key in (key for key in found if key.endswith((".json", ".yaml", ".log"))):
        body = objects.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert b"hidden-secret" not in body and b"AKIATRAINER" not in body, key
