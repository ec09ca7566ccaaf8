"""``beit3 inspect model``: what a network costs before anything is trained."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from pipelines.commands.options import console

if TYPE_CHECKING:
    from model.network.config import BEiT3Config, Recomputing

Size = Literal["tiny", "small", "base", "large", "giant"]


def model(
    size: Annotated[Size, typer.Argument(help="Named size of the network.")],
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field: fusion_layers=0."),
    ] = [],  # noqa: B006
    vocab_size: Annotated[int, typer.Option(min=1, help="Rows of the token embedding.")] = 64010,
    num_codes: Annotated[
        int, typer.Option(min=1, help="Number of codes of the image tokenizer.")
    ] = 8192,
    text_length: Annotated[int, typer.Option(min=1, help="Positions of a text-only sample.")] = 128,
    caption_length: Annotated[int, typer.Option(min=1, help="Positions of a caption.")] = 64,
    samples_per_stream: Annotated[
        int, typer.Option(min=1, help="Samples of each stream (image, text, pair) in a step.")
    ] = 2048,
    workers: Annotated[int, typer.Option(min=1, help="Number of training workers.")] = 1,
    micro_batch: Annotated[int, typer.Option(min=1, help="Samples in one forward pass.")] = 64,
    sharded: Annotated[
        bool, typer.Option(help="Estimate sharding weights and optimizer state over the workers.")
    ] = False,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Precision of the forward pass.")
    ] = "bf16",
    activation_checkpointing: Annotated[
        Literal["none", "selective", "full"],
        typer.Option(help="What the backward pass computes again instead of keeping it."),
    ] = "none",
) -> None:
    """Print parameters by part, operations of a step, and memory of a worker.

    Example: beit3 inspect model giant --workers 256 --sharded --micro-batch 8
    """
    from model.training.cost import ParallelLayout, memory_bytes, parameters_by_part, sample_shapes

    config = _network(size, set_).config(vocab_size=vocab_size, num_codes=num_codes)
    _print_parameters(size, parameters_by_part(config))
    batch = sample_shapes(config, text_length=text_length, caption_length=caption_length)
    _print_operations(config, batch, samples_per_stream, activation_checkpointing)
    layout = ParallelLayout(workers, micro_batch, sharded, precision, activation_checkpointing)
    laid = "sharded over" if sharded else "copied to"
    workers_text = f"{workers} worker{'s' if workers > 1 else ''}"
    title = f"memory of a worker: {laid} {workers_text}, micro-batch {micro_batch}, {precision}"
    _print_memory(title, memory_bytes(config, batch, layout))


def _print_parameters(size: str, parts: dict[str, int]) -> None:
    table = _table(f"{size}: parameters", "part", "millions")
    for name, count in parts.items():
        table.add_row(name, f"{count / 1e6:.2f}")
    table.add_section()
    table.add_row("all", f"{sum(parts.values()) / 1e6:.2f}")
    console.print(table)


def _print_operations(
    config: "BEiT3Config", batch: Any, samples_per_stream: int, recomputing: "Recomputing"
) -> None:
    from model.training.cost import forward_flops, step_flops

    table = _table("operations", "of", "GFLOP forward", "GFLOP forward and backward")
    for stream, sample in batch.items():
        forward = forward_flops(config, sample) / 1e9
        table.add_row(
            f"one {stream} sample of {sample.length} positions",
            f"{forward:.1f}",
            f"{step_flops(config, {stream: sample}, {stream: 1}, recomputing) / 1e9:.1f}",
        )
    counts = dict.fromkeys(batch, samples_per_stream)
    step = step_flops(config, batch, counts, recomputing) / 1e9
    table.add_section()
    table.add_row(f"one step of 3 x {samples_per_stream} samples", "", f"{step:,.0f}")
    console.print(table)


def _print_memory(title: str, memory: dict[str, int]) -> None:
    from orchestration.reporting.results import human_bytes

    table = _table(title, "for", "size")
    for name, num_bytes in memory.items():
        table.add_row(name, human_bytes(num_bytes))
    table.add_section()
    table.add_row("all", human_bytes(sum(memory.values())))
    console.print(table)


def _network(size: str, overrides: list[str]) -> Any:
    from pydantic import ValidationError

    from orchestration.errors import RecipeError
    from orchestration.recipe_errors import message_of
    from orchestration.recipe_text import parse_value
    from pipelines.pretrain.params import NetworkParams

    values: dict[str, Any] = {"size": size}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set {override}: expected KEY=VALUE, as in fusion_layers=0")
        values[key] = parse_value(text)
    try:
        return NetworkParams.model_validate(values)
    except ValidationError as error:
        reasons = "; ".join(
            ": ".join([*map(str, item["loc"]), message_of(NetworkParams, item)])
            for item in error.errors()
        )
        raise RecipeError(f"inspect model {size}: the network cannot be built: {reasons}") from None


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for name in others:
        table.add_column(name, justify="right")
    return table
