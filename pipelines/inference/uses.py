"""What a model can do: the head that each method needs, and the recipe that trains it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model.finetuning.task_networks import ForCaptioning, ForRetrieval
from pipelines.finetune.tasks.detection import Detection
from pipelines.finetune.tasks.image_classification import ImageClassification
from pipelines.finetune.tasks.nlvr2 import VisualReasoning
from pipelines.finetune.tasks.segmentation import Segmentation
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.tasks.vqa import VisualQuestionAnswering

if TYPE_CHECKING:
    from pipelines.inference.loaded_model import LoadedModel


class CannotDo(ValueError):
    """The model has no head for what was asked, or weights that give no finite numbers.

    The message is one sentence.
    """


@dataclass(frozen=True)
class Use:
    """What a method needs."""

    is_possible: Callable[["LoadedModel"], bool]
    needs: str
    "What a model without it lacks, after no."
    recipe: str
    "A recipe that gives a model with it."
    reads_texts: bool = False


def _of_task(*kinds: type) -> Callable[["LoadedModel"], bool]:
    return lambda model: isinstance(model.task, kinds)


def _has_head(name: str) -> Callable[["LoadedModel"], bool]:
    return lambda model: model.task is None and hasattr(model.encoder, name)


def _predicts_codes(model: "LoadedModel") -> bool:
    """Return whether what is predicted of masked patches is their codes, not their pixels."""
    return _has_head("mim_head")(model) and model.source.config.image_target == "codes"


def _embeds(model: "LoadedModel") -> bool:
    return model.task is None or not model.task.is_dense


USES: Final[Mapping[str, Use]] = {
    "embed_images": Use(_embeds, "features of whole images", "base"),
    "embed_texts": Use(_embeds, "text encoder", "base", reads_texts=True),
    "similarity": Use(
        lambda model: isinstance(model.network, ForRetrieval),
        "features of images and texts that can be compared",
        "finetune/coco-retrieval-base",
        reads_texts=True,
    ),
    "caption": Use(
        lambda model: isinstance(model.network, ForCaptioning),
        "head for captions",
        "finetune/coco-captioning-base",
        reads_texts=True,
    ),
    "answer": Use(
        _of_task(VisualQuestionAnswering),
        "head for questions about an image",
        "finetune/vqav2-base",
        reads_texts=True,
    ),
    "classify": Use(
        _of_task(ImageClassification, TextClassification),
        "head for classes",
        "finetune/imagenet-linear-base or, for texts, finetune/glue-sst2",
    ),
    "classify_pairs": Use(
        _of_task(VisualReasoning),
        "head for sentences about two images",
        "finetune/nlvr2-base",
        reads_texts=True,
    ),
    "detect": Use(_of_task(Detection), "head for objects", "finetune/coco-detection-base"),
    "segment": Use(
        _of_task(Segmentation), "head for classes of pixels", "finetune/ade20k-segmentation-base"
    ),
    "fill_mask": Use(_has_head("mlm_head"), "head for masked words", "base", reads_texts=True),
    "fill_patches": Use(_predicts_codes, "head for the codes of masked patches", "base"),
    "codes": Use(
        lambda model: model.image_tokenizer is not None, "image tokenizer beside it", "base"
    ),
}
"Each method of a model by its name."


def possible(model: "LoadedModel") -> tuple[str, ...]:
    """Return the names of the methods that a model can do."""
    return tuple(name for name, use in USES.items() if _missing(model, use) is None)


def require(model: "LoadedModel", method: str, called: str | None = None) -> None:
    """Raise :class:`CannotDo` unless a model can do what a method does.

    Args:
        model: the model.
        method: a key of ``USES``.
        called: what the user called, if that is not the method.
    """
    if (missing := _missing(model, USES[method])) is not None:
        raise CannotDo(f"{called or method}: {model.description} and {missing}")


def _missing(model: "LoadedModel", use: Use) -> str | None:
    if not use.is_possible(model):
        return f"has no {use.needs}; the recipe {use.recipe} gives such a model"
    if use.reads_texts and model.processor.tokenizer is None:
        return (
            "has no text tokenizer; name its SentencePiece model: "
            "from_pretrained(…, tokenizer=PATH), or --tokenizer PATH of a command"
        )
    return None
