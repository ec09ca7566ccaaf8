"""Readers: access to committed rows that stages and training share.

======================  ============================================================
``rows.py``             ``RowReader``: rows of one table by row number, through a cache of
                        row groups.
``held_rows.py``        ``HeldRows``: the same, with row groups that are read in the background
                        before their rows are needed.
``kept_images.py``      ``KeptImages``: the images that curation kept, across all source
                        datasets; ``cut_views`` decodes and crops them.
``columns.py``          columns as NumPy arrays.
``spread.py``           ``spread``: some of many rows, spread evenly.
``shared_buffers.py``   ``SharedBuffers``: memory that several processes map.
``prefetch.py``         ``prefetch``: items made in a thread ahead of the loop that uses
                        them.
``expected_memory.py``  memory that readers are predicted to take, for plans.
======================  ============================================================

Nothing here knows a stage, a parameter model or a network: readers take datasets and row numbers
and return Arrow tables or arrays.
"""
