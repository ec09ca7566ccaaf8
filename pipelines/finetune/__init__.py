"""Fine-tuning: from a pretrained network and a task's files to a model and its score.

- ``task.py``: what a task is; ``tasks/`` has a file for each, ``registry.py`` lists them.
  ``class_scores.py``, ``class_names.py``, ``answer_lists.py``: what several of them use.
- ``formats/``: the files that examples are read from.
- ``labels.py``: the stage that collects the labels to choose from.
- ``params.py``: parameters of the training and of predictions.
- ``batch.py``, ``texts.py``, ``example_builder.py``, ``feed.py``: examples → the network's input.
- ``finetune.py``, ``finetune_task.py``, ``curve.py``: the stage that trains, its task in the one
  training loop, and the figure of its curve. ``expected_bytes.py``: the size of its weights.
- ``predict.py``, ``predicting.py``, ``score.py``: predictions for a split, and its metrics.
- ``batch.py``: the tensors of some examples.
- ``views.py``: the pixels of their images; ``imagenet_augment.py``: timm's RandAugment.
"""
