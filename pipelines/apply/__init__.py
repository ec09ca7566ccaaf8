"""A trained model applied to own images and texts, as a workflow or in one process.

- ``inputs.py``: what the user names, cut into slices; ``listing.py`` lists the rows of a slice.
- ``rows.py``: the schema of a row, and the bytes of its image.
- ``operations.py``: embed, caption, answer, classify, detect and segment: what each needs and
  puts out; ``params.py``: how a model is applied.
- ``applying.py``: an operation on rows, and the stage that does it in actors; ``in_process.py``:
  the same in one process, and its results for the terminal.
- ``model_location.py``: where a model lies, and the digest of its content.
- ``search.py``: the nearest rows of a query among the features that ``embed`` wrote.

Which workflow the stages make is in ``workflows/apply.py``, the commands are in
``commands/apply.py`` and ``commands/search.py``.
"""
