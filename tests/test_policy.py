"""Rules of the project that a reader could break without noticing."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer.main

from pipelines.builtin_recipes import SUFFIXES, builtin_recipes
from pipelines.cli import app

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


def test_the_docstring_of_each_folder_names_all_that_lives_there():
    for name in tracked():
        if not name.endswith("/__init__.py") or name.split("/")[0] not in ROOMS:
            continue
        folder = (ROOT / name).parent
        said = ast.get_docstring(ast.parse((ROOT / name).read_text())) or ""
        parts = {path.stem for path in folder.glob("*.py") if path.name != "__init__.py"}
        parts |= {path.parent.name for path in folder.glob("*/__init__.py")}
        missing = {part for part in parts if not re.search(rf"\b{re.escape(part)}\b", said)}
        assert not missing, f"{name} does not name {sorted(missing)}"


def test_no_module_prints():
    """What a person reads goes through rich's console; what a log keeps goes through logging."""
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in ROOMS:
            calls = (
                n for n in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(n, ast.Call)
            )
            assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), (
                name
            )


def test_links_in_the_documents_lead_to_files_and_headings():
    for name in tracked():
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
                if "://" in target:
                    continue
                path, _, heading = target.partition("#")
                file = (ROOT / name).parent / path if path else ROOT / name
                assert file.exists(), (name, target)
                assert not heading or heading in headings(file.read_text()), (name, target)


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def commands_in_documents() -> Iterator[tuple[str, str]]:
    """Each ``beit3`` command of the pages and of the help texts, with the file it stands in."""
    for name in tracked():
        text = (ROOT / name).read_text() if name.endswith((".md", ".py")) else ""
        if name.endswith(".md"):
            blocks = re.findall(
                r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL
            )
            lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
            spans = re.findall(
                r"(?<!`)`(beit3[^`]*)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
            )
            yield from ((name, line) for line in (*lines, *spans) if line.startswith("beit3 "))
        elif name.startswith("pipelines/commands/"):
            yield from ((name, line) for line in re.findall(r"Example: (beit3 .*)", text))


def test_commands_in_documents_and_help_exist_with_their_options():
    found = list(commands_in_documents())
    assert len(found) > 15
    for name, line in found:
        check_command(name, line)


def check_command(name: str, line: str) -> None:
    """Follow a command line through typer's commands; every option must be one of the last's."""
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "…"]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, (name, line)
        command = command.commands[words.pop(0)]
    options = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts) if o[0] == "-"}
    options["--help"] = None
    positional = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            positional.append(word)
            continue
        assert word in options, (name, line, word)
        if options[word] is not None and not options[word].is_flag and words:
            words.pop(0)
    if command.name in ("run", "plan") and positional:
        assert positional[0] in builtin_recipes() or positional[0].endswith(SUFFIXES), (name, line)


def test_the_recipe_page_is_what_the_models_say():
    made = subprocess.run(
        [sys.executable, "docs/make_recipe_page.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert (ROOT / "docs/recipe.md").read_text() == made.stdout, "run `make docs`"
