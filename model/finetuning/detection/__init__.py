"""Object detection and instance segmentation: ViTDet's Cascade Mask R-CNN on the vision encoder.

The paper detects with ViTDet's pyramid and a cascade of box heads (arXiv:2203.16527,
arXiv:1906.09756). torchvision gives anchors, matching, box coding and convolutional heads.

- ``settings.py``: sizes of the heads, and how detections are chosen.
- ``targets.py``: annotated objects of a batch.
- ``pyramid.py``: maps of several scales from the encoder's one map.
- ``proposals.py``: the region proposal network.
- ``pooling.py``: features of boxes. ``sampling.py``: which boxes are trained on.
- ``cascade.py``: the box heads. ``masks.py``: the mask head, and masks in an image.
- ``suppression.py``: hard and soft suppression of overlapping boxes.
- ``network.py``: all of it as a network of a task.
- ``multiscale.py``: detections of one image at several scales, joined.

Boxes are (left, top, right, bottom) in pixels of the input image. Class numbers run from 0; the
number of classes stands for the background. Losses are one number per image, so that their sum
does not depend on how a batch is divided into micro-batches and among workers; Detectron2 divides
by the boxes of a whole batch instead.
"""
