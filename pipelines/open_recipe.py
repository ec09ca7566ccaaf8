"""Opening a recipe on a workdir: read, check, and the miniature web that it may stand on."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dataprep.miniweb import corpora, server
from orchestration.errors import RecipeError
from orchestration.params import ExternalFile, external_files
from orchestration.plan import PlannedStage
from orchestration.recipe import load_recipe
from orchestration.storage import remote_files
from orchestration.storage.store import Store
from orchestration.workflow import Workflow
from pipelines.workflows.pretrain import build_workflow
from pipelines.workflows.pretrain_recipe import PretrainRecipe


@dataclass(frozen=True)
class Opened:
    """A recipe, its workflow and the workdir that it runs in."""

    recipe: PretrainRecipe
    workflow: Workflow
    store: Store
    miniweb: Path
    "Folder of the miniature web, if the recipe has one."


def open_recipe(path: Path, workdir: str, overrides: Sequence[str], console: Console) -> Opened:
    """Read and check a recipe; draw its miniature web, if it has one, where it is not there yet.

    Raises:
        RecipeError: something is wrong with the recipe, or files it names are missing.
    """
    root = Store(workdir)
    web = _miniweb_folder(root)
    variables = {"workdir": root.uri, "miniweb": str(web)}
    recipe = load_recipe(PretrainRecipe, path, variables=variables, overrides=overrides)
    to_draw = web if recipe.miniweb else None
    missing = [
        f"  {file.key}: {reason}"
        for file in external_files(recipe)
        if (reason := _lacking(file, to_draw))
    ]
    if missing:
        raise RecipeError("\n".join([f"{path}: files are missing, nothing was run", *missing]))
    if recipe.miniweb:
        with console.status("drawing the miniature web"):
            corpora.build(web, recipe.miniweb.size())
    return Opened(recipe, build_workflow(recipe), Store(root.uri, recipe.storage), web)


def _lacking(file: ExternalFile, to_draw: Path | None) -> str | None:
    """Say why a file cannot be read, or None; what lies in ``to_draw`` will be there."""
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
    """In the workdir; beside an object store, in a folder of this machine that its URI names."""
    if store.is_local:
        return Path(store.uri) / "miniweb"
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"beit3-miniweb-{name}"


@contextmanager
def miniweb_served(opened: Opened, todo: Sequence[PlannedStage]) -> Iterator[Workflow]:
    """Serve the miniature web while stages download from it; give the workflow that does."""
    recipe = opened.recipe
    if not recipe.miniweb or not any(p.stage.name.startswith("download/") for p in todo):
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
