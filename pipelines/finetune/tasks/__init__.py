"""The downstream tasks, a file for each; ``pipelines/finetune/task.py`` says what a task is.

- ``retrieval.py``, ``captioning.py``: images and captions; ``vqa.py``: questions about an image.
- ``nlvr2.py``: sentences about two images; ``image_classification.py``: classes of images.
- ``text_classification.py``: classes of sentences (GLUE).
- ``detection.py``: boxes and masks of objects. ``segmentation.py``: the class of each pixel.
"""
