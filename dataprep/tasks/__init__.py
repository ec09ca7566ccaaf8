"""Annotations of downstream tasks: readers of their published files, and of the user's own.

- ``example.py``: one example, as every reader gives it.
- ``vqav2.py``, ``nlvr2.py``: questions, and sentences of two images.
- ``karpathy.py``, ``nocaps.py``: captioned images.
- ``coco_instances.py``: objects with boxes and masks; ``run_lengths.py``: masks.
- ``label_folders.py``: images with label maps; ``label_classes.py``: their classes;
  ``label_maps.py``, ``stored_label_maps.py``: the maps.
- ``class_folder.py``: images in folders by their class.
- ``glue.py``: sentences with labels.
- ``own_files.py``: the user's own annotations of each of these tasks.
- ``image_places.py``: the images themselves, in folders and zip archives.

A reader gives examples in the order of its file. What is wrong with one is said in the example; a
file of another format is refused.
"""
