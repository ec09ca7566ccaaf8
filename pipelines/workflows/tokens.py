"""Tokenization: the stages from curated images and documents to the rows that a network reads.

Each row that is trained on or measured passes these stages, with tokenizers that are trained or
given.
"""

from dataclasses import dataclass

from orchestration import Stage
from pipelines.tokens import image_tokenizer, image_tokens, pair_tokens, text_tokenizer, text_tokens
from pipelines.workflows.sources import SourceRows


@dataclass(frozen=True)
class TokenSections:
    """The parameters of the stages; of the same names as sections of a recipe."""

    text_tokenizer: text_tokenizer.Params
    text_tokens: text_tokens.Params
    image_tokenizer: image_tokenizer.Params
    image_tokens: image_tokens.Params
    pair_tokens: pair_tokens.Params


@dataclass(frozen=True)
class TokenStages:
    """Both tokenizers, and the rows of each stream."""

    vocabulary: Stage
    texts: Stage
    codebook: Stage
    images: Stage
    pairs: Stage


def tokenize(
    sections: TokenSections, sources: SourceRows, curated: Stage, *, seed: int, flip: bool
) -> TokenStages:
    """Return the stages of tokenization.

    Args:
        sections: parameters of the stages.
        sources: the stages that give images and documents.
        curated: ``curate``, which has read the images of the sources.
        seed: of the recipe.
        flip: whether half of all crops are mirrored.
    """
    images, documents = sources.all_images, sources.documents
    held_out = sources.held_out_of(images)
    vocabulary = text_tokenizer.stage(
        sections.text_tokenizer, seed=seed, documents=documents, curated=curated, images=images
    )
    texts = text_tokens.stage(
        sections.text_tokens,
        seed=seed,
        documents=documents,
        held_out=sources.held_out_of(documents),
        tokenizer=vocabulary,
    )
    codebook = image_tokenizer.stage(
        sections.image_tokenizer, seed=seed, flip=flip, curated=curated, images=images
    )
    image_rows = image_tokens.stage(
        sections.image_tokens,
        seed=seed,
        flip=flip,
        curated=curated,
        images=images,
        held_out=held_out,
        tokenizer=codebook,
    )
    pair_rows = pair_tokens.stage(
        sections.pair_tokens,
        seed=seed,
        flip=flip,
        curated=curated,
        images=images,
        held_out=held_out,
        tokenizer=codebook,
        text_tokenizer=vocabulary,
    )
    return TokenStages(vocabulary, texts, codebook, image_rows, pair_rows)
