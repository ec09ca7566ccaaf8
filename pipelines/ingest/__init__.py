"""Ingestion: source lists, archives and corpora become stored images and cleaned documents.

    index/<source> ── download/<source> ──┐
    import/<source> ──────────────────────┼── images, captions ──> curate
    documents/<source> ───────────────────┴── documents ─────────> text_tokenizer, text_tokens

- ``sources/``: one file per source of a recipe, and the registry. A source knows its stages.
- ``index.py``, ``download.py``, ``import_images.py``, ``documents.py``: the stages, and beside each
  the base class that says what it needs of a source.
- ``store_images.py``: how an image becomes a row of the images table or a reject.
- ``fetch_engines.py``: how URLs are fetched.
- ``cluster_host_limiter.py``, ``worker_limiter.py``, ``host_runs.py``: one limit per host over all
  workers.
- ``line_lists.py``, ``local_images.py``, ``file_slices.py``, ``annotated_images.py``,
  ``published_counts.py``: shared by several sources.
- ``preview.py``: what the files that a recipe names look like, for ``plan``.

Every row of a list, every image of an archive and every document of a corpus ends in exactly one
table: ``data``, or ``rejects`` with a reason. Each stage's slices depend on its input and its
parameters alone, so that a resumed stage gives the same bytes. Reading formats, fetching and
decoding are done in ``dataprep``.
"""
