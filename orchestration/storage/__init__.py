"""The store: local folders and S3, files behind URIs, and the lock of a workdir."""
