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
from pipelines.tokens import given_codes
from pipelines.workflows.feasibility import impossible
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from pipelines.workflows.sources import rows_of, stages_of
from pipelines.workflows.tokens import TokenSections, tokenize


def build_workflow(recipe: PretrainRecipe) -> Workflow:
    """Return the dataset-to-checkpoint workflow of a recipe."""
    seed = recipe.seed

    # Ingest: index and download, import, or documents, for each source.
    evaluation = stages_of(recipe.evaluation_sets, recipe.download)
    sources = stages_of(recipe.sources, recipe.download)
    evaluation_sets = [stages[-1] for stages in evaluation.values()]
    rows = rows_of(recipe.sources, sources)
    ingest = list(chain(*evaluation.values(), *sources.values()))

    # Curate.
    curated = curate.stage(
        recipe.curate,
        evaluation_sets=evaluation_sets,
        pairs=rows.pairs,
        images=rows.images,
        held_out=rows.held_out_of(rows.pairs),
    )
    report = data_report.stage(
        recipe.data_report,
        lists=[stage for stage in ingest if stage.name.startswith("index/")],
        curated=curated,
        images=rows.all_images,
        evaluation_sets=evaluation_sets,
        documents=rows.documents,
        held_out=rows.held_out,
        splits=data_report.Splits(
            seed=seed,
            images=recipe.image_tokens.held_out_fraction,
            pairs=recipe.pair_tokens.held_out_fraction,
            pairs_by=recipe.pair_tokens.held_out_by,
            texts=recipe.text_tokens.held_out_fraction,
        ),
    )

    # Tokenize.
    sections = TokenSections(
        text_tokenizer=recipe.text_tokenizer,
        text_tokens=recipe.text_tokens,
        image_tokenizer=recipe.image_tokenizer,
        image_tokens=recipe.image_tokens,
        pair_tokens=recipe.pair_tokens,
    )
    tokens = tokenize(sections, rows, curated, seed=seed, flip=recipe.flip)

    # With codes of another tokenizer, nothing that follows reads the image tokenizer.
    encoded, given = [tokens.images, tokens.pairs], []
    if recipe.given_codes is not None:
        given = [given_codes.stage(recipe.given_codes, tokens=each) for each in encoded]
    images, pairs = given or encoded
    target = None if given else tokens.codebook

    # Pretrain.
    checkpoint = pretrain.stage(
        recipe.train,
        seed=seed,
        images=images,
        texts=tokens.texts,
        pairs=pairs,
        text_tokenizer=tokens.vocabulary,
        image_tokenizer=target,
        evaluation=recipe.evaluate,
        evaluation_seed=seed,
    )
    evaluated = evaluate.stage(
        recipe.evaluate,
        seed=seed,
        checkpoint=checkpoint,
        images=images,
        texts=tokens.texts,
        pairs=pairs,
        text_tokenizer=tokens.vocabulary,
    )
    exported = export.stage(
        recipe.export,
        checkpoint=checkpoint,
        evaluation=evaluated,
        text_tokenizer=tokens.vocabulary,
        image_tokenizer=target,
        images=images,
        texts=tokens.texts,
        pairs=pairs,
        origin=Provenance(
            recipe.name,
            {f"{name} ({each.format})": each.license for name, each in recipe.sources.items()},
        ),
    )
    stages = (
        *(*ingest, curated, report),
        *(tokens.vocabulary, tokens.texts, tokens.codebook, *encoded, *given),
        *(checkpoint, evaluated, exported),
    )
    return Workflow(recipe, stages, partial(impossible, recipe))
