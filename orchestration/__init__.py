"""The workflow engine: it plans and runs a graph of stages over a workdir.

A *recipe* holds the parameters; a *stage* turns committed datasets into one committed dataset; a
*workflow* is a graph of stages; a *slice* is the unit of work of a stage; the *store* holds all
state, so any process can be killed at any time and the next run continues with the missing slices.

- ``params.py``, ``actor_params.py``, ``recipe.py``, ``recipe_extends.py``, ``recipe_text.py``, ``recipe_errors.py``:
  parameter models, reading a recipe, and its errors in words.
- ``errors.py``, ``masking.py``: the exceptions, and the masking of secrets in every text.
- ``stage.py``, ``workflow.py``, ``fingerprint.py``, ``plan.py``: declaring stages, and deciding
  which of them must run.
- ``runner.py``, ``stage_threads.py``, ``cluster.py``, ``resources.py``: running a plan on Ray.
- ``slices.py``, ``slice_runner.py``, ``slice_commit.py``, ``suspects.py``: the slices of a stage,
  running them on Ray Data, committing one, and finding those that end their worker.
- ``telemetry.py``: the telemetry of Ray and MLflow, off by default.
- ``training.py``, ``training_worker.py``, ``training_size.py``, ``session.py``: a training on Ray
  Train, its workers and their number, and what the loop sees. ``training_failures.py``,
  ``termination.py``, ``training_messages.py``: which failures are repeated, SIGTERM to a worker,
  and what workers say.
- ``checkpoint_files.py``, ``checkpoint_writer.py``, ``checkpoint_watch.py``: what makes a
  checkpoint whole, writing one in the background, and what follows each new one.
  ``branches.py``, ``going_back.py``: going back to an earlier one.
- ``manifest.py``, ``generations.py``, ``dataset.py``, ``empty_tables.py``: committed outputs, and
  reading them by row number. ``external_files.py``: files that a recipe names.
- ``retries.py``, ``integrity.py``, ``gc.py``, ``doctor.py``: retrying rejected rows, finding and
  repairing damage, removing unused outputs, checking the installation.
- ``storage/``: files and the lock of a workdir. ``reporting/``: MLflow, progress, logs, tables.

The engine is generic: nothing here may depend on what a row contains, and no other room may be
imported. Ray, MLflow, boto3 and pyarrow are imported only where they are used, as a plan or a
status needs none of them. See ``docs/engine.md``.
"""

from orchestration.dataset import Dataset
from orchestration.recipe import Recipe
from orchestration.slices import Output, Slice
from orchestration.stage import Context, Stage, feeding
from orchestration.telemetry import disable_telemetry
from orchestration.workflow import Workflow

__all__ = ["Context", "Dataset", "Output", "Recipe", "Slice", "Stage", "Workflow", "feeding"]

disable_telemetry()  # before any module imports Ray or MLflow
