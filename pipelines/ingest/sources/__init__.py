"""One file per source of a recipe: its parameters, and how its files are cut and read.

A source is a frozen pydantic class that derives from the base of what it is:

- ``PairList`` (``ingest/index.py``): a list of URLs with captions; it is indexed and downloaded.
- ``ImageArchive`` (``ingest/import_images.py``): images in archives or folders; it is imported.
  ``AnnotatedImages`` (``ingest/annotated_images.py``) is an archive with one annotation file.
- ``Corpus`` (``ingest/documents.py``): documents.

Lists: ``cc3m.py``, ``cc12m.py``, ``sbu.py``, ``own_lists.py``. Images: ``imagenet21k.py``,
``image_folder.py``, ``webdataset.py``; annotated ones: ``coco.py``, ``flickr30k.py``,
``visual_genome.py``. Documents: ``wikipedia.py``, ``openwebtext.py``, ``cc_news.py``, ``text.py``,
``jsonl.py``, ``parquet.py``.

To add a source:

1. Write its reader in ``dataprep/sources/``: a generator over entries, images or documents.
2. Write its class in a file here: ``format``, the paths of its files, ``slices`` and what reads one
   slice (``entries``, ``find`` or ``documents``).
3. Add its class to ``SOURCES`` in ``registry.py``.
4. Add what is published of it (rows, checksums) to ``dataprep/sources/published.py``, if anything.
5. Test it in ``tests/dataprep/`` against files of the real format.
"""
