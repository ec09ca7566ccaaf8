"""Metrics of downstream tasks that no kept library computes.

- ``vqa.py``: the official accuracy of visual question answering.
- ``retrieval.py``: recall at K between images and captions, both ways.
"""
