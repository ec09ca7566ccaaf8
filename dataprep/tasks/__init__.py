"""Annotations of downstream tasks: readers of their published files, and of the user's own.

- ``example.py``: one example, as every reader gives it.

A reader gives examples in the order of its file. What is wrong with one is said in the example; a
file of another format is refused.
"""
