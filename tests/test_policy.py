"""Rules of the project that a reader could break without noticing."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "model", "tokenizer", "dataprep", "orchestration")
LONGEST_FILE = 300


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return listed.stdout.split()


def test_the_top_level_is_what_the_architecture_names():
    folders = {name.split("/")[0] for name in tracked() if "/" in name}
    assert folders <= {*ROOMS, "tests", "benchmarks", "docs", ".ci"}


def test_files_stay_short_and_have_names_that_say_their_job():
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in ROOMS:
            assert len((ROOT / name).read_text().splitlines()) <= LONGEST_FILE, name
            assert Path(name).stem not in ("utils", "helpers", "common", "misc"), name


def test_every_module_opens_with_what_it_is_for():
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in ROOMS:
            assert (ROOT / name).read_text().startswith('"""'), name


def test_links_in_the_documents_lead_somewhere():
    for name in tracked():
        if name.endswith(".md"):
            text = (ROOT / name).read_text()
            for target in re.findall(r"\]\(([^)#:]+)\)", text):
                assert (ROOT / name).parent.joinpath(target).exists(), (name, target)


def test_the_recipe_page_is_what_the_models_say():
    made = subprocess.run(
        [sys.executable, "docs/make_recipe_page.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert (ROOT / "docs/recipe.md").read_text() == made.stdout, "run `make docs`"
