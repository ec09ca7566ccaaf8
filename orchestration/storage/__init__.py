"""Everything that reads or writes files on behalf of the engine.

- ``store.py``: :class:`Store`, a folder that is local or ``s3://bucket/prefix``; the only class
  that other rooms use for files of a workdir.
- ``files.py``: the interface of a file backend, and the parameters of an object store.
- ``local_files.py``, ``s3_files.py``: the two backends.
- ``s3_access.py``: endpoint, region and credentials of an object store, the same for boto3 and
  pyarrow.
- ``remote_files.py``, ``hub_files.py``: files that a recipe names by URI, their versions and
  local copies.
- ``json_records.py``: small JSON records, and how a damaged one is refused.
- ``lock.py``: the lock that lets one driver work on a workdir.

A write is atomic and durable: a reader sees the complete file or none. This folder knows neither
stages nor manifests nor Ray; it imports only the parameter models and errors of the engine.
"""
