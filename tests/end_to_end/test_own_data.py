"""``docs/own-data.md`` word by word: its recipes, its layouts, its trial and its Python lines."""

import csv
import random
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pydantic import TypeAdapter

from dataprep.sources import webdataset
from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.commands import run as commands
from pipelines.commands.options import console
from pipelines.ingest.sources.registry import AnySource
from pipelines.tokens import image_tokenizer

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COLORS = {"red": "#d03020", "green": "#28a03c", "blue": "#2848c8", "yellow": "#ebd232"}
WORDS = random.Random(0).choices([a + b + c for a in "bdgklmnprst" for b in "aeiou"
                                  for c in ("lin", "ro", "sk", "tan", "ve")], k=260)  # fmt: skip


def recipe(folder: Path, name: str) -> str:
    (block,) = [block for block in BLOCKS if block.startswith(f"name: {name}\n")]
    path = folder / f"{name}.yaml"
    path.write_text(block)
    return str(path)


def write_list(folder: Path, number: int) -> None:
    """Write ``pairs.csv`` as the page shows it; every fifth row is held out."""
    draw = random.Random(0)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption", "split"])
        for i in range(number):
            name = f"images/{i:05d}.{'png' if i % 3 else 'jpg'}"
            words = " ".join(draw.choices(WORDS, k=6))
            writer.writerow([name, f"a {words}, and more", "train" if i % 5 else "test"])


def draw_images(folder: Path) -> None:
    (folder / "images").mkdir()
    draw = random.Random(1)
    with (folder / "pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            noise = np.random.default_rng(draw.randrange(1 << 30)).integers(0, 99, (110, 150, 3))
            image = Image.fromarray(noise.astype(np.uint8)).resize((150, 110))
            pen = ImageDraw.Draw(image)
            for _ in range(4):
                x, y, size = draw.randrange(110), draw.randrange(80), draw.randrange(20, 60)
                shape = draw.choice((pen.ellipse, pen.rectangle))
                shape((x, y, x + size, y + size), fill=draw.choice(list(COLORS.values())))
            image.save(folder / row["file"])


def test_the_recipe_of_the_page_can_be_planned_for_its_few_thousand_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(image_tokenizer, "unreachable", lambda teacher: None)
    write_list(tmp_path, 3000)
    with console.capture() as said:
        commands.plan(recipe(tmp_path, "own"), str(tmp_path / "work"), data=str(tmp_path), set_=())
    lines = [line for line in said.get().splitlines() if line.startswith("settings: ")]
    settings = "\n".join(lines)
    assert "170 epochs" in settings or "171 epochs" in settings
    assert "pair_tokens.num_views = " in settings and "with" not in settings  # enough views
    assert "image_tokenizer.steps = 4000" in settings
    assert "sources.own.split_column = split says which pairs are held out" in settings
    assert not (tmp_path / "work").exists()


def test_every_entry_of_the_table_of_layouts_is_a_source():
    entries = re.findall(r"`(\{format: .*?\})`", PAGE)
    assert len(entries) == 6
    for entry in entries:
        TypeAdapter(AnySource).validate_python(yaml.safe_load(entry))


def test_the_page_names_the_files_that_tars_may_hold_and_every_ending_of_a_tar():
    images = set(re.findall(r"`\.(\w+)`", PAGE[PAGE.index("Image files end in") :][:300]))
    assert {"jpg", "png", "webp", "avif"} <= images - {"tar"} <= webdataset._IMAGES | {"tgz"}
    for pattern in webdataset.PATTERNS:
        assert f"`{pattern.removeprefix('*')}`" in PAGE


def test_a_sample_with_two_texts_is_one_pair_with_two_captions(tmp_path):
    for name, text in (("12.jpg", "x"), ("12.txt", "one"), ("12.en.txt", "two"), ("12.json", "{}")):
        (tmp_path / name).write_text(text)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("12.jpg", "12.txt", "12.en.txt", "12.json"):
            tar.add(tmp_path / name, f"000/{name}")
    (sample,) = webdataset.read_tar(tmp_path / "a.tar")
    assert (sample.name, sample.captions) == ("000/12", ["one", "two"])


@pytest.mark.exhaustive
def test_the_trial_of_the_page_runs_to_an_export_that_its_python_lines_read(tmp_path, capsys):
    write_list(tmp_path, 400)
    draw_images(tmp_path)
    workdir = tmp_path / "trial"
    commands.run(recipe(tmp_path, "trial"), str(workdir), data=str(tmp_path), set_=())
    said = capsys.readouterr().out
    assert said.count("✓") == 12 and "✗" not in said

    def output(stage: str, table: str = "data") -> Dataset:
        (folder,) = (workdir / stage).iterdir()
        return Dataset.open(Store(folder), table)

    assert output("download/own").num_rows == 400
    names = {"train": {i for i in range(400) if i % 5}, "held_out": set(range(0, 400, 5))}
    for table, expected in names.items():
        ids = output("pair_tokens", table).read(columns=["sample_id"])["sample_id"].to_pylist()
        lines = {int(name.rpartition("/")[2]) - 2 for name in ids}  # line 1 is the header
        assert lines <= expected and len(lines) > 0.9 * len(expected)
    assert output("evaluate").manifest.numbers["num_targets/mvlm_text"] > 100
    (export,) = (workdir / "export").glob("*/export")
    assert {"model.safetensors", "README.md", "timm", "vqkd.pt"} <= {
        p.name for p in export.iterdir()
    }
    (lines,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    image = tmp_path / "images" / "00000.jpg"
    lines = lines.replace('"work"', repr(str(workdir))).replace("image.jpg", str(image))
    values: dict = {}
    exec(lines, values)
    assert values["features"].shape == (1, 96) and len(values["words"][0][0]) == 5
    assert values["of_both"].shape[1] == 1 + 64 + len(values["ids"][0])
    report = (workdir / "data_report").glob("*/data_report.html")
    assert "Held out" in next(report).read_text()
