"""What a pretrained network has learned, measured on held-out rows, each number beside a baseline.

The stage ``evaluate`` computes the numbers for the last checkpoint, and a training may do so for
others (``evaluate_while_training.py``).

- ``params.py``: the recipe's section.
- ``slices.py``, ``draw_images.py``: which rows are used for what.
- ``inputs.py``: rows → micro-batches without augmentation; ``words.py``: words to mask whole.
- ``predictor.py``: what a worker does with a slice, in one of these ways:
- ``masked.py``: loss and accuracy at masked positions, by objective and source.
- ``grounding.py``: accuracy at masked words with the right and with another image, and vice versa.
- ``features.py``: features of images and texts, frozen, and their baselines; ``labels.py``: nearest
  neighbors and linear probes of them; ``retrieval.py``: their recall between images and captions.
- ``likelihood.py``: retrieval by the likelihood of masked words.
- ``shown.py``: a few samples with what is predicted of them, for the run report;
  ``patch_drawings.py`` draws them.
- ``numbers.py``: all numbers of an evaluation.
"""
