"""The workflow: which stages a recipe gives, and who feeds whom."""

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

from orchestration import Stage, Workflow
from orchestration.params import StageParams
from orchestration.reporting.usage import Expected
from pipelines.curate import curate
from pipelines.ingest import (
    documents,
    download,
    import_image_folder,
    import_imagenet21k,
    import_pairs,
    index,
)
from pipelines.pretrain import evaluate, export, pretrain
from pipelines.report import data_report
from pipelines.tokens import image_tokenizer, image_tokens, pair_tokens, text_tokenizer, text_tokens
from pipelines.workflows.pretrain_recipe import PretrainRecipe


def build_workflow(recipe: PretrainRecipe) -> Workflow:
    """Return the dataset-to-checkpoint workflow of a recipe."""
    stages: list[Stage] = []
    fed: dict[str, list[str]] = {"evaluation": [], "pairs": [], "images": [], "texts": []}
    for name, source in recipe.evaluation_sets.items():
        mine, _ = _source_stages(recipe, name, source)
        stages += mine
        fed["evaluation"].append(mine[-1].name)
    for name, corpus in recipe.sources.items():
        mine, kind = _source_stages(recipe, name, corpus)
        stages += mine
        fed[kind].append(mine[-1].name)
    return Workflow(recipe, (*stages, *_later(recipe, **{k: tuple(v) for k, v in fed.items()})))


def _source_stages(
    recipe: PretrainRecipe, name: str, source: StageParams
) -> tuple[list[Stage], str]:
    """Return the stages of a source, the last of which gives its rows, and what these are."""
    if isinstance(source, index.ListParams):
        download_stage = Stage(
            f"download/{name}",
            lambda context: download.run(context, recipe.download),
            recipe.download,
            {"index": (f"index/{name}",)},
            version=2,
            retry=lambda context, reasons: download.retry_rejects(
                context, recipe.download, reasons
            ),
        )
        return [_source_stage("index", index, source, name), download_stage], "pairs"
    if isinstance(source, import_pairs.ImportPairsParams):
        return [_source_stage("import", import_pairs, source, name)], "pairs"
    if isinstance(source, import_image_folder.Params):
        return [_source_stage("import", import_image_folder, source, name)], "images"
    if isinstance(source, import_imagenet21k.Params):
        return [_source_stage("import", import_imagenet21k, source, name)], "images"
    return [_source_stage("documents", documents, source, name)], "texts"


def _source_stage(kind: str, module: ModuleType, params: StageParams, source: str) -> Stage:
    """A stage that reads a source from outside."""
    expects = partial(module.expects, params) if hasattr(module, "expects") else Expected
    return Stage(
        f"{kind}/{source}",
        lambda context: module.run(context, params, source),
        params,
        version=2,
        expects=expects,
    )


def _later(
    recipe: PretrainRecipe,
    *,
    evaluation: tuple[str, ...],
    pairs: tuple[str, ...],
    images: tuple[str, ...],
    texts: tuple[str, ...],
) -> list[Stage]:
    """The stages behind the sources."""
    kept = {"curated": ("curate",), "images": (*pairs, *images)}
    downloads = (name.partition("/") for name in (*pairs, *evaluation))
    lists = tuple(f"index/{source}" for kind, _, source in downloads if kind == "download")
    words, codes = ("text_tokenizer",), ("image_tokenizer",)
    tokens = {"images": ("image_tokens",), "texts": ("text_tokens",), "pairs": ("pair_tokens",)}
    tokenizers = {"text_tokenizer": words, "image_tokenizer": codes}
    return [
        _stage(
            curate,
            recipe.curate,
            {"evaluation": evaluation, "pairs": pairs, "images": images},
            version=2,
        ),
        _stage(
            data_report,
            recipe.data_report,
            {"lists": lists, **kept, "evaluation_sets": evaluation, "documents": texts},
        ),
        _stage(
            text_tokenizer,
            recipe.text_tokenizer,
            {"documents": texts, "curated": ("curate",), "images": (*pairs, *images)},
            seed=recipe.seed,
        ),
        _stage(text_tokens, recipe.text_tokens, {"documents": texts, "tokenizer": words}),
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
