"""The workflow of a model applied to inputs: list them, then embed, caption, answer or classify."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from orchestration import Recipe, Workflow
from orchestration.params import OPERATIONAL
from pipelines.apply import applying, inputs
from pipelines.apply.operations import OPERATIONS


class ApplyRecipe(Recipe):
    """A model, an operation and the inputs."""

    operation: Annotated[Literal["embed", "caption", "answer", "classify"], OPERATIONAL]
    "What the model does; also the name of the stage."
    inputs: inputs.InputParams
    "What the model is given."
    apply: applying.ApplyParams
    "The model and how it is applied."

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        if problem := misfit(self.operation, self.inputs):
            raise ValueError(problem)
        return self


def misfit(operation: str, given: inputs.InputParams) -> str | None:
    """Return why an operation cannot take inputs, or None."""
    takes = OPERATIONS[operation].takes
    if not (given.images or given.text_files or given.texts):
        texts = ", or give --text or --texts" if "text" in takes else ""
        return f"no inputs; name images, folders of images or Parquet files{texts}"
    has_texts = bool(given.text_files or given.texts)
    asks = given.question is not None or given.text_column is not None
    if "text" not in takes and has_texts:
        return "texts are given, but only images are taken; leave the texts out"
    if "image and text" in takes and not asks:
        return "no question; give --question, or --question-column for Parquet files"
    if "image and text" not in takes and given.question is not None:
        return "a question is given, but none is taken; leave it out"
    if "image and text" not in takes and None not in (given.image_column, given.text_column):
        return "--image-column and --text-column exclude each other; give one of them"
    return None


def build_workflow(recipe: ApplyRecipe) -> Workflow:
    """Return the workflow of a recipe."""
    listed = inputs.stage(recipe.inputs)
    operation = OPERATIONS[recipe.operation]
    return Workflow(recipe, (listed, applying.stage(operation, recipe.apply, listed)))
