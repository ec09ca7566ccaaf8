"""Options of the commands that apply a model to own inputs."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import given_column, given_path

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
SecondTexts = Annotated[
    list[str],
    typer.Option(
        "--second-text",
        metavar="TEXT",
        help="The second text of a pair, one for each --text; repeatable.",
    ),
]
SecondImages = Annotated[
    list[Path],
    typer.Option(
        "--second-image",
        metavar="FILE",
        parser=given_path,
        help="The second image of a pair, one for each image file; --text is said of both.",
    ),
]
SecondImageColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", parser=given_column, help="Parquet column of the second images of pairs."
    ),
]
SecondTextColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", parser=given_column, help="Parquet column of the second texts of pairs."
    ),
]
TextFiles = Annotated[
    list[Path],
    typer.Option("--texts", metavar="FILE", parser=given_path, help="File with a text per line."),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=given_column,
        help="Parquet column of the images, as bytes or paths; image by default.",
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=given_column,
        help="Parquet column of texts, which are read instead of images.",
    ),
]
QuestionColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=given_column,
        help="Parquet column of the questions about its images.",
    ),
]
Question = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Question that is asked about every image.")
]
NumBest = Annotated[int, typer.Option("--top", min=1, help="Number of answers or labels to give.")]
MinScore = Annotated[
    float | None,
    typer.Option(
        help="Score above which a box is an object; that of the model's recipe by default."
    ),
]
Beams = Annotated[
    int | None, typer.Option(help="Captions that are continued side by side; 3 by default.")
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(help="Exponent of the length that divides log-probabilities; 0.6 by default."),
]
MaxLength = Annotated[
    int | None, typer.Option(help="Most tokens of a caption, begin and end included.")
]
Temperature = Annotated[
    float | None, typer.Option(help="Draw captions at this temperature instead of a search.")
]
TopP = Annotated[
    float | None, typer.Option(help="Probability of the likeliest tokens that are drawn from.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the draws; 0 by default.")]
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
