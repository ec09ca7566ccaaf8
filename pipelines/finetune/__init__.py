"""Fine-tuning: from a pretrained network and a task's files to a model and its score.

- ``task.py``: what a task is; ``tasks/`` has a file for each.
- ``formats/``: the files that examples are read from; ``prepare.py`` reads them.
- ``batch.py``: the tensors of some examples.
"""
