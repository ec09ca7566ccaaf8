"""Studies: several runs of one recipe that differ in named settings and in the seed.

- ``study.py``: the study recipe, and the runs that it stands for.
- ``opening.py``: the runs of a study as opened recipes in one workdir.
- ``running.py``: runs them one after the other under one MLflow run.
- ``planning.py``: what is shared between them, and what is left to do, as tables.

The runs share a workdir, and with it every stage that their settings do not touch. The lock of a
workdir admits one driver, so they run one after the other; each may use all workers of a cluster.
"""
