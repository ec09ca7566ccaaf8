"""The steps of a rehearsal at full row counts that draw tables, run stages, or build the order."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import full_size_tables
import full_size_tokens
from full_size_measured import RECIPE, Measured, Options
from measuring import resident_bytes
from rich.console import Console

from model.training.batch import STREAMS
from orchestration import Dataset, Stage, Workflow
from orchestration.params import external_files
from orchestration.recipe_text import dump_recipe, read_recipe
from orchestration.reporting.estimates import estimate
from orchestration.reporting.usage import Expected, read_usage
from pipelines.builtin_recipes import recipe_path
from pipelines.open_recipe import open_recipe
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.pretrain import ROLES
from pipelines.pretrain.training_task import PretrainJob
from pipelines.workflows.pretrain import build_workflow
from pipelines.workflows.pretrain_recipe import PretrainRecipe

_TRAINING_WORKERS: Final = 8
_NUM_STEPS: Final = 1000
_SMOKE_SOURCES: Final = ("coco_eval", "cc3m", "coco", "imagenet21k", "wikipedia")
_FRACTION_OF_ALL_SUBSTREAMS: Final = 0.03
"Fraction of the rows below which the texts have fewer row groups than the recipe's substreams."


def recipe_values(options: Options, fraction: float) -> dict[str, Any]:
    """Return the base recipe with the large one's sources, as far as they are drawn."""
    values, large = (read_recipe(recipe_path(name))[0] for name in ("base", "large"))
    chosen = _SMOKE_SOURCES if options.smoke else tuple(full_size_tables.SOURCES)
    sources, evaluation_sets = (
        {name: source for name, source in found.items() if name in chosen}
        for found in (large["sources"], values["evaluation_sets"])
    )
    changes: dict[str, Any] = {
        "name": "rehearsal",
        "sources": sources,
        "evaluation_sets": evaluation_sets,
        "download": {"contact": "rehearsal@example.org"},
        "cluster": {"num_cpus": options.cpus, "object_store_mb": 256},
        "image_tokenizer": {"teacher": "hand_crafted"},
        "text_tokenizer": {"vocab_size": 8000},
        "image_tokens": {"num_actors": options.cpus},
        "pair_tokens": {"num_actors": options.cpus},
    }
    if options.smoke:
        few = {"slice_rows": 256, "row_group_rows": 16}
        for section in ("image_tokens", "pair_tokens"):
            changes[section] |= few
        changes["text_tokens"] = {"row_group_rows": 4}
        changes["text_tokenizer"] = {"vocab_size": 500, "sample_lines": 4000}
    if fraction < _FRACTION_OF_ALL_SUBSTREAMS:
        values["train"]["substreams"] = 8
    return values | changes


def prepare(options: Options) -> Measured:
    """Write the recipe, and a file with a few bytes for each one that it names."""
    began = time.perf_counter()
    data = options.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    recipe = PretrainRecipe.model_validate(recipe_values(options, options.fraction))
    text = dump_recipe(recipe.model_dump(mode="json")).decode().replace("${data}", str(data))
    (options.folder / RECIPE).write_text(text)
    for file in external_files(_recipe(options)):
        path = Path(file.location)
        if not path.suffix:  # a folder
            path.mkdir(exist_ok=True)
            path /= "file.xz"
        path.write_text(f"stands for {file.key}\n")
    return Measured(time.perf_counter() - began, resident_bytes("VmHWM"))


def _recipe(options: Options, **sections: object) -> PretrainRecipe:
    return PretrainRecipe.model_validate(read_recipe(options.folder / RECIPE)[0] | sections)


def _workflow(options: Options) -> Workflow:
    path = str(options.folder / RECIPE)
    flow = open_recipe(path, options.workdir.uri, [], Console(file=sys.stderr)).workflow
    return replace(flow, stages=tuple(full_size_tokens.drawn(flow.stages)))


def draw_sources(options: Options) -> Measured:
    """Draw the outputs of all stages that read sources."""
    flow = _workflow(options)
    stages = full_size_tables.drawn(flow.stages, options.fraction, options.chars_per_document)
    sources = replace(flow, stages=tuple(stages))
    sources.run(options.workdir, Console(file=sys.stderr))
    return _of_stages(options, flow, [stage.name for stage in sources.stages])


def run_stages(names: Sequence[str], options: Options) -> Measured:
    """Run stages, one after the other."""
    flow = _workflow(options)
    for name in names:
        flow.run(options.workdir, Console(file=sys.stderr), only=name)
    measured = _of_stages(options, flow, names)
    if names == full_size_tokens.NAMES:
        return measured  # drawn, so no prediction is about them
    now, full = _predicted(options, flow, names[0])
    return replace(measured, predicted=now, predicted_full=full)


def _of_stages(options: Options, flow: Workflow, names: Sequence[str]) -> Measured:
    folders = {p.stage.name: options.workdir.sub(p.path) for p in flow.plan(options.workdir)}
    manifests = [Dataset.open(folders[name]).manifest for name in names]
    usages = [read_usage(folders[name]) for name in names]
    return Measured(
        seconds=sum(usage.seconds for usage in usages),
        driver=resident_bytes("VmHWM"),
        rows=sum(manifest.num_rows_in for manifest in manifests),
        bytes=sum(manifest.num_bytes for manifest in manifests),
        worker=max(usage.memory for usage in usages),
    )


def _predicted(options: Options, flow: Workflow, name: str) -> tuple[int | None, int | None]:
    """Return the plan's memory of a stage, and the same for the full size of its inputs."""
    estimates = estimate(flow.plan(options.workdir), options.workdir)
    whole = recipe_values(replace(options, smoke=False), 1)["text_tokenizer"]
    full = build_workflow(_recipe(options, text_tokenizer=whole))
    predicted = []
    for stages, scale in ((flow.stages, 1.0), (full.stages, options.fraction)):
        (stage,) = (stage for stage in stages if stage.name == name)
        sizes = {
            each: Expected(_grown(found.rows, scale), _grown(found.bytes, scale))
            for each in stage.input_names
            for found in [estimates[each]]
        }
        workers = stage.workers(sizes)
        predicted.append(workers.memory if workers else None)
    return predicted[0], predicted[1]


def _grown(number: int | None, fraction: float) -> int | None:
    return None if number is None else round(number / fraction)


def order(options: Options) -> Measured:
    """Build the order of an epoch of a training worker, and look steps up in it."""
    flow = _workflow(options)
    by_name = {p.stage.name: p for p in flow.plan(options.workdir)}
    pretrain: Stage = by_name["pretrain"].stage
    params = pretrain.params
    assert isinstance(params, PretrainParams)

    def opened(role: str) -> Dataset:
        (name,) = pretrain.inputs[role]
        return Dataset.open(options.workdir.sub(by_name[name].path))

    datasets = {stream: opened(role).table("train") for stream, role in ROLES.items()}
    text, images = opened("text_tokenizer"), opened("image_tokenizer")
    config = params.network.config(vocab_size=8000, num_codes=8192)
    job = PretrainJob(params, pretrain.seed or 0, datasets, text, config, images, None, text.folder)
    began = time.perf_counter()
    feed = job.make_feed(0, _TRAINING_WORKERS)
    built = time.perf_counter()
    for step in range(20 if options.smoke else _NUM_STEPS):
        for stream in STREAMS:
            feed.orders[stream].samples(step, feed.slots[stream])
    looked_up = time.perf_counter()
    sys.stderr.write(
        f"order: built in {built - began:.2f} s, steps looked up in {looked_up - built:.2f} s\n"
    )
    # Without rows: most of this time is the steps', which cost the same at any size.
    return Measured(looked_up - began, resident_bytes("VmHWM"))


STEPS: Final[Mapping[str, Callable[[Options], Measured]]] = {
    "prepare": prepare,
    "draw sources": draw_sources,
    **{
        name: partial(run_stages, (name,))
        for name in ("curate", "data_report", "text_tokenizer", "text_tokens")
    },
    "draw tokens": partial(run_stages, full_size_tokens.NAMES),
    "order": order,
}
"The steps that take torch or Ray, by name."
