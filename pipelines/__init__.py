"""Pipelines: the top floor, where Ray and MLflow meet the domain.

Data flows one way, and the folders follow it from the bottom layer to the top:

1. ``readers/`` reads rows by number; ``training/`` is the one loop of everything that trains.
2. ``ingest/``: list files, archives and dumps become stored images, captions and documents. Every
   row of a list ends as data or as a reject with a reason.
3. ``curate/``: exact and near duplicates, images of evaluation sets, and rules for captions.
4. ``tokens/``: text and image tokenizers, and the rows that pretraining reads.
5. ``pretrain/``: the feed, pretraining, evaluation on held-out rows, export.
6. ``finetune/``: downstream tasks, from their files to a fine-tuned model and its score.
7. ``inference/``: a model from its folder, and what it says of images and texts. ``apply/``: that
   for own files, as a workflow or in one process; ``try_page/``: that on a local web page.
8. ``report/``: pages about a run's data.
9. ``workflows/``: the recipe, and the list of stages that it gives.
10. ``studies/``: several runs of one recipe that differ in settings and seed.
11. ``commands/`` and ``cli.py``: the command line. ``open_recipe.py`` reads a recipe on a workdir,
   ``builtin_recipes.py`` finds ``recipes/*.yaml`` by name, ``summary.py`` prints a run's results.

A folder imports only folders of lower layers; import-linter checks it. A stage file reads from top
to bottom as parameters, declaration (``stage``), the Ray program (``run``), and pure functions.
What a stage does to one image or one text is a call into ``dataprep``, ``tokenizer`` or ``model``;
how it is planned, resumed and recorded is ``orchestration``. See ``docs/architecture.md``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.inference.pretrained_model import PretrainedModel
    from pipelines.inference.processor import Processor

__all__ = ["PretrainedModel", "Processor"]


def __getattr__(name: str) -> Any:
    """Import a model's classes on first use: they import torch, which the command line does not."""
    if name == "PretrainedModel":
        from pipelines.inference.pretrained_model import PretrainedModel

        return PretrainedModel
    if name == "Processor":
        from pipelines.inference.processor import Processor

        return Processor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
