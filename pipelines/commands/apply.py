"""``beit3 embed``, ``caption``, ``answer`` and ``classify``: a model applied to own inputs.

Without ``--workdir`` a command computes in its own process and prints the results. With it, the
same code runs as a workflow, which continues where it was killed and writes a Parquet dataset.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import console, given_path

if TYPE_CHECKING:
    from pipelines.workflows.apply import ApplyRecipe

Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Export folder, workdir or checkpoint, file of weights, or owner/name on the hub.",
    ),
]
Inputs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="INPUTS…", parser=given_path, help="Image files, folders of images, Parquet files."
    ),
]
Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES…", parser=given_path, help="Image files, folders of images, Parquet files."
    ),
]
Texts = Annotated[list[str], typer.Option("--text", metavar="TEXT", help="A text; repeatable.")]
TextFiles = Annotated[
    list[Path],
    typer.Option("--texts", metavar="FILE", parser=given_path, help="File with a text per line."),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(help="Parquet column of the images, as bytes or paths; image by default."),
]
TextColumn = Annotated[
    str | None, typer.Option(help="Parquet column of texts, which are read instead of images.")
]
QuestionColumn = Annotated[
    str | None, typer.Option(help="Parquet column of the questions about its images.")
]
Question = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Question that is asked about every image.")
]
NumBest = Annotated[int, typer.Option("--top", min=1, help="Number of answers or labels to give.")]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=given_path,
        help="SentencePiece model of a file of weights, as beit3.spm.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=given_path,
        help="Labels of a file of weights, as answer2label.txt.",
    ),
]
WorkdirOrNone = Annotated[
    str | None,
    typer.Option(
        help="Folder or s3://bucket/prefix of the results, as a Parquet dataset; without it they "
        "are printed."
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Set another key: apply.precision=bf16."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Without --workdir: print a JSON object per input.")
]


def embed(
    model: Model,
    inputs: Inputs = None,
    text: Texts = [],  # noqa: B006
    texts: TextFiles = [],  # noqa: B006
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    tokenizer: Tokenizer = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Compute features of images and texts, among which `beit3 search` finds the nearest ones.

    Example: beit3 embed --model runs/demo-retrieval photos --workdir runs/photos
    """
    given = _inputs(inputs, text, texts, image_column, text_column)
    _apply(_recipe("embed", _model(model, tokenizer), given, set_), workdir, json_)


def caption(
    model: Model,
    images: Images,
    image_column: ImageColumn = None,
    tokenizer: Tokenizer = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Caption images.

    Example: beit3 caption --model runs/demo-captioning photos/a.jpg
    """
    given = _inputs(images, image_column=image_column)
    _apply(_recipe("caption", _model(model, tokenizer), given, set_), workdir, json_)


def answer(
    model: Model,
    images: Images,
    question: Question = None,
    question_column: QuestionColumn = None,
    image_column: ImageColumn = None,
    top: NumBest = 5,
    tokenizer: Tokenizer = None,
    labels: Labels = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Answer a question about each image, or the questions beside the images of a Parquet file.

    Example: beit3 answer --model runs/demo-vqa photos --question "how many squares are there?"
    """
    from orchestration.errors import RecipeError

    if question is not None and question_column is not None:
        raise RecipeError("--question and --question-column exclude each other; give one of them")
    column = image_column or ("image" if question_column else None)
    given = _inputs(images, image_column=column, text_column=question_column) | {
        "question": question
    }
    section = _model(model, tokenizer, labels) | {"num_best": top}
    _apply(_recipe("answer", section, given, set_), workdir, json_)


def classify(
    model: Model,
    inputs: Inputs = None,
    text: Texts = [],  # noqa: B006
    texts: TextFiles = [],  # noqa: B006
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    top: NumBest = 5,
    tokenizer: Tokenizer = None,
    labels: Labels = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Classify images, or texts with a model that was fine-tuned for texts.

    Example: beit3 classify --model runs/demo-imagenet photos --top 3 --json
    """
    given = _inputs(inputs, text, texts, image_column, text_column)
    section = _model(model, tokenizer, labels) | {"num_best": top}
    _apply(_recipe("classify", section, given, set_), workdir, json_)


def _inputs(
    images: list[Path] | None,
    text: list[str] = [],  # noqa: B006
    texts: list[Path] = [],  # noqa: B006
    image_column: str | None = None,
    text_column: str | None = None,
) -> dict[str, Any]:
    """Return the section ``inputs`` of the recipe."""
    from pipelines.apply.inputs import IMAGE_COLUMN, Location

    return {
        "images": [Location.of(path).model_dump() for path in images or ()],
        "text_files": [Location.of(path).model_dump() for path in texts],
        "texts": list(text),
        "image_column": image_column or (None if text_column else IMAGE_COLUMN),
        "text_column": text_column,
    }


def _model(model: str, tokenizer: Path | None = None, labels: Path | None = None) -> dict[str, Any]:
    """Return what the section ``apply`` of the recipe says of the model."""
    from pipelines.apply.model_location import located

    files = {"text_tokenizer": tokenizer, "labels": labels}
    given = {name: str(path) for name, path in files.items() if path is not None}
    return {"model": located(model), **given}


def _recipe(
    operation: str, section: dict[str, Any], inputs: dict[str, Any], overrides: list[str]
) -> "ApplyRecipe":
    from dataprep.text import clean_caption
    from orchestration.errors import RecipeError
    from orchestration.recipe import complete_recipe
    from pipelines.apply.inputs import InputParams
    from pipelines.workflows.apply import ApplyRecipe, misfit

    given = {"--text": inputs["texts"], "--question": [inputs.get("question")]}
    for option, texts in given.items():
        if any(text is not None and not clean_caption(text) for text in texts):
            raise RecipeError(f"beit3 {operation}: {option} is empty; give a text")
    inputs = {**inputs, "texts": [clean_caption(text) for text in inputs["texts"]]}
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


def _apply(recipe: "ApplyRecipe", workdir: str | None, as_json: bool) -> None:
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
    for row, problem in results(recipe.operation, recipe.inputs, recipe.apply):
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
