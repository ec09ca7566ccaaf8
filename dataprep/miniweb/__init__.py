"""The miniature web: drawn scenes with true captions, in the file formats of the real sources.

| file | job |
|---|---|
| ``corpora.py`` | builds the whole web in a folder: the one entry point |
| ``grammar.py``, ``drawing.py`` | scenes, the sentences that are true of them, their pixels |
| ``image_formats.py``, ``drawn_images.py`` | image files of every format, and copies of images |
| ``lists.py``, ``edge_cases.py`` | lists of URLs and captions; a list of every edge case |
| ``annotated.py``, ``archives.py`` | COCO, Visual Genome, ImageNet-21K, WebDataset |
| ``vqa.py``, ``questions.py`` | VQAv2: its files; questions about a scene, annotators |
| ``nlvr2.py``, ``statements.py`` | NLVR2: its files; statements about two scenes |
| ``retrieval.py`` | captions of COCO and Flickr30K in Karpathy's form |
| ``nocaps.py`` | captions of shapes that no other image has, as NoCaps |
| ``coco_instances.py``, ``crowded_scenes.py`` | COCO's boxes and masks; scenes of many shapes |
| ``ade20k.py`` | ADE20K's label maps of such scenes |
| ``imagenet1k.py`` | folders of images by class, and the names of the classes |
| ``glue.py``, ``glue_texts.py`` | tasks of GLUE: their files; labeled sentences |
| ``task_images.py`` | images, splits and faults of all these tasks |
| ``texts.py``, ``wikipedia.py`` | documents |
| ``server.py``, ``server_behaviors.py`` | an HTTP server that misbehaves on purpose |
| ``truth.py`` | the expected outcome of every row |

The same size and seed give the same bytes. ``truth.parquet``, ``text_truth.parquet`` and
``task_truth.parquet`` hold the expected outcome of every row, so tests compare a run with them.
Nothing outside this folder treats the miniature web specially: readers, fetcher and stages see
files and an HTTP server.
"""
