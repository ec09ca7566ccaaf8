"""Open a recipe on a workdir: read it, check it, and draw the miniature web that it may use.

A recipe file may use ``${workdir}``, ``${miniweb}`` (the folder of the drawn files) and ``${data}``
(the folder of the source files, given by ``--data`` or ``BEIT3_DATA``).
"""

import copy
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from rich.console import Console

from dataprep.miniweb import corpora, server
from orchestration.errors import RecipeError
from orchestration.params import ExternalFile, external_files, full_path, is_uri
from orchestration.plan import PlannedStage
from orchestration.recipe import load_recipe
from orchestration.recipe_extends import merged, read_extended
from orchestration.storage import remote_files
from orchestration.storage.store import Store
from orchestration.workflow import Workflow
from pipelines.builtin_recipes import recipe_path, recipe_paths
from pipelines.finetune import start_source as finetune_source
from pipelines.pretrain import start_source as pretrain_source
from pipelines.pretrain.start_source import is_folder
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.kinds import AnyRecipe, build_workflow, recipe_type
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from pipelines.workflows.shrink import shrink as shrink_recipe
from pipelines.workflows.shrink_finetuning import TEMPLATES, shrink_finetuning

_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
STUDY_KEY: Final = "recipe"
"Key that a study has and no recipe: the recipe of its runs."
_KEYS_OF_STUDIES: Final = ("changes", "variants", "grid", "seeds", "metrics")
"Further keys that a study may have and no recipe has."
_TEMPLATE: Final = "all_sources"
"The built-in recipe that gives a shrunk recipe its sources and sizes."


@dataclass(frozen=True)
class Opened:
    """A recipe, its workflow and the workdir that it runs in."""

    recipe: AnyRecipe
    workflow: Workflow
    store: Store
    miniweb: Path
    "Folder of the miniature web, if the recipe has one."


def open_recipe(
    name: str,
    workdir: str,
    overrides: Sequence[str],
    console: Console,
    *,
    data: str | None = None,
    shrink: bool = False,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Opened:
    """Read and check a recipe; draw its miniature web, if it has one that is not drawn yet.

    Args:
        name: name of a built-in recipe, or path of a file.
        workdir: path or ``s3://`` URI of the workdir.
        overrides: values by dotted key, as in ``train.steps=50``.
        console: where progress is shown.
        data: value of ``${data}``; a path is made absolute.
        shrink: replace sources by drawn ones and sizes by tiny ones.
        changes: sections and keys that differ from the file, as those of a recipe that extends it.

    Raises:
        RecipeError: the recipe has an error, or a file that it names is missing.
        StoreError: the workdir is a file, lies in one, or cannot be read.
    """
    path = recipe_path(name)
    root = Store(workdir)
    if root.is_local:
        root.folders()  # raises where a file lies in its path, before anything is drawn there
    web = _miniweb_folder(root)
    schema = _recipe_type(path, changes)
    recipe: AnyRecipe = load_recipe(
        schema,
        path,
        known=recipe_paths(),
        variables=_variables(root, web, data),
        overlay=partial(_overlaid, shrink, changes) if shrink or changes else None,
        overrides=overrides,
    )
    _check_variables(path, recipe)
    recipe = _with_checkpoint(path, recipe, root)
    _check_files(path, recipe, web if recipe.miniweb else None)
    if recipe.miniweb:
        with console.status("drawing the miniature web"):
            try:
                corpora.build(web, recipe.miniweb.size())
            except OSError as error:
                raise RecipeError(
                    f"{web}: cannot draw the miniature web ({error.strerror})"
                ) from None
    return Opened(recipe, build_workflow(recipe), Store(root.uri, recipe.storage), web)


def _recipe_type(path: Path, changes: Mapping[str, Any]) -> type[AnyRecipe]:
    values, _ = read_extended(path, recipe_paths())
    if names_study(path, values):
        raise RecipeError(
            f"{path} is a study, as it has the key {STUDY_KEY}; run it by `beit3 sweep`, without "
            "--shrink"
        )
    return recipe_type(merged(values, changes))


def names_study(path: Path, values: Mapping[str, Any]) -> bool:
    """Return whether the values of a file are those of a study.

    Raises:
        RecipeError: they are those of a study that names no recipe.
    """
    if STUDY_KEY not in values and (keys := [key for key in _KEYS_OF_STUDIES if key in values]):
        raise RecipeError(
            f"{path}: only a study has {', '.join(keys)}, and this one lacks the key {STUDY_KEY}, "
            f"the recipe of its runs; write it as {STUDY_KEY}: base"
        )
    return STUDY_KEY in values


def _variables(workdir: Store, web: Path, data: str | None) -> dict[str, str]:
    variables = {"workdir": workdir.uri, "miniweb": str(web)}
    if data is not None:
        try:
            folder = full_path(data)
        except ValueError as error:
            raise RecipeError(f"--data, or BEIT3_DATA: {error}") from None
        variables["data"] = folder if is_uri(folder) else str(Path(folder).absolute())
    return variables


def _overlaid(
    is_shrunk: bool, changes: Mapping[str, Any], values: dict[str, Any]
) -> dict[str, Any]:
    changed = merged(values, copy.deepcopy(dict(changes)))  # overrides are set in place
    return _shrunk(changed) if is_shrunk else changed


def _shrunk(values: dict[str, Any]) -> dict[str, Any]:
    task = values.get("task")
    if "model" in values:
        raise RecipeError(
            "--shrink is for a training; make an evaluation smaller by --set evaluate.max_rows=100"
        )
    if task is None:
        return shrink_recipe(values, read_extended(recipe_path(_TEMPLATE))[0])
    name = task.get("name") if isinstance(task, Mapping) else None
    if name not in TEMPLATES:
        raise RecipeError(f"task.name is {name!r}; the tasks are {', '.join(TEMPLATES)}")
    return shrink_finetuning(values, read_extended(recipe_path(TEMPLATES[name]))[0])


def _with_checkpoint(path: Path, recipe: AnyRecipe, workdir: Store) -> AnyRecipe:
    """Return the recipe with the checkpoint that is the newest now in place of a workdir.

    A training that completes in that workdir while this one runs then changes nothing.

    Raises:
        RecipeError: the weights to start from are those of this workdir, whichever is the newest.
    """
    key, given = _given_weights(recipe)
    if given is None or not is_folder(given):
        return recipe
    try:
        opened = finetune_source if isinstance(recipe, FinetuneRecipe) else pretrain_source
        found = opened.open_folder(given).store.uri
    except RecipeError:
        return recipe  # reported with all other files
    if _same_place(Store(given), workdir):
        raise RecipeError(
            f"{path}: {key} is the workdir of this run, whose newest training would soon be this "
            f"one; name a checkpoint, such as {found}"
        )
    if not isinstance(recipe, PretrainRecipe):
        return recipe.model_copy(update={key: found})
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"start_from": found})}
    )


def _given_weights(recipe: AnyRecipe) -> tuple[str, str | None]:
    """Return the key of the weights that a recipe names, and their location."""
    if isinstance(recipe, PretrainRecipe):
        return "train.start_from", recipe.train.start_from
    if isinstance(recipe, EvaluationRecipe):
        return "model", recipe.model
    return "start_from", recipe.start_from


def _same_place(one: Store, other: Store) -> bool:
    if one.is_local and other.is_local:
        return Path(one.uri).resolve() == Path(other.uri).resolve()
    return one.uri == other.uri


def _check_variables(path: Path, recipe: AnyRecipe) -> None:
    """Raise RecipeError for the first ``${name}`` that has no value."""
    for key, value in _texts(recipe.model_dump(), ""):
        if found := _VARIABLE.search(value):
            if found[1] == "data":
                raise RecipeError(
                    f"{path}: {key} is {value}; give the folder with --data DIR or BEIT3_DATA"
                )
            known = ", ".join(f"${{{name}}}" for name in ("workdir", "miniweb", "data"))
            raise RecipeError(f"{path}: {key} is {value}; the known variables are {known}")


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield every string within ``value`` with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{key}.{i}")


def _check_files(path: Path, recipe: AnyRecipe, to_draw: Path | None) -> None:
    """Raise RecipeError that lists every file which cannot be read.

    Files below ``to_draw`` count as readable: they are drawn afterwards.
    """
    missing = [
        f"  {file.key}: {reason}"
        for file in external_files(recipe)
        if (reason := _why_unreadable(file, to_draw))
    ]
    if missing:
        raise RecipeError("\n".join([f"{path}: files are missing, nothing was run", *missing]))


def _why_unreadable(file: ExternalFile, to_draw: Path | None) -> str | None:
    """Return why a file cannot be read, or None."""
    if file.output is not None:
        try:
            file.output.digest(file.location)
        except RecipeError as error:
            return str(error)
        return None
    if not file.is_remote:
        path = Path(file.location)
        return None if path.exists() or to_draw in path.parents else file.location
    if not file.or_uri:
        return f"{file.location}: read in place, so it is given by path; download it"
    try:
        remote_files.check(file.location)
    except RecipeError as error:
        return str(error)
    return None


def _miniweb_folder(store: Store) -> Path:
    """Return a folder in the workdir, or for an object store a local one named by its URI."""
    if store.is_local:
        return Path(store.uri) / "miniweb"
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"beit3-miniweb-{name}"


@contextmanager
def miniweb_served(opened: Opened, todo: Sequence[PlannedStage]) -> Iterator[Workflow]:
    """Serve the miniature web if stages run that may download from it; yield their workflow."""
    recipe = opened.recipe
    if isinstance(recipe, FinetuneRecipe) or not (recipe.miniweb and recipe.download and todo):
        yield opened.workflow
        return
    with server.serving(opened.miniweb) as port:
        download = recipe.download.model_copy(
            update={
                "connect_to": {"*.miniweb.test": f"127.0.0.1:{port}"},
                "allow_private_addresses": True,
            }
        )
        yield build_workflow(recipe.model_copy(update={"download": download}))
