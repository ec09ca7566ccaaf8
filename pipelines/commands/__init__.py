"""Commands of the command line, one file per group.

A module here imports nothing slow at its top: typer reads the signatures, and the function imports
the engine and the stages when it is called. A test lists what ``beit3 --help`` imports.
"""
