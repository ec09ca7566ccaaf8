"""Committed scores and evaluations, read from identities, manifests and recipes."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestration.manifest import MANIFEST, Manifest, read_manifest
from orchestration.plan import IDENTITY, recipe_path, records_of
from orchestration.recipe_text import parse_recipe
from orchestration.storage.store import Store
from pipelines.training.history import points_so_far
from pipelines.training.points import Points

SCORE: Final = "score"
EVALUATE: Final = "evaluate"
STAGES: Final = (SCORE, EVALUATE)
"Stages whose numbers are compared."
FRESH: Final = "fresh weights"
_STARTED_BY: Final = {SCORE: "start", EVALUATE: "pretrain"}
"Stage whose parameters say what the weights start from."
_START_KEYS: Final = ("start_from", "fresh_weights")
_MODEL: Final = f"{EVALUATE}.model"  # the weights that an evaluation alone measures
_DIGEST: Final = "sha256:"
_DIGEST_LENGTH: Final = 8
SECTIONS: Final = {"start": "network", "pretrain": "train"}
"Section of a recipe that holds the parameters of a stage, where its name is another one."
_GIVEN: Final = {
    "image_tokenizer": ("weights", "image_size", "patch_size"),
    "text_tokenizer": ("model",),
}
"Of a tokenizer that is not trained: the parameter that names its file, and those that still count."
_TRAINED_BY: Final = {SCORE: "finetune", EVALUATE: "pretrain"}
"Stage that trains what is measured."
_MAX_CURVE_POINTS: Final = 100


@dataclass(frozen=True)
class Result:
    """The committed output of a stage ``score`` or ``evaluate``."""

    stage: str
    fingerprint: str
    workdir: str
    task: str
    "Name of the task, or ``pretraining``."
    start: str
    "Location and digest of the weights that the training started from, or that they are fresh."
    settings: Mapping[str, str]
    "Parameters of it and of all stages before it, by their keys in a recipe, without seeds."
    seed: int | None
    "Seed of the training, or of what measured weights that were not trained here."
    numbers: Mapping[str, float]
    training: str | None = None
    "Path of the training's folder in the workdir."


def read_results(workdir: Store) -> list[Result]:
    """Return the committed scores and evaluations of a workdir, in the order of their folders.

    Raises:
        ManifestError: a manifest is damaged.
        StoreError: the store cannot be read.
    """
    locations = _start_locations(workdir)
    return [
        _result(workdir, stage, name, locations)
        for stage in STAGES
        for name in workdir.folders(stage)
        if workdir.exists(f"{stage}/{name}/{MANIFEST}")
    ]


def learning_curves(workdir: Store, result: Result, tell: Callable[[str], None]) -> Points:
    """Return the history of the training behind a result, as means over ranges of steps.

    Args:
        workdir: workdir of the result.
        result: the result; nothing is returned if nothing was trained for it.
        tell: receives a line for each part of the history that is lost, which is left out.

    Raises:
        ManifestError: the manifest of the training is damaged.
    """
    if result.training is None:
        return {}
    folder = workdir.sub(result.training)
    if not folder.exists(MANIFEST):
        tell(f"the curve of a run is left out: {folder.uri} is gone")
        return {}
    return points_so_far(folder, _MAX_CURVE_POINTS, tell)[0]


def _start_locations(workdir: Store) -> dict[tuple[str, str], str]:
    """Return ``start_from`` of the workflows' recipes, by the stage that it belongs to.

    An identity has the digest of the weights and not their location.
    """
    found: dict[tuple[str, str], str] = {}
    for record in records_of(workdir):
        path = recipe_path(record["stages"])
        if not workdir.exists(path):
            continue
        recipe, _ = parse_recipe(workdir.read(path), workdir.uri_of(path))
        given = recipe.get("start_from") or recipe.get("train", {}).get("start_from")
        if model := recipe.get("model"):
            found[EVALUATE, record["stages"][EVALUATE]] = str(model)
        if given:
            found |= {
                (stage, record["stages"][stage]): str(given)
                for stage in _STARTED_BY.values()
                if stage in record["stages"]
            }
    return found


def _result(
    workdir: Store, stage: str, fingerprint: str, locations: Mapping[tuple[str, str], str]
) -> Result:
    folder = workdir.sub(f"{stage}/{fingerprint}")
    manifest = read_manifest(folder)
    before = list(_before(workdir, manifest, set()))
    identities = {stage: _identity(folder)} | {name: identity for name, _, identity in before}
    made = [(stage, fingerprint), *((name, output) for name, output, _ in before)]
    starts = [locations.get(output, "") for output in made]
    settings = {
        key: value
        for name, identity in identities.items()
        if name != "labels"  # it has the parameters of the task, which `score` has too
        for key, value in _settings(name, identity)
    }
    trained = next((path for path in made if path[0] == _TRAINED_BY[stage]), None)
    return Result(
        stage,
        fingerprint,
        workdir.uri,
        settings.get("task.name", "pretraining"),
        _start_words(settings, _STARTED_BY[stage], next(filter(None, starts), "")),
        settings,
        _seed(stage, identities),
        manifest.numbers,
        None if trained is None else "/".join(trained),
    )


def _seed(stage: str, identities: Mapping[str, Mapping[str, Any]]) -> int | None:
    seeds = {name: i["params"]["seed"] for name, i in identities.items() if "seed" in i["params"]}
    return seeds.get(_TRAINED_BY[stage], max(seeds.values(), default=None))


def _before(
    workdir: Store, manifest: Manifest, seen: set[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name, fingerprint and identity of each stage before an output."""
    for parent in (parent for role in manifest.parents.values() for parent in role):
        if parent.stage in seen:
            continue
        seen.add(parent.stage)
        folder = workdir.sub(f"{parent.stage}/{parent.fingerprint}")
        if folder.exists(IDENTITY):
            yield parent.stage, parent.fingerprint, _identity(folder)
        else:  # it was deleted, and what it was made with is not known
            yield parent.stage, parent.fingerprint, {"params": {"deleted": parent.fingerprint}}
        if folder.exists(MANIFEST):
            yield from _before(workdir, read_manifest(folder), seen)


def _identity(folder: Store) -> dict[str, Any]:
    return folder.read_json(IDENTITY, {"params": dict})


def _settings(stage: str, identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a stage by their keys in a recipe, and the version of its code.

    A given tokenizer has not been trained: the parameters of its training say nothing of it.
    """
    params = identity["params"]
    counting = _GIVEN.get(stage, ())
    if counting and params.get(counting[0]) is not None:
        params = {key: value for key, value in params.items() if key in counting}
    for key, value in _flat(params, ""):
        if key != "seed":
            yield _recipe_key(stage, key), value
    if "version" in identity:
        yield f"{stage} version", str(identity["version"])


def _recipe_key(stage: str, key: str) -> str:
    kind, _, name = stage.partition("/")
    if stage == SCORE:
        return key  # the section `task`
    if kind == "prepare":
        return f"data.{name}.{key.removeprefix('source.')}"
    if kind == "predict":
        return f"predict.{key}"
    return f"{SECTIONS.get(stage, stage)}.{key}"


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        entries = list(value.items())
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        entries = list(enumerate(value))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for name, inner in entries:
        yield from _flat(inner, f"{key}.{name}" if key else str(name))


def _start_words(settings: Mapping[str, str], stage: str, location: str) -> str:
    given, fresh = (settings.get(_recipe_key(stage, key), "null") for key in _START_KEYS)
    given = settings.get(_MODEL, given)
    if given == "null" or fresh == "true":
        return FRESH
    return f"{location} ({short(given)})" if location else short(given)


def short(value: str) -> str:
    """Return a setting for display; of a file's digest its beginning."""
    if not value.startswith(_DIGEST):
        return value
    return value[: len(_DIGEST) + _DIGEST_LENGTH]


def start_keys() -> set[str]:
    """Return the settings that say what the weights start from."""
    keys = {_recipe_key(stage, key) for stage in _STARTED_BY.values() for key in _START_KEYS}
    return keys | {_MODEL}
