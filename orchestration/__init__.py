"""The workflow engine: recipes, stages, slices, manifests and the store.

The engine knows nothing of images or text. A *stage* turns committed datasets into one
committed dataset; a *workflow* is a graph of stages; the *store* holds everything, so that any
process can be killed anywhere and the next run continues with what is missing.
See ``docs/engine.md``.
"""

from orchestration.dataset import Dataset
from orchestration.recipe import Recipe
from orchestration.slices import Output, Slice
from orchestration.stage import Context, Stage, feeding
from orchestration.workflow import Workflow

__all__ = ["Context", "Dataset", "Output", "Recipe", "Slice", "Stage", "Workflow", "feeding"]
