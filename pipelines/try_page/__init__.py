"""The page of ``beit3 try``: a small local web server on which models are tried.

- ``server.py``: the application: one page, its script and style, and one address per panel.
- ``guards.py``: who may ask, and how much may be sent.
- ``panel.py``: one use of one model, and what requests hold; ``panels.py``: the panels of each
  kind of model, ``mask_panels.py`` those of masked patches and words,
  ``dense_panels.py`` those that draw objects and classes over the image.
- ``code_patches.py``: patches that stand for codes, to draw what a network predicts.
- ``static/``: the page itself; it loads nothing from elsewhere.

The server is Starlette on uvicorn, which come with MLflow.
"""
