"""Metrics, where a library does not give them in one call.

- ``coco.py``: average precision of boxes and masks.
- ``segmentation.py``: mean intersection over union of label maps.
- ``vqa.py``: the official accuracy of visual question answering.
- ``retrieval.py``: recall at K between images and captions, both ways.
- ``neighbors.py``: accuracy of the nearest neighbors' vote.
- ``linear_probe.py``: accuracy of a linear classifier on frozen features.
- ``contrastive_heads.py``: linear heads, tuned contrastively, on frozen features.
- ``bootstrap.py``: the interval of a ratio of sums.
"""
