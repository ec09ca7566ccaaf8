"""``beit3 search``: the rows of embedded images or texts that are nearest to a query."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.apply_options import Model, Tokenizer
from pipelines.commands.options import Endpoint, Region, console, given_path
from pipelines.commands.workdir import open_workdir


def search(
    model: Model,
    in_: Annotated[
        str, typer.Option("--in", metavar="WORKDIR", help="Workdir of a `beit3 embed`.")
    ],
    query: Annotated[str | None, typer.Argument(metavar="TEXT", help="Text to search by.")] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=given_path, help="Image to search by, instead of a text."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of rows to show.")] = 5,
    tokenizer: Tokenizer = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object per row.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
) -> None:
    """List the embedded images or texts nearest to a text or an image, with their cosines.

    Example: beit3 search --model runs/demo-retrieval --in runs/photos "two red squares" --top 3
    """
    import json
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from orchestration.errors import RecipeError
    from pipelines.apply.applying import load_model
    from pipelines.apply.model_location import digest_of, located
    from pipelines.apply.search import embed_query, nearest, open_features

    if (query is None) == (image is None):
        raise RecipeError("search: give a text or --image FILE, one of the two")
    location = located(model)
    workdir = open_workdir(in_, endpoint_url, region)
    features = open_features(workdir, digest_of(location), tokenizer)
    vector = embed_query(load_model(location, tokenizer), features, query, image)
    (found,) = nearest(features, vector, top)
    if json_:
        for row in found:
            typer.echo(json.dumps(asdict(row), ensure_ascii=False))
        return
    table = Table("score", "path", "text")
    for row in found:
        table.add_row(f"{row.score:.4f}", escape(row.path or ""), escape(row.text or ""))
    console.print(table)
