"""Training: the loop, the checkpoints and the parameters that every training shares.

==================  ================================================================
``loop.py``         ``train``: learning-rate schedule, prefetched batches, autocast,
                    guard against non-finite steps, metrics, checkpoints, resume.
``checkpoints.py``  One format for all trainings: ``torch.distributed.checkpoint``
                    shards, ``history.json``, and files that a task adds.
``history.py``      The metrics of all steps; ``points.py``: a few points of them, for figures.
``guards.py``       What ends a training: steps skipped in a row, copies of the
                    weights that differ.
``profiler.py``       Traces of some steps, by the recipe or on request.
``speed.py``          Samples per second, MFU, waiting for data, memory.
``params.py``       ``TrainingLoopParams``: base of each training's parameters.
==================  ================================================================

A training is a ``TrainJob``, which Ray Train sends to each worker, and a ``TrainTask``, which the
job builds there. The task holds what differs: network, optimizer, batches, and one step. A stage
runs its job with ``orchestration.training.fit(context, params, train, job)``.

Batches and random numbers must be pure functions of (seed, step, slot); then a training that is
killed and resumed ends with the same weights, bit for bit. Nothing here knows images, text, a
network's architecture or a loss.
"""
