"""Commands of the command line, one file per group.

- ``run.py``: ``plan`` and ``run``, which take a recipe; ``recipes.py`` lists the built-in ones.
  ``demo.py`` runs some of these on a drawn web.
- ``grid.py``: runs every combination of some settings, ``sweep.py`` the runs of a study file;
  ``compare.py``: scores and evaluations of workdirs in one table.
- ``workdir.py``: ``status``, ``report`` and ``gc``, which read a workdir; ``rejects.py`` lists the
  rows that a stage rejected, ``ui.py`` leads to the MLflow pages.
- ``profile.py``: a trace of a training that runs.
- ``apply.py``: ``embed``, ``caption``, ``answer``, ``classify``, ``detect`` and ``segment``, which
  apply a model to own inputs; ``apply_options.py``: their options; ``apply_model.py``: their recipe
  and its run.
  ``search.py`` searches what was embedded, ``try_page.py`` serves a page to try models.
- ``doctor.py``: checks of the machine, the cluster, the store and the tracking server.
- ``inspecting.py``: the group ``inspect``. ``inspect_output.py``: what lies in a workdir, with the
  networks in it by ``inspect_networks.py``; ``inspect_model.py``: what a network costs.
  ``export.py``: an export beside other programs.
- ``options.py``: arguments and options that several commands have.

A module here imports nothing slow at its top: typer reads the signatures, and the function imports
the engine and the stages when it is called. A test lists what ``beit3 --help`` imports.
"""
