"""What a corpus looks like, and how an image or a text is read, fetched and cleaned.

Free of Ray, MLflow and torch: plain functions on bytes, arrays and Arrow tables.
"""
