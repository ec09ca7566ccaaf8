"""Curation: which of the stored images are trained on.

- ``curate.py``: the stage and its rules. It reads digests, hashes, sizes and captions of every
  image, never the pixels, and writes row numbers: nothing is copied and nothing is deleted, so that
  another set of rules costs minutes.
- ``large_drops.py``: the rules that drop more than a tenth of a source, for console and report.
- ``features.py``: those columns of all sources as arrays, a few dozen bytes per image.

The search for near duplicates is ``dataprep.near_duplicates``. Later stages read the kept rows
through ``pipelines.readers.rows``.
"""
