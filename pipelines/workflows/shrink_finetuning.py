"""Shrink a recipe of a fine-tuning to a trial run: the drawn files of its task, and few steps.

What a recipe says about the method stays (form of the task, layer decay, augmentation); data, sizes
and hardware are those of the tiny recipe of the task. It starts from the demo's network, unless
``--set start_from`` says otherwise.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

from pipelines.workflows.shrink import without_sizes

Values = dict[str, Any]

TEMPLATES: Final = {
    "retrieval": "finetune/tiny-retrieval",
    "image_classification": "finetune/tiny-imagenet",
    "captioning": "finetune/tiny-captioning",
    "vqa": "finetune/tiny-vqa",
    "nlvr2": "finetune/tiny-nlvr2",
    "text_classification": "finetune/tiny-glue",
    "detection": "finetune/tiny-detection",
    "segmentation": "finetune/tiny-segmentation",
}
"The tiny recipe of each task."
_STEPS: Final = {"steps": 10, "warmup_steps": 2, "evaluations": 1}
_DENSE: Final = {"detection": ("masks",), "segmentation": ()}
"Tasks whose heads and input sizes are those of a GPU, and what a trial run keeps of them."
_DRAWN_CORPORA: Final = ("cola", "sst2", "mrpc", "rte", "stsb")
"Corpora of GLUE that the miniature web draws; another one gets the template's."
_KEPT_FROM_TEMPLATE: Final = ("miniweb", "cluster", "start_from", "data", "predict")
_SIZES: Final = ("batch_size", "micro_batch", "precision", "cpus_per_worker")


def shrink_finetuning(values: Mapping[str, Any], template: Mapping[str, Any]) -> Values:
    """Return the values of a recipe, shrunk.

    Args:
        values: content of a recipe file; not changed.
        template: content of the tiny recipe of its task.
    """
    shrunk = without_sizes(copy.deepcopy(dict(values)))
    shrunk.pop("text_tokenizer", None)
    shrunk.pop("published", None)
    for name in _KEPT_FROM_TEMPLATE:
        shrunk[name] = copy.deepcopy(template[name])
    sizes = {name: template["finetune"][name] for name in _SIZES}
    shrunk["finetune"] = {**shrunk.get("finetune", {}), **sizes, **_STEPS}
    if (name := shrunk["task"]["name"]) in _DENSE:
        kept = {key: shrunk["task"][key] for key in _DENSE[name] if key in shrunk["task"]}
        shrunk["task"] = {**copy.deepcopy(template["task"]), **kept}
        shrunk["network"] = copy.deepcopy(template["network"])
    if "wordnet_names" in shrunk["task"]:  # the drawn classes have names of their own
        del shrunk["task"]["wordnet_names"]
        shrunk["task"]["class_names"] = template["task"]["class_names"]
    corpora = {entry.get("corpus") for entry in values.get("data", {}).values()}
    if corpora and corpora <= set(_DRAWN_CORPORA):
        text = {
            split: {**entry, "file": entry["file"].replace("${data}", "${miniweb}")}
            for split, entry in values["data"].items()
        }
        shrunk["data"] = text
    return shrunk
