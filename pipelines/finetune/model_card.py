"""The model card of the export of a fine-tuning: which program reads which file."""

from collections.abc import Mapping
from typing import Any, Final

from model import BEiT3Config
from pipelines.pretrain.model_card import metric_lines, network_lines, text_reader
from pipelines.pretrain.provenance import Provenance, use_lines

_CALLS: Final = {
    "retrieval": 'similarity(["image.jpg"], ["two dogs on a beach"])',
    "vqa": 'answer(["image.jpg"], ["how many dogs are there?"])',
    "nlvr2": 'classify_pairs([("left.jpg", "right.jpg")], ["both images show dogs"])',
    "image_classification": 'classify(["image.jpg"])',
    "text_classification": 'classify(["a charming film"])',
    "captioning": 'caption(["image.jpg"])',
}
"The method of ``PretrainedModel`` that shows a task, by its name."
_BY_RECIPE: Final = [
    "## Use",
    "",
    "A recipe of the task that starts from this folder (`start_from`) and trains nothing "
    "(`finetune: {epochs: 0}`) predicts for new images.",
    "",
]
"Of a task without such a method."


def model_card(
    task: Mapping[str, Any],
    config: BEiT3Config,
    *,
    num_labels: int,
    text_file: str,
    official: str | None,
    metrics: Mapping[str, float],
    published: Mapping[str, float],
    made: Provenance,
) -> str:
    """Return the model card.

    Args:
        task: name and parameters of the task.
        config: the encoder's.
        num_labels: labels that the network scores; 0 if it scores none.
        text_file: name of the text tokenizer's file.
        official: the authors' class that reads ``official.pth``; None if there is no such file.
        metrics: of the evaluated splits.
        published: values of the same metrics.
        made: what the network was made from.
    """
    files = [
        "| `model.safetensors`, `network.json`, `task.json` | this project: `PretrainedModel`, and "
        "`start_from` of a recipe |"
    ]
    if num_labels:
        files.append(f"| `labels.txt` | one JSON object per line: the {num_labels} labels |")
    if official is not None:
        files.append(f"| `official.pth` | `{official}` of github.com/microsoft/unilm |")
    mean, std = (", ".join(map(str, x)) for x in (config.pixel_mean, config.pixel_std))
    lines = [
        f"# BEiT-3 fine-tuned for {task['name']}",
        "",
        *(use_lines(_CALLS[task["name"]]) if task["name"] in _CALLS else _BY_RECIPE),
        "Inference needs "
        + ", ".join(f"`{name}`" for name in _needed(task, num_labels, text_file))
        + ".",
        "",
        "| file | read by |",
        "|---|---|",
        *files,
        text_reader(text_file),
        "",
        f"Images have {config.image_size} x {config.image_size} pixels and are normalized with "
        f"mean {mean} and standard deviation {std}; texts have at most {config.max_text_length} "
        "tokens, begin and end included.",
        "",
        *([] if official is not None else _why_not_official(config)),
        *made.lines(),
        *metric_lines("Evaluation", metrics, published),
        "## Task",
        "",
        "| parameter | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in task.items()),
        "",
        *network_lines(config),
    ]
    return "\n".join(lines)


def _needed(task: Mapping[str, Any], num_labels: int, text_file: str) -> list[str]:
    """Return the names of the files that inference reads."""
    named = [str(task["class_names"])] if task.get("class_names") else []
    labels = ["labels.txt"] if num_labels else []
    return ["network.json", "model.safetensors", "task.json", *labels, *named, text_file]


def _why_not_official(config: BEiT3Config) -> list[str]:
    if config.fusion_layers:
        reason = "the authors' classes have no vision-language experts"
    elif not config.subln:
        reason = "the authors' classes always build sub-LayerNorm, which this network does not have"
    else:
        reason = "the authors have no class with this head and this final LayerNorm"
    return [f"There is no file in the official layout, as {reason}.", ""]
