"""Inference: a model from its folder, and what it says of images and texts.

- ``source.py``: finds configuration, weights, head, labels and tokenizers, the ``parts.py`` of a
  model; ``released_files.py``: those in a file alone.
- ``processor.py``: images and texts → the network's input, as in the evaluations of a training.
- ``batching.py``: inputs of any length → the batches of a task.
- ``building.py``: the parts → the network; ``saving.py``: the parts → an export.
- ``loaded_model.py``: the model; ``uses.py``: the head that each method needs.
- ``masked_texts.py``, ``masked_prediction.py``: gaps in texts and images, and what fills them.
- ``captioning_model.py``: captions; ``detecting_model.py``: the objects of images;
  ``segmenting_model.py``: the classes of their pixels; ``results.py``: what methods return.
- ``onnx_export.py``: the encoders as ONNX files.
- ``pretrained_model.py``: the model with a method for each use.

``from pipelines import PretrainedModel`` is the entry; docs/inference.md shows each method.
"""
