"""Workflows: for each a recipe and a flat list of stages.

``pretrain_recipe.py`` names the sections of a recipe, each the parameters of one stage, and checks
what several sections must agree on. ``pretrain.py`` lists the stages and says which stage reads
which. ``shrink.py`` turns any recipe into a trial run. A stage itself, with its name, version and
expectations, is declared beside its code in ``ingest/``, ``curate/``, ``report/``, ``tokens/`` and
``pretrain/``; nothing here computes data.

The other files are lines of a plan that need several sections: ``feasibility.py`` (what does not
fit the data or the machine), ``leaks.py`` (evaluation images that may be among the sources),
``pair_counts.py`` (pairs and images of the sources), ``compute_time.py`` (how long networks
compute), ``feed_memory.py`` (what the feed holds), ``scale.py`` (other numbers of
GPUs). ``gpu_rates.py`` holds what they assume of GPUs.
"""
