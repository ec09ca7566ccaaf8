"""The miniature web: drawn scenes with true captions, in the file formats of the real sources.

``corpora.build`` writes the list files, archives and images; ``server`` plays the internet,
misbehavior included; ``truth.parquet`` and ``text_truth.parquet`` say what must become of every
row.
"""
