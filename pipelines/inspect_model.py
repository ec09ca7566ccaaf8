"""``beit3 inspect``: what a network costs before anything is trained."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from model.network.config import SIZES
from orchestration.errors import RecipeError
from orchestration.reporting.summary import human_bytes

app = typer.Typer(help="Look into networks.", no_args_is_help=True)
console = Console()

Size = StrEnum("Size", list(SIZES))  # type: ignore[misc]  # the sizes are named in one place


@app.command()
def model(
    size: Annotated[Size, typer.Argument(help="A named size.")],
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="As in fusion_layers=0.")
    ] = [],  # noqa: B006
    vocab_size: Annotated[int, typer.Option(help="Rows of the token embedding.")] = 64010,
    num_codes: Annotated[int, typer.Option(help="Codes of the image tokenizer.")] = 8192,
    text_length: Annotated[int, typer.Option(help="Tokens of a text.")] = 128,
    caption_length: Annotated[int, typer.Option(help="Tokens of a caption.")] = 64,
    samples_per_stream: Annotated[int, typer.Option(help="Of each stream in a step.")] = 2048,
    workers: Annotated[int, typer.Option(help="Number of workers, one GPU each.")] = 1,
    micro_batch: Annotated[int, typer.Option(help="Samples in one forward.")] = 64,
    sharded: Annotated[bool, typer.Option(help="Shard weights and state over workers.")] = False,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the forward.")] = "bf16",
    activation_checkpointing: Annotated[
        bool, typer.Option(help="Recompute activations in the backward.")
    ] = False,
) -> None:
    """Print parameters by part, operations, and memory of a worker under a parallel layout.

    Example: beit3 inspect model giant --workers 256 --sharded --micro-batch 8
    """
    from model.training.cost import (
        ParallelLayout,
        forward_flops,
        memory_bytes,
        parameters_by_part,
        sample_shapes,
        step_flops,
    )

    config = _network(size, set_).config(vocab_size=vocab_size, num_codes=num_codes)
    parts = parameters_by_part(config)
    table = _table(f"{size}: parameters", "part", "millions")
    for name, count in parts.items():
        table.add_row(name, f"{count / 1e6:.2f}")
    table.add_section()
    table.add_row("all", f"{sum(parts.values()) / 1e6:.2f}")
    console.print(table)

    batch = sample_shapes(config, text_length=text_length, caption_length=caption_length)
    counts = dict.fromkeys(batch, samples_per_stream)
    table = _table("operations", "of", "GFLOP forward", "GFLOP forward and backward")
    for stream, sample in batch.items():
        forward = forward_flops(config, sample) / 1e9
        table.add_row(
            f"{'an' if stream == 'image' else 'a'} {stream} of {sample.length}",
            f"{forward:.1f}",
            f"{(4 if activation_checkpointing else 3) * forward:.1f}",
        )
    whole = step_flops(config, batch, counts, activation_checkpointing) / 1e9
    table.add_section()
    table.add_row(f"a step of 3 x {samples_per_stream}", "", f"{whole:,.0f}")
    console.print(table)

    layout = ParallelLayout(workers, micro_batch, sharded, precision, activation_checkpointing)
    memory = memory_bytes(config, batch, layout)
    laid = "sharded over" if sharded else "copied to"
    table = _table(
        f"memory of a worker: {laid} {workers}, micro-batch {micro_batch}, {precision}",
        "for",
        "size",
    )
    for name, size_bytes in memory.items():
        table.add_row(name, human_bytes(size_bytes))
    table.add_section()
    table.add_row("all", human_bytes(sum(memory.values())))
    console.print(table)


def _network(size: str, overrides: list[str]) -> Any:
    from pipelines.pretrain.pretrain import NetworkParams

    values: dict[str, Any] = {"size": size}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in fusion_layers=0")
        values[key] = yaml.safe_load(text)
    try:
        return NetworkParams.model_validate(values)
    except ValidationError as error:
        reasons = "; ".join(
            ": ".join([*map(str, e["loc"]), e["msg"].removeprefix("Value error, ")])
            for e in error.errors()
        )
        raise RecipeError(f"the network cannot be as asked: {reasons}") from None


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for name in others:
        table.add_column(name, justify="right")
    return table
