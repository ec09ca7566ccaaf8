"""What lies in a workdir, for ``beit3 inspect``: any output, table, part or checkpoint.

- ``located.py``: a path or URI → what it names, and the workdir that it lies in.
- ``decoded.py``: rows in words: token ids as texts, views as boxes, images by their size.
- ``output_sheet.py``: rows with their images and crops on one page.
- ``norms.py``: norms of the parameters in a checkpoint.
- ``source_text.py``: the line of a source that a rejected row came from.
"""
