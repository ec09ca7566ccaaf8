"""Whether given weights belong to the vocabulary and the codebook of a workflow.

Token ids and codes mean nothing without their tokenizers, so rows and heads of another vocabulary
or codebook are refused unless the recipe leaves them out (``train.start_fresh``). Given codes of
another tokenizer come without its file: they are taken to be the codebook of weights without one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from model.network.layouts import in_our_layout
from model.network.starting import Fresh
from orchestration.manifest import Manifest
from orchestration.params import StageParams
from pipelines.pretrain.params import Params
from pipelines.pretrain.start_source import is_folder, sha256_of, tokenizer_files
from pipelines.pretrain.start_weights import Weights, outline
from pipelines.tokens import given_codes, image_tokenizer, text_tokenizer
from tokenizer.text import TextTokenizer, num_rows_of
from tokenizer.vqkd import VQKD

KEY: Final = "train.start_from"


@dataclass(frozen=True)
class Tokenizer:
    """What of a network depends on one of the tokenizers."""

    part: Fresh
    file: str
    "Of the stage's output."
    key: str
    "Of the recipe, for a given tokenizer."
    weight: str
    "Parameter with a row for each piece or code."


TOKENIZERS: Final[Mapping[str, Tokenizer]] = {
    "text_tokenizer": Tokenizer(
        "vocabulary", text_tokenizer.MODEL_FILE, "model", "language.tokens.weight"
    ),
    "image_tokenizer": Tokenizer(
        "codebook", image_tokenizer.MODEL_FILE, "weights", "mim_head.weight"
    ),
}
"By stage."

TokenizerParams = Mapping[str, text_tokenizer.Params | image_tokenizer.Params | given_codes.Params]
"Sections of both tokenizers by stage; that of given codes stands for the image tokenizer's."


def tokenizer_params(words: StageParams, codes: StageParams) -> TokenizerParams:
    """Return the sections of both tokenizers by stage; ``codes`` may be given ones."""
    assert isinstance(words, text_tokenizer.Params)
    assert isinstance(codes, image_tokenizer.Params | given_codes.Params)
    return {"text_tokenizer": words, "image_tokenizer": codes}


def contradictions_of(
    params: Params, tokenizers: TokenizerParams, complete: Mapping[str, Manifest]
) -> Iterator[str]:
    """Yield which complete tokenizers are not those of the weights.

    Given tokenizers are left out: their stage writes them anew, with equal content.
    """
    if params.start_from is None or not is_folder(params.start_from):
        return
    trained = [s for s in TOKENIZERS if s in complete and not given_key(tokenizers, s)]
    if not trained:
        return
    weights = outline(params.start_from)
    assert weights is not None
    for stage, theirs in tokenizer_files(weights.folder):
        if theirs is None or stage not in trained or not is_taken(weights, params, stage):
            continue
        name = TOKENIZERS[stage].file
        digests = [file.sha256 for file in complete[stage].files if file.path == name]
        if digests != [sha256_of(theirs)]:
            yield f"{KEY}: {_another(stage, theirs)}"


def rows_of(weights: Weights, stage: str) -> int:
    """Return the number of pieces or codes that the weights have rows for, or 1."""
    tensor = in_our_layout(weights.state)[1].get(TOKENIZERS[stage].weight)
    return len(tensor) if tensor is not None and tensor.ndim == 2 else 1


def is_taken(weights: Weights, params: Params, stage: str) -> bool:
    """Whether the network would take rows that belong to the tokenizer of a stage."""
    each = TOKENIZERS[stage]
    return each.part not in params.start_fresh and each.weight in in_our_layout(weights.state)[1]


def contradictions(
    weights: Weights, params: Params, tokenizers: TokenizerParams, own: Mapping[str, Path]
) -> Iterator[str]:
    """Yield which tokenizers are not those that the weights were trained with.

    Args:
        weights: the given weights.
        params: of the stage.
        tokenizers: sections of both tokenizers.
        own: files of the tokenizers of this workflow, as far as they exist.
    """
    for stage, theirs in tokenizer_files(weights.folder):
        each, mine = TOKENIZERS[stage], own.get(stage)
        section = tokenizers[stage]
        if not is_taken(weights, params, stage):
            continue
        if isinstance(section, given_codes.Params):
            yield from _not_given(weights, section, theirs)
        elif theirs is None and not given_file(tokenizers, stage):
            yield (
                f"the weights do not come with their {each.part}, and {stage} would train another "
                f"one; set {stage}.{each.key} to theirs, or train.start_fresh=[{each.part}]"
            )
        elif mine is None and not given_file(tokenizers, stage):
            if (number := _number_trained(section)) != (rows := rows_of(weights, stage)):
                yield (
                    f"the weights have {rows} rows for the {each.part}, {stage} would train "
                    f"another one, with {number}; set {stage}.{each.key}={theirs}, "
                    f"or train.start_fresh=[{each.part}]"
                )
        elif mine is not None and theirs is not None and not _equal(stage, mine, theirs):
            yield _another(stage, theirs)
        elif mine is not None and (number := _number(stage, mine)) != rows_of(weights, stage):
            yield (
                f"the weights have {rows_of(weights, stage)} rows for the {each.part}, {mine} has "
                f"{number}; set {stage}.{each.key} to theirs, or train.start_fresh=[{each.part}]"
            )


def _not_given(weights: Weights, section: given_codes.Params, theirs: Path | None) -> Iterator[str]:
    """Yield why the head of the weights does not predict the given codes."""
    if theirs is not None:
        yield (
            f"the codebook of the weights is that of {theirs}, not that of given_codes.file; "
            "set train.start_fresh=[codebook], or remove given_codes"
        )
    elif (number := rows_of(weights, "image_tokenizer")) != section.num_codes:
        yield (
            f"the weights have {number} rows for the codebook, given_codes.num_codes is "
            f"{section.num_codes}; set train.start_fresh=[codebook]"
        )


def _another(stage: str, theirs: Path) -> str:
    each = TOKENIZERS[stage]
    return (
        f"the {each.part} of the weights is another one than that of {stage}; set "
        f"{stage}.{each.key}={theirs}, or train.start_fresh=[{each.part}]"
    )


def _equal(stage: str, mine: Path, theirs: Path) -> bool:
    """Whether two tokenizers give the same ids; position tables of codebooks may be resized."""
    if sha256_of(mine) == sha256_of(theirs):
        return True
    if stage == "text_tokenizer":
        return False
    ours, others = (VQKD.load(path).state_dict() for path in (mine, theirs))
    return ours.keys() == others.keys() and all(
        name.endswith("pos_embed") or torch.equal(tensor, others[name])
        for name, tensor in ours.items()
    )


def _number(stage: str, path: Path) -> int:
    """Return the number of pieces or codes of a tokenizer's file."""
    if stage == "text_tokenizer":
        return TextTokenizer.load(path).num_rows
    return VQKD.load(path).config.num_codes


def _number_trained(section: text_tokenizer.Params | image_tokenizer.Params) -> int:
    """Return the rows of a network for the tokenizer that a section trains."""
    if isinstance(section, text_tokenizer.Params):
        return num_rows_of(section.vocab_size)
    return section.num_codes


def given_file(tokenizers: TokenizerParams, stage: str) -> str | None:
    """Return the path or URI of a tokenizer that the recipe gives, or None."""
    found: str | None = getattr(tokenizers[stage], TOKENIZERS[stage].key, None)
    return found


def given_key(tokenizers: TokenizerParams, stage: str) -> str | None:
    """Return the key of the recipe that gives a tokenizer or its codes, or None."""
    if isinstance(tokenizers[stage], given_codes.Params):
        return "given_codes.file"
    given = given_file(tokenizers, stage)
    return f"{stage}.{TOKENIZERS[stage].key}" if given is not None else None
