"""The model card of an export: which program reads which file, and how exactly."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from model import BEiT3Config
from model.network.interop import OFFICIAL_TEXT_ROWS
from pipelines.pretrain.foreign_configs import official_file, torchscale_arguments
from pipelines.pretrain.provenance import Provenance, use_lines
from tokenizer.text import FILE_NAME


def model_card(
    config: BEiT3Config,
    omitted: list[str],
    text_file: str | None,
    evaluation: Mapping[str, float],
    *,
    has_codebook: bool,
    made: Provenance,
) -> str:
    """Return the model card.

    Args:
        config: the network's.
        omitted: names of tensors that the official layout does not have.
        text_file: name of the text tokenizer's file; None if there is none.
        evaluation: metrics on held-out rows.
        has_codebook: whether the image tokenizer lies beside the network.
        made: what the network was made from.
    """
    lines = [
        "# BEiT-3 checkpoint",
        "",
        "Pretrained by masked data modeling.",
        "",
        *use_lines('embed_images(["image.jpg"])'),
        "Inference needs `network.json`, `model.safetensors` and, for texts, the text tokenizer.",
        "",
        "| file | read by |",
        "|---|---|",
        "| `model.safetensors`, `network.json` | `model.BEiT3.from_pretrained(folder)` |",
        f"| `{official_file(config)}` | {_official_reader(config)} |",
        '| `timm/` | `timm.create_model("local-dir:timm", pretrained=True)`: images alone |',
        *([] if text_file is None else [text_reader(text_file)]),
        *(["| `vqkd.pt` | `tokenizer.VQKD.load`, BEiT v2's code |"] if has_codebook else []),
        "",
        "`beit3 export --check FOLDER` compares each file with the program that reads it.",
        "",
        *_warnings(config, omitted),
        *made.lines(),
        *(metric_lines("Evaluation on held-out rows", evaluation) if evaluation else []),
        *network_lines(config),
    ]
    return "\n".join(lines)


def network_lines(config: BEiT3Config) -> list[str]:
    """Return the table of a network's configuration."""
    rows = [f"| {name} | {value} |" for name, value in config.to_dict().items()]
    return ["## Network", "", "| field | value |", "|---|---|", *rows, ""]


def metric_lines(
    title: str, metrics: Mapping[str, float], published: Mapping[str, float] = MappingProxyType({})
) -> list[str]:
    """Return a table of metrics, beside the published ones if there are some."""
    heads = ["metric", "value", *(["published"] if published else [])]
    lines = [f"## {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in sorted({*metrics, *published}):
        cells = [name, f"{metrics[name]:.4g}" if name in metrics else "–"]
        if published:
            cells.append(f"{published[name]:.4g}" if name in published else "")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def text_reader(text_file: str) -> str:
    """Return the line of the table of files that says who reads the text tokenizer."""
    if text_file == FILE_NAME:
        return (
            f"| `{text_file}`, `tokenizer_config.json` | "
            "`transformers.AutoTokenizer.from_pretrained(folder)` |"
        )
    return (
        f"| `{text_file}` | `tokenizer.TextTokenizer.load`; not transformers, whose XLM-R gives "
        "other ids |"
    )


def _official_reader(config: BEiT3Config) -> str:
    values = torchscale_arguments(config).items()
    arguments = ", ".join(f"{name}={value}" for name, value in values)
    exact = "images, texts and pairs" if not config.fusion_layers else "images alone, texts alone"
    reader = (
        "the BEiT-3 classes of github.com/microsoft/unilm and torchscale"
        if official_file(config) == "official.pt"
        else "torchscale's `BEiT3` only, not the BEiT-3 classes of github.com/microsoft/unilm"
    )
    return f"{reader}, built with `EncoderConfig({arguments})`; exact for {exact}"


def _warnings(config: BEiT3Config, omitted: list[str]) -> Iterator[str]:
    """Yield what a reader would get wrong, one paragraph each."""
    if not config.subln:
        yield (
            "The authors' classes always build sub-LayerNorm, which this network does not have: "
            f"they would load `{official_file(config)}` with warnings and compute other values."
        )
        yield ""
    if config.fusion_layers:
        one = config.fusion_layers == 1
        blocks = "last block" if one else f"last {config.fusion_layers} blocks"
        yield (
            f"The vision-language experts of the {blocks} have no name in the official layout: "
            "programs of that layout compute other values for pairs."
        )
        yield ""
    if config.attention == "shared":
        yield f"`{official_file(config)}` repeats the shared attention for both modalities."
        yield ""
    if any(name.startswith("language.positions") for name in omitted):
        yield (
            f"`{official_file(config)}` holds {OFFICIAL_TEXT_ROWS - 2} of the "
            f"{config.max_text_length} text positions, as many as the authors' classes build."
        )
        yield ""
    if tensors := [name for name in omitted if not name.startswith("language.positions")]:
        yield (
            f"{len(tensors)} tensors of the vision-language experts are in `model.safetensors` "
            "only."
        )
        yield ""
    mean, std = (", ".join(map(str, x)) for x in (config.pixel_mean, config.pixel_std))
    yield (
        f"Images are normalized with mean {mean} and standard deviation {std}. "
        "`timm/config.json` says so, and `timm.data.resolve_model_data_config` of the model above "
        "returns it. A model made by name, such as `beit3_base_patch16_224`, has ImageNet's "
        "values instead, and the features would be wrong."
    )
    yield ""
