"""The workflow: which stages a recipe gives, and who feeds whom."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, get_args

from orchestration import Stage, Workflow, feeding
from orchestration.params import StageParams
from pipelines.curate import curate
from pipelines.ingest.source import Kind
from pipelines.pretrain import evaluate, export, pretrain
from pipelines.report import data_report
from pipelines.tokens import image_tokenizer, image_tokens, pair_tokens, text_tokenizer, text_tokens
from pipelines.workflows.pretrain_recipe import PretrainRecipe


def build_workflow(recipe: PretrainRecipe) -> Workflow:
    """Return the dataset-to-checkpoint workflow of a recipe."""
    sources = {
        name: source.stages(name, recipe.download) for name, source in recipe.sources.items()
    }
    evaluation_sets = [
        source.stages(name, recipe.download) for name, source in recipe.evaluation_sets.items()
    ]
    ends: dict[Kind, list[Stage]] = {
        kind: [sources[name][-1] for name, s in recipe.sources.items() if s.kind == kind]
        for kind in get_args(Kind)
    }
    read = [*evaluation_sets, *sources.values()]
    later = _later(
        recipe,
        lists=[stage for stages in read for stage in stages[:-1]],
        evaluation_sets=[stages[-1] for stages in evaluation_sets],
        **ends,
    )
    return Workflow(recipe, (*(stage for stages in read for stage in stages), *later))


def _later(
    recipe: PretrainRecipe,
    *,
    lists: Sequence[Stage],
    evaluation_sets: Sequence[Stage],
    pairs: Sequence[Stage],
    images: Sequence[Stage],
    texts: Sequence[Stage],
) -> list[Stage]:
    """The stages behind the sources."""
    curated = curate.stage(
        recipe.curate, evaluation_sets=evaluation_sets, pairs=pairs, images=images
    )
    all_images = [*pairs, *images]
    kept = feeding(curated=curated, images=all_images)
    documents = feeding(documents=texts)
    words, codes = ("text_tokenizer",), ("image_tokenizer",)
    tokens = {"images": ("image_tokens",), "texts": ("text_tokens",), "pairs": ("pair_tokens",)}
    tokenizers = {"text_tokenizer": words, "image_tokenizer": codes}
    return [
        curated,
        data_report.stage(
            recipe.data_report,
            lists=lists,
            curated=curated,
            images=all_images,
            evaluation_sets=evaluation_sets,
            documents=texts,
        ),
        _stage(
            text_tokenizer,
            recipe.text_tokenizer,
            {**documents, **kept},
            seed=recipe.seed,
        ),
        _stage(text_tokens, recipe.text_tokens, {**documents, "tokenizer": words}),
        _stage(
            image_tokenizer,
            recipe.image_tokenizer,
            kept,
            seed=recipe.seed,
            requires=partial(image_tokenizer.requires, recipe.image_tokenizer),
            expects=partial(image_tokenizer.expects, recipe.image_tokenizer),
        ),
        _stage(image_tokens, recipe.image_tokens, {**kept, "tokenizer": codes}, seed=recipe.seed),
        _stage(
            pair_tokens,
            recipe.pair_tokens,
            {**kept, "tokenizer": codes, "text_tokenizer": words},
            seed=recipe.seed,
        ),
        _stage(
            pretrain,
            recipe.train,
            {**tokens, **tokenizers},
            seed=recipe.seed,
            version=2,
            expects=partial(
                pretrain.expects,
                recipe.train,
                recipe.text_tokens.length,
                recipe.text_tokenizer.vocab_size,
                recipe.image_tokenizer.num_codes,
            ),
        ),
        Stage(
            "evaluate",
            lambda context: evaluate.run(context, recipe.evaluate, recipe.train),
            recipe.evaluate,
            {"checkpoint": ("pretrain",), **tokens, "text_tokenizer": words},
            seed=recipe.seed,
        ),
        _stage(
            export,
            recipe.export,
            {"checkpoint": ("pretrain",), "evaluation": ("evaluate",), **tokenizers},
            version=2,
        ),
    ]


def _stage(
    module: ModuleType, params: StageParams, inputs: Mapping[str, tuple[str, ...]], **more: Any
) -> Stage:
    """A stage that is named as the file it lives in."""
    name = module.__name__.rpartition(".")[2]
    return Stage(name, lambda context: module.run(context, params), params, inputs, **more)
