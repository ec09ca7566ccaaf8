"""Fine-tuning: networks for downstream tasks, and what their training needs beside the encoder.

- ``task_networks.py``: the encoder with the head of each task, as the authors released them.
- ``dense_backbone.py``: the vision encoder with windowed attention, for images of any size.
- ``detection/``: object detection and instance segmentation.
- ``segmentation/``: a class for each pixel.
- ``contrastive.py``: the symmetric contrastive loss over the global batch.
- ``feature_cache.py``: its gradient for batches whose activations do not fit in memory.
- ``class_texts.py``: classification as retrieval among the texts of the classes.
- ``captioning.py``: masks of captions, their loss, and which tokens of a batch count.
- ``generation.py``: captions by beam search (``beam_search.py``) or sampling (``sampling.py``), on
  the network's scores of the next token (``next_token.py``); ``hypotheses.py`` scores them.
- ``finite.py``: results that are no finite numbers are an error.
- ``step.py``: one optimizer step. ``kept_weights.py``: averaged and best weights beside it.
- ``starting.py``: what a task network takes from given weights.
- ``released.py``: files of the authors' fine-tuned networks, both ways.
- ``mixing.py``: mixup, CutMix and label smoothing of images and their classes.
- ``layer_decay.py``: learning rates that fall from the head to the embeddings.

Names of heads are those of the released files, see ``model.network.interop.task_heads``.
"""
