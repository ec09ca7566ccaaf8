"""Tokens: curated images and documents → tokenizers and token datasets that training reads.

=======================  ===========================================================
``text_tokenizer.py``    stage: documents and captions → SentencePiece model, report
``text_sample.py``       seeded sample of lines to train the vocabulary on
``text_tokens.py``       stage: documents → packed sequences of ids
``image_tokenizer.py``   stage: images and a teacher → VQ-KD checkpoint, report
``given_weights.py``     checks of weights that a recipe names
``vqkd_training.py``     parameters and training task of VQ-KD
``codebook_report.py``   codebook usage, perplexity, cosine; ``codebook_figures.py`` draws
``image_tokens.py``      stage: images → JPEG, views, codes
``pair_tokens.py``       stage: pairs → JPEG, views, codes, caption ids
``given_codes.py``       stage: token table, codes of another tokenizer → table with these codes
``held_out.py``          split into rows to train on and held-out rows
=======================  ===========================================================

Tokenizer algorithms live in the room ``tokenizer``; the training loop in ``pipelines.training``.
Nothing here knows the network that is pretrained on the tokens.
"""
