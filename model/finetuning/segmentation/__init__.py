"""Semantic segmentation: a class for each pixel, from the vision encoder.

The paper segments with ViT-Adapter and Mask2Former (arXiv:2205.08534, arXiv:2112.01527).
transformers gives Mask2Former; a smaller head works on ViTDet's pyramid.

- ``settings.py``: sizes of the adapter and the heads.
- ``deformable.py``: multi-scale deformable attention.
- ``spatial_prior.py``: convolutions over the image. ``adapter.py``: ViT-Adapter around the encoder.
- ``pyramid_head.py``: the smaller head. ``mask2former.py``: Mask2Former's.
- ``network.py``: the encoder with one of both as a network of a task.
- ``windows.py``: scores of an image of any size, from overlapping windows, scales and mirrors.

Label maps are (H, W) long: class numbers from 0 on, and ``IGNORED`` where a pixel counts nowhere.
Scores (C, H, W) are those of the classes at each pixel, from 0 to 1. Losses are one number per
image, so that their sum does not depend on how a batch is divided.
"""
