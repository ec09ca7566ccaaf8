"""The workflow from source lists to a checkpoint, as a flat list of stages.

A stage is declared beside its code; here each one is given its section of the recipe and the
stages that it reads. The list reads as the figure ``docs/architecture.svg``.
"""

from functools import partial
from itertools import chain

from orchestration import Workflow
from pipelines.curate import curate
from pipelines.pretrain import evaluate, export, pretrain
from pipelines.pretrain.provenance import Provenance
from pipelines.report import data_report
from pipelines.tokens import (
    given_codes,
    image_tokenizer,
    image_tokens,
    pair_tokens,
    text_tokenizer,
    text_tokens,
)
from pipelines.workflows.feasibility import impossible
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from pipelines.workflows.sources import last_stages, stages_of


def build_workflow(recipe: PretrainRecipe) -> Workflow:
    """Return the dataset-to-checkpoint workflow of a recipe."""
    seed = recipe.seed

    # Ingest: index and download, import, or documents, for each source.
    evaluation = stages_of(recipe.evaluation_sets, recipe.download)
    sources = stages_of(recipe.sources, recipe.download)
    evaluation_sets = [stages[-1] for stages in evaluation.values()]
    pairs = last_stages(recipe.sources, sources, "pairs")
    images = last_stages(recipe.sources, sources, "images")
    documents = last_stages(recipe.sources, sources, "texts")
    all_images = [*pairs, *images]
    held_out = [sources[name][-1] for name, source in recipe.sources.items() if source.held_out]
    held_out_images = [stage for stage in held_out if stage in all_images]
    held_out_documents = [stage for stage in held_out if stage in documents]
    ingest = list(chain(*evaluation.values(), *sources.values()))

    # Curate.
    curated = curate.stage(
        recipe.curate,
        evaluation_sets=evaluation_sets,
        pairs=pairs,
        images=images,
        held_out=[stage for stage in held_out_images if stage in pairs],
    )
    report = data_report.stage(
        recipe.data_report,
        lists=[stage for stage in ingest if stage.name.startswith("index/")],
        curated=curated,
        images=all_images,
        evaluation_sets=evaluation_sets,
        documents=documents,
        held_out=held_out,
        splits=data_report.Splits(
            seed=seed,
            images=recipe.image_tokens.held_out_fraction,
            pairs=recipe.pair_tokens.held_out_fraction,
            pairs_by=recipe.pair_tokens.held_out_by,
            texts=recipe.text_tokens.held_out_fraction,
        ),
    )

    # Tokenize.
    vocabulary = text_tokenizer.stage(
        recipe.text_tokenizer, seed=seed, documents=documents, curated=curated, images=all_images
    )
    text_rows = text_tokens.stage(
        recipe.text_tokens,
        seed=seed,
        documents=documents,
        held_out=held_out_documents,
        tokenizer=vocabulary,
    )
    codebook = image_tokenizer.stage(
        recipe.image_tokenizer, seed=seed, flip=recipe.flip, curated=curated, images=all_images
    )
    image_rows = image_tokens.stage(
        recipe.image_tokens,
        seed=seed,
        flip=recipe.flip,
        curated=curated,
        images=all_images,
        held_out=held_out_images,
        tokenizer=codebook,
    )
    pair_rows = pair_tokens.stage(
        recipe.pair_tokens,
        seed=seed,
        flip=recipe.flip,
        curated=curated,
        images=all_images,
        held_out=held_out_images,
        tokenizer=codebook,
        text_tokenizer=vocabulary,
    )

    # With codes of another tokenizer, nothing that follows reads the image tokenizer.
    encoded, given = [image_rows, pair_rows], []
    if recipe.given_codes is not None:
        given = [given_codes.stage(recipe.given_codes, tokens=rows) for rows in encoded]
    image_rows, pair_rows = given or encoded
    target = None if given else codebook

    # Pretrain.
    checkpoint = pretrain.stage(
        recipe.train,
        seed=seed,
        images=image_rows,
        texts=text_rows,
        pairs=pair_rows,
        text_tokenizer=vocabulary,
        image_tokenizer=target,
        evaluation=recipe.evaluate,
        evaluation_seed=seed,
    )
    evaluated = evaluate.stage(
        recipe.evaluate,
        seed=seed,
        checkpoint=checkpoint,
        images=image_rows,
        texts=text_rows,
        pairs=pair_rows,
        text_tokenizer=vocabulary,
    )
    exported = export.stage(
        recipe.export,
        checkpoint=checkpoint,
        evaluation=evaluated,
        text_tokenizer=vocabulary,
        image_tokenizer=target,
        images=image_rows,
        texts=text_rows,
        pairs=pair_rows,
        origin=Provenance(
            recipe.name,
            {f"{name} ({each.format})": each.license for name, each in recipe.sources.items()},
        ),
    )
    stages = (
        *(*ingest, curated, report),
        *(vocabulary, text_rows, codebook, *encoded, *given),
        *(checkpoint, evaluated, exported),
    )
    return Workflow(recipe, stages, partial(impossible, recipe))
