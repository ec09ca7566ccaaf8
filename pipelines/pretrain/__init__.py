"""Pretrain: token datasets → a checkpoint, its evaluation and its export.

====================  ==============================================================
``params.py``         parameters of network and pretraining
``pretrain.py``       stage: three token datasets → checkpoint
``training_task.py``  what the training loop runs: network, optimizer, one step
``feed.py``           token shards → micro-batches, a pure function of (seed, step, slot)
``sample_ids.py``     where the samples of a step come from
``skipped_steps.py``  records of skipped steps in the stage's folder
``checkpoints.py``    the network of a committed checkpoint
``loss_figure.py``    figure of the losses
``evaluate.py``       stage: held-out losses, accuracies, k-nearest neighbors
``predictions.py``    what both evaluations compute; also of a training that goes on
``export.py``         stage: safetensors, official and timm layouts, model card
====================  ==============================================================

Network, masks, objectives and the optimizer step live in the room ``model``; the training loop
and its checkpoints in ``pipelines.training``.
"""
