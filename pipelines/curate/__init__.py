"""Curation: which of the stored images and captions are trained on.

It reads digests, looks, sizes and captions of every image, never the pixels, and writes row numbers
and captions: nothing is copied and nothing is deleted, so another set of rules costs minutes.

``curate.py``             the stage: its rounds in order
``rules.py``              parameters and reasons
``layout.py``             global rows: the rows of all inputs, numbered through
``exchange.py``           sorted tables that one round hands to the next
``features.py``           round 1: digest, look and first caption of each image
``equal_originals.py``    round 2: duplicates, placeholders, evaluation images, by digest
``leaders.py``            round 3: near duplicates within one perceptual hash
``edges.py``              rounds 4 to 6: near hashes, and near duplicates among them
``resolve.py``            round 7: which near duplicate is kept
``merging.py``            round 8: captions of dropped copies
``decisions.py``          the last round: the tables of the stage
``large_drops.py``        the rules that drop more than a tenth of a source

How two images are compared is ``dataprep.near_duplicates``. Later stages read what was kept through
``pipelines.readers.kept_images``.
"""
