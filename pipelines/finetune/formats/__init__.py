"""The files of downstream tasks that a recipe's ``data`` can name.

``format.py`` says what a format is, ``registry.py`` lists all of them.

| files | formats |
|---|---|
| questions about images | ``vqav2`` |
| sentences of two images | ``nlvr2`` |
| captioned images | ``coco_captions``, ``flickr30k_captions``, ``nocaps`` |
| the pairs of a pretraining, for contrastive tuning | ``pretraining_pairs`` |
| images with boxes and masks | ``coco_instances`` |
| images with label maps | ``label_folders`` (ADE20K, and the user's own) |
| images with classes | ``class_folder`` |
| sentences with labels | ``glue`` |
| the user's own, of every task | ``own_files`` |
"""
