"""Metrics of downstream tasks, where a library does not give them in one call.

- ``coco.py``: average precision of boxes and masks.
- ``vqa.py``: the official accuracy of visual question answering.
- ``retrieval.py``: recall at K between images and captions, both ways.
"""
