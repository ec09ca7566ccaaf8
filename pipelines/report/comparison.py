"""Committed scores and evaluations side by side, read from identities, manifests and recipes.

Two results have the same settings if their stages and all stages before them have the same
parameters and code versions; the seed does not count. Results with the same settings are one row:
its numbers are medians over the seeds.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from orchestration.fingerprint import fingerprint_of
from orchestration.manifest import MANIFEST, Manifest, read_manifest
from orchestration.plan import IDENTITY, WORKFLOWS, records_of
from orchestration.recipe_text import parse_recipe
from orchestration.storage.store import Store
from pipelines.finetune.registry import TASKS
from pipelines.finetune.score import PUBLISHED
from pipelines.report.scores import is_metric

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
_SECTIONS: Final = {"start": "network", "pretrain": "train"}
"Section of a recipe that holds the parameters of a stage, where its name is another one."
_METRICS: Final = {
    name: task.metric for task in TASKS for name in get_args(task.model_fields["name"].annotation)
}
"Name of the metric by which each task is judged."


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
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """A number over several seeds."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Row:
    """The results with one choice of settings."""

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """A result, for what all of them have in common."""
        return self.results[0]

    @property
    def metric(self) -> str | None:
        """Name of the metric by which the task is judged; None of a pretraining."""
        return _METRICS.get(self.first.task)

    def spread(self, name: str) -> Spread | None:
        """Return a number over the results that have it."""
        values = [r.numbers[name] for r in self.results if name in r.numbers]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values), len(values))

    def names(self) -> list[str]:
        """Return the names of all numbers, in the order of the first result that has each."""
        return list(dict.fromkeys(name for result in self.results for name in result.numbers))

    def main_names(self) -> list[str]:
        """Return the metrics that a table shows: the task's own, and those with published ones."""
        return [
            name
            for name in self.names()
            if is_metric(name)
            and (name.partition("/")[2] == self.metric or f"{PUBLISHED}/{name}" in self.names())
        ]


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


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Return the results as rows; of the same output in several workdirs one counts."""
    distinct = {(r.stage, r.fingerprint): r for r in reversed(results)}
    grouped: dict[str, list[Result]] = {}
    for result in sorted(distinct.values(), key=_order):
        grouped.setdefault(_key(result), []).append(result)
    return [Row(some) for some in grouped.values()]


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the settings that differ between rows of one task which both have them."""
    found: dict[str, None] = {}
    for task in dict.fromkeys(row.first.task for row in rows):
        settings = [row.first.settings for row in rows if row.first.task == task]
        for name in dict.fromkeys(name for some in settings for name in some):
            values = {some[name] for some in settings if name in some}
            if len(values) > 1 and name not in _shown_as_start():
                found[name] = None
    return list(found)


def best_on_dev(rows: Sequence[Row]) -> tuple[Row, str] | None:
    """Return the row with the best median of the task's metric on dev, and the metric's name.

    Of equal ones it is the first. None if no row has such a number.
    """
    scored = [
        (spread.median, row, name)
        for row in rows
        if row.first.stage == SCORE
        and (spread := row.spread(name := f"dev/{row.metric}")) is not None
    ]
    if not scored:
        return None
    _, row, name = max(scored, key=lambda item: item[0])
    return row, name


def _start_locations(workdir: Store) -> dict[tuple[str, str], str]:
    """Return ``start_from`` of the workflows' recipes, by the stage that it belongs to.

    An identity has the digest of the weights and not their location.
    """
    found: dict[tuple[str, str], str] = {}
    for record in records_of(workdir):
        path = f"{WORKFLOWS}/{fingerprint_of(record['stages'])}/recipe.yaml"
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
    seeds = {i["params"]["seed"] for i in identities.values() if "seed" in i["params"]}
    return Result(
        stage,
        fingerprint,
        workdir.uri,
        settings.get("task.name", "pretraining"),
        _start_words(settings, _STARTED_BY[stage], next(filter(None, starts), "")),
        settings,
        max(seeds) if seeds else None,
        manifest.numbers,
    )


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
    identity: dict[str, Any] = json.loads(folder.read(IDENTITY))
    return identity


def _settings(stage: str, identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a stage by their keys in a recipe, and the version of its code."""
    for key, value in _flat(identity["params"], ""):
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
    return f"{_SECTIONS.get(stage, stage)}.{key}"


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


def _shown_as_start() -> set[str]:
    keys = {_recipe_key(stage, key) for stage in _STARTED_BY.values() for key in _START_KEYS}
    return keys | {_MODEL}


def _key(result: Result) -> str:
    return json.dumps([result.stage, result.task, sorted(result.settings.items())])


def _order(result: Result) -> tuple[Any, ...]:
    """Sort numbers among the settings by value, so that the order is that of a grid."""
    settings = sorted(result.settings.items())
    values = [(name, *_comparable(value)) for name, value in settings]
    return result.stage, result.task, result.start, values, result.seed or 0, result.fingerprint


def _comparable(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
