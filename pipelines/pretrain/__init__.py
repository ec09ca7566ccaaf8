"""Pretrain: token datasets → a checkpoint, its evaluation and its export.

====================  ==============================================================
``params.py``         parameters of network and pretraining
``pretrain.py``       stage: three token datasets → checkpoint
``training_task.py``  what the training loop runs: network, optimizer, one step
``start_from.py``     given weights that a training starts from; ``start_source.py``,
                      ``start_weights.py`` and ``start_tokenizers.py`` find, read and judge them
``feed.py``           token shards → micro-batches, a pure function of (seed, step, slot);
                      ``samples.py`` and ``crops.py`` make the samples, and
                      ``crop_processes.py`` cuts images beside the training's interpreter
``feed_bytes.py``     memory that the feed holds; ``feed_use.py``: how busy it is
``sample_ids.py``     where the samples of a step come from
``skipped_steps.py``  records of skipped steps in the stage's folder
``checkpoints.py``    the network of a committed checkpoint
``loss_figure.py``    figure of the losses
``evaluate.py``       stage: what the network has learned, measured on held-out rows
``evaluation/``       what is measured; ``evaluate_while_training.py`` measures the checkpoints
                      of a training that goes on
``export.py``         stage: safetensors, official and timm layouts, with ``model_card.py``,
                      ``provenance.py`` and ``foreign_configs.py``; ``check_export.py`` compares
                      other programs
====================  ==============================================================

Network, masks, objectives and the optimizer step live in the room ``model``; the training loop
and its checkpoints in ``pipelines.training``.
"""
