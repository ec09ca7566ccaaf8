"""Masked pretraining: from a (seed, step) to an optimizer step.

- ``randomness.py``: random numbers as pure functions of (seed, step, slot).
- ``order.py``, ``masking.py``, ``stochastic_depth.py``: which rows a step takes, which positions
  it masks, and which residual branches it skips. ``dealing.py``, ``epoch_samples.py`` and
  ``spreading.py`` are the parts of the order: row groups of a substream, samples of a row group,
  and their order within a window.
- ``batch.py``: the tensors of one micro-batch. ``color_jitter.py`` changes its colors on a GPU.
- ``objectives.py``: the table of pretraining objectives and their losses.
- ``cross_entropy.py``, ``squared_error.py``: the loss of classes, and of pixels.
- ``optimizer.py``, ``step.py``: AdamW with its schedule, the step.
- ``parallel.py``, ``copies.py``, ``gradients.py``: the network on several workers, whether its
  copies are equal, and norms and clipping of the gradient.
- ``compiling.py``, ``float8.py``: compiled blocks; linear layers in float8.
- ``per_sample.py``, ``spikes.py``: which samples made a step fail, and which losses are too high.
- ``cost.py``: parameters, operations and memory, computed without running anything;
  ``useful_work.py`` and ``device_rates.py``: numerator and denominator of MFU.

The loop around the step, checkpoints, metrics and figures live in ``pipelines/``; they iterate the
table of objectives, so a new objective is one more line of that table.
"""
