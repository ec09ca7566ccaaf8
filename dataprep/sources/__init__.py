"""Readers of published datasets and of a user's own lists, one file per source.

| gives | files |
|---|---|
| URLs with captions (``entries.py``) | ``conceptual``, ``sbu``, ``own_lists``, ``hash_list`` |
| annotated images in archives (``annotations.py``) | ``coco``, ``flickr30k``, ``visual_genome`` |
| images in archives | ``imagenet21k``, ``webdataset``, ``folders`` |
| documents (``documents.py``) | ``wikipedia``, ``openwebtext``, ``cc_news``, ``parquet_files`` |
| parts of formats | ``karpathy``, ``wikitext``, ``language_variants``, ``web_encodings`` |
| access to JSON | ``json_arrays``, ``json_keys`` |
| access to containers | ``lines``, ``tars``, ``zips``, ``members`` |
| access to compressed files | ``compression``, ``unpacked_files`` |
| access to gzip files | ``gzip_members``, ``gzip_pass``, ``seekable_gzip`` |
| codes of another tokenizer | ``code_files`` |
| published counts and download rates | ``published`` |

A reader takes a path and a range that it can read alone, and yields rows in the file's order. A row
that cannot be read is yielded as a bad entry, document or image with its number, so that it ends as
a counted reject. A reader raises only what its docstring names, and only for a whole file that does
not have its format. Readers know nothing of stages, slices or storage.
"""
