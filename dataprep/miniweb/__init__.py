"""The miniature web: drawn scenes with true captions, in the file formats of the real sources.

``corpora.build`` writes the list files, archives and pictures; ``server`` plays the internet,
misbehaviour included; ``truth.parquet`` and ``text_truth.parquet`` say what must become of every
row.
"""
