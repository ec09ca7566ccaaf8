"""What a command that applies a model was given → its recipe, and the run of it."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipelines.commands.options import console

if TYPE_CHECKING:
    from pipelines.workflows.apply import ApplyRecipe


def inputs_section(
    images: list[Path] | None,
    text: list[str] = [],  # noqa: B006
    texts: list[Path] = [],  # noqa: B006
    image_column: str | None = None,
    text_column: str | None = None,
    second_images: list[Path] = [],  # noqa: B006
    *,
    about_images: bool = False,
) -> dict[str, Any]:
    """Return the section ``inputs`` of the recipe.

    With ``about_images``, the texts of Parquet files belong to the images beside them.
    """
    from pipelines.apply.inputs import IMAGE_COLUMN, Location

    return {
        "images": [Location.of(path).model_dump() for path in images or ()],
        "second_images": [Location.of(path).model_dump() for path in second_images],
        "text_files": [Location.of(path).model_dump() for path in texts],
        "texts": list(text),
        "image_column": image_column or (IMAGE_COLUMN if about_images or not text_column else None),
        "text_column": text_column,
    }


def model_section(
    model: str, tokenizer: Path | None = None, labels: Path | None = None
) -> dict[str, Any]:
    """Return what the section ``apply`` of the recipe says of the model."""
    from pipelines.apply.model_location import located

    files = {"text_tokenizer": tokenizer, "labels": labels}
    given = {name: str(path) for name, path in files.items() if path is not None}
    return {"model": located(model), **given}


def decoding_section(**given: float | None) -> dict[str, Any]:
    """Return what the section ``apply`` of the recipe says of captions, by the keys of Python.

    Raises:
        RecipeError: a seed without a temperature, which would change nothing.
    """
    from orchestration.errors import RecipeError

    decoding = {name: value for name, value in given.items() if value is not None}
    if "seed" in decoding and "temperature" not in decoding:
        raise RecipeError("--seed has no effect without --temperature; give both")
    if "temperature" in decoding:
        decoding.setdefault("num_beams", 1)
    return {"decoding": decoding} if decoding else {}


def apply_recipe(
    operation: str, section: dict[str, Any], inputs: dict[str, Any], overrides: list[str]
) -> "ApplyRecipe":
    """Return the recipe of a command.

    Raises:
        RecipeError: a text is empty, or inputs or settings do not fit the operation.
    """
    from dataprep.text import clean_caption
    from orchestration.errors import RecipeError
    from orchestration.recipe import complete_recipe
    from pipelines.apply.inputs import InputParams
    from pipelines.workflows.apply import ApplyRecipe, misfit

    seconds = inputs.get("second_texts", ())
    given = {
        "--text": inputs["texts"],
        "--second-text": seconds,
        "--question": [inputs.get("question")],
    }
    for option, texts in given.items():
        if any(text is not None and not clean_caption(text) for text in texts):
            raise RecipeError(f"beit3 {operation}: {option} is empty; give a text")
    inputs = {
        **inputs,
        "texts": [clean_caption(text) for text in inputs["texts"]],
        "second_texts": [clean_caption(text) for text in seconds],
    }
    if inputs.get("question") is not None:  # as a question of a column
        inputs["question"] = clean_caption(inputs["question"])
    if problem := misfit(operation, InputParams(**inputs)):
        raise RecipeError(f"beit3 {operation}: {problem}")
    values = {
        "name": operation,
        "operation": operation,
        "inputs": inputs,
        "apply": section,
    }
    return complete_recipe(ApplyRecipe, f"beit3 {operation}", values, overrides)


def apply_model(recipe: "ApplyRecipe", workdir: str | None, as_json: bool) -> None:
    """Print the results, or run the workflow that writes them into a workdir."""
    if workdir is None:
        _print_results(recipe, as_json)
        return
    from orchestration.errors import RecipeError
    from orchestration.plan import State
    from orchestration.reporting.estimates import estimate
    from orchestration.reporting.summary import plan_table
    from orchestration.storage.store import Store
    from pipelines.summary import print_summary
    from pipelines.workflows.apply import build_workflow

    store = Store(workdir, recipe.storage)
    if store.is_local and (folder := recipe.inputs.folder_around(Path(store.uri))):
        raise RecipeError(
            f"{workdir}: the workdir lies in the inputs {folder}, which it would change; name "
            "another workdir"
        )
    workflow = build_workflow(recipe)
    planned = workflow.plan(store)
    if any(each.state is not State.FRESH for each in planned):
        console.print(plan_table(planned, estimate(planned, store)))
    planned = workflow.run(store, console)
    print_summary(console, store, {p.stage.name: p.fingerprint for p in planned})


def _print_results(recipe: "ApplyRecipe", as_json: bool) -> None:
    """Print a table or JSON lines; rows that cannot be used go to the error output, and exit 1."""
    from pipelines.apply.in_process import json_line, results, table_of_results

    good, num_bad = [], 0
    with closing(results(recipe.operation, recipe.inputs, recipe.apply)) as found:
        for row, problem in found:
            if problem is not None:
                num_bad += 1
                typer.echo(f"{row['id']}: {problem}", err=True)
            elif as_json:
                typer.echo(json_line(row))
            else:
                good.append(row)
    if good:
        console.print(table_of_results(recipe.operation, good))
    if num_bad:
        raise typer.Exit(1)
