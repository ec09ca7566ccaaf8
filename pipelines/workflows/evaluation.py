"""The workflow of an evaluation alone: own data, encoded by the tokenizers of given weights.

The stages are those of a pretraining without ``pretrain``: each row that is measured has passed the
same code as a row that is trained on.
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final

from model import BEiT3Config
from orchestration import Workflow
from orchestration.errors import RecipeError
from pipelines.curate import curate
from pipelines.pretrain import evaluate
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.samples import FeedParams
from pipelines.pretrain.start_source import Folder, is_folder, open_folder
from pipelines.tokens import image_tokenizer, image_tokens, pair_tokens, text_tokenizer, text_tokens
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.sources import rows_of, stages_of
from pipelines.workflows.tokens import TokenSections, tokenize
from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD

_TEXT_LENGTH: Final = 128
"Largest number of tokens in a packed text."


def build_evaluation(recipe: EvaluationRecipe) -> Workflow:
    """Return the workflow of a recipe.

    Raises:
        RecipeError: the weights are no training or export, or come without their tokenizers.
    """
    if not is_folder(recipe.model):
        raise RecipeError(
            f"model: {recipe.model} is a file, which comes without tokenizers; name the folder of "
            "an export or a checkpoint, or a workdir"
        )
    seed, model = recipe.seed, open_folder(recipe.model)
    config = model.config()
    sources = stages_of(recipe.sources, recipe.download)
    rows = rows_of(recipe.sources, sources)
    curated = curate.stage(
        recipe.curate,
        evaluation_sets=[],
        pairs=rows.pairs,
        images=rows.images,
        held_out=rows.held_out_of(rows.pairs),
    )
    cut = {
        "num_views": 1,
        "held_out_fraction": recipe.held_out_fraction,
        **recipe.encode.model_dump(),
    }
    sections = TokenSections(
        text_tokenizer=text_tokenizer.Params(model=str(_vocabulary(model, config))),
        text_tokens=text_tokens.Params(
            length=min(_TEXT_LENGTH, config.max_text_length),
            held_out_fraction=recipe.held_out_fraction,
        ),
        image_tokenizer=_codebook(model, config),
        image_tokens=image_tokens.Params(**cut),
        pair_tokens=pair_tokens.Params(**cut),
    )
    tokens = tokenize(sections, rows, curated, seed=seed, flip=False)
    evaluated = evaluate.stage_of_given(
        evaluate.GivenParams(model=recipe.model, **recipe.evaluate.model_dump(exclude_unset=True)),
        seed=seed,
        config=config,
        feed=_feed(config),
        images=tokens.images,
        texts=tokens.texts,
        pairs=tokens.pairs,
        text_tokenizer=tokens.vocabulary,
    )
    stages = (
        *(*chain(*sources.values()), curated),
        *(tokens.vocabulary, tokens.texts, tokens.codebook, tokens.images, tokens.pairs),
        evaluated,
    )
    return Workflow(recipe, stages)


def _file(model: Folder, which: str) -> Path:
    """Return the file of a tokenizer that lies beside the weights, or in their workdir."""
    found = model.text_tokenizer() if which == "text" else model.image_tokenizer()
    if found is None:
        others = "; codes of another tokenizer (given_codes) cannot be measured on new images"
        raise RecipeError(
            f"model: {model.store.uri} does not come with its {which} tokenizer; give the workdir "
            f"or the export of its pretraining{others if which == 'image' else ''}"
        )
    return found


def _vocabulary(model: Folder, config: BEiT3Config) -> Path:
    """Return the file of the text tokenizer; RecipeError if it is damaged or another network's."""
    file = _file(model, "text")
    try:
        num_rows = TextTokenizer.load(file).num_rows
    except ValueError as error:
        raise RecipeError(f"model: {error}") from None
    if num_rows != config.vocab_size:
        raise RecipeError(
            f"model: {model.store.uri} has {config.vocab_size} rows for the vocabulary, {file} "
            f"needs {num_rows}; it belongs to another network, so give the export as it was written"
        )
    return file


def _codebook(model: Folder, config: BEiT3Config) -> image_tokenizer.Params:
    """Return the section of a given image tokenizer, at the grid of the network.

    Raises:
        RecipeError: its file is damaged or another network's.
    """
    file = _file(model, "image")
    try:
        found = VQKD.load(file).config
    except ValueError as error:
        raise RecipeError(f"model: {error}") from None
    if config.image_target == "codes" and found.num_codes != config.num_codes:
        raise RecipeError(
            f"model: {model.store.uri} predicts {config.num_codes} codes, {file} has "
            f"{found.num_codes}; it belongs to another network, so give the export as it was "
            "written"
        )
    patch_size = found.patch_size
    return image_tokenizer.Params(
        weights=str(file),
        patch_size=patch_size,
        image_size=config.grid * patch_size,
        min_usage=0,  # a small set does not use every code
    )


def _feed(config: BEiT3Config) -> FeedParams:
    """Return the paper's masks, for texts that the network can read."""
    feed = PretrainParams().feed_params()
    return replace(feed, max_caption_length=min(feed.max_caption_length, config.max_text_length))
