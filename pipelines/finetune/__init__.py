"""Fine-tuning: from a pretrained network and a task's files to a model and its score.

- ``task.py``: what a task is; ``tasks/`` has a file for each.
- ``start.py``: stage: given weights → those of the task's input size. ``start_params.py`` has its
  parameters, ``start_source.py`` finds the weights, ``start_weights.py`` fits them.
- ``export.py``: stage: the best weights → a folder that this project and others read, with
  ``model_card.py``.
- ``formats/``: the files that examples are read from.
- ``batch.py``: the tensors of some examples.
"""
