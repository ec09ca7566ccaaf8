"""Fine-tuning: from a pretrained network and a task's files to a model and its score.

- ``task.py``: what a task is; ``tasks/`` has a file for each.
- ``formats/``: the files that examples are read from.
- ``batch.py``: the tensors of some examples.
- ``views.py``: the pixels of their images; ``imagenet_augment.py``: timm's RandAugment.
"""
