"""The workflow of a model applied to inputs: list them, then embed, caption, detect and so on."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from orchestration import Recipe, Workflow
from orchestration.params import OPERATIONAL
from pipelines.apply import applying, inputs
from pipelines.apply.operations import OPERATIONS, SETTINGS
from pipelines.apply.params import ApplyParams


class ApplyRecipe(Recipe):
    """A model, an operation and the inputs."""

    operation: Annotated[
        Literal["embed", "caption", "answer", "classify", "detect", "segment"], OPERATIONAL
    ]
    "What the model does; also the name of the stage."
    inputs: inputs.InputParams
    "What the model is given."
    apply: ApplyParams
    "The model and how it is applied."

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        if problem := misfit(self.operation, self.inputs):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        fields = ApplyParams.model_fields
        for name in sorted(SETTINGS - OPERATIONS[self.operation].settings):
            if getattr(self.apply, name) != fields[name].default:
                raise ValueError(f"apply.{name} has no effect on {self.operation}; leave it out")
        return self


def misfit(operation: str, given: inputs.InputParams) -> str | None:
    """Return why an operation cannot take inputs, or None."""
    takes, asks = OPERATIONS[operation].takes, "image and text" in OPERATIONS[operation].takes
    if not given.kinds:
        texts = ", or give --text or --texts" if "text" in takes else ""
        return f"no inputs; name images, folders of images or Parquet files{texts}"
    if given.question is not None and not asks:
        return "a question is given, but none is taken; leave it out"
    if asks and given.image_column is not None and given.image_column == given.text_column:
        return (
            f"column {given.image_column} is named for the images and for the questions; name two "
            "columns: --image-column and --question-column"
        )
    if problem := _wrong_pairs(operation, given) or _wrong_image_pairs(operation, given):
        return problem
    if "image and text" in given.kinds and not asks:
        return "--image-column and --text-column exclude each other; give one of them"
    if "image" in given.kinds and asks:
        return "no question; give --question, or --question-column for Parquet files"
    if "text" in given.kinds and "text" not in takes:
        return "texts are given, but only images are taken; leave the texts out"
    return None


def _wrong_pairs(operation: str, given: inputs.InputParams) -> str | None:
    """Return what is wrong with the pairs of texts, or None."""
    if not given.has_pairs:
        return None
    if not OPERATIONS[operation].takes_pairs:
        return "second texts are given, but only classify takes pairs of texts; leave them out"
    if given.second_texts and len(given.second_texts) != len(given.texts):
        return (
            f"{len(given.texts)} --text and {len(given.second_texts)} --second-text; give one of "
            "the second for each of the first"
        )
    if given.second_text_column is not None and given.text_column is None:
        return "--second-text-column names second texts; name the first with --text-column"
    if given.second_text_column is not None and given.second_text_column == given.text_column:
        return f"column {given.text_column} is named for both texts of a pair; name two columns"
    return None


def _wrong_image_pairs(operation: str, given: inputs.InputParams) -> str | None:
    """Return what is wrong with the pairs of images, or None."""
    if not given.has_image_pairs:
        return None
    if not OPERATIONS[operation].takes_pairs:
        return "second images are given, but only classify takes pairs of images; leave them out"
    columns = {given.image_column, given.second_image_column, given.text_column} - {None}
    if given.second_image_column is not None:
        fits = len(columns) == 3 and not given.second_images and not given.texts
    else:
        fits = len(given.images) == len(given.second_images) == len(given.texts)
        fits = fits and given.text_column is None
    if not fits or given.has_pairs or given.text_files:
        return (
            "a pair of images is an image file, a --second-image and a --text, one of each for "
            "every pair; or three columns of Parquet files: --image-column, --second-image-column "
            "and --text-column"
        )
    return None


def build_workflow(recipe: ApplyRecipe) -> Workflow:
    """Return the workflow of a recipe."""
    listed = inputs.stage(recipe.inputs)
    operation = OPERATIONS[recipe.operation]
    return Workflow(recipe, (listed, applying.stage(operation, recipe.apply, listed)))
