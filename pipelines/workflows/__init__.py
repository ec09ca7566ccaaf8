"""Workflows: for each a recipe and a flat list of stages.

``pretrain_recipe.py``, ``evaluation_recipe.py`` and ``finetune_recipe.py`` name the sections of a
recipe, each the parameters of one stage, and check what several sections must agree on.
``pretrain.py``, ``evaluation.py`` and ``finetune.py`` list the stages and say which stage reads
which; ``sources.py`` has those of the sources. ``kinds.py`` tells the kinds of recipes apart.
``apply.py`` is the recipe and the workflow of a model that is applied to own inputs.
``shrink.py`` and ``shrink_finetuning.py`` turn a recipe into a trial run. A stage itself, with its
name, version and expectations, is declared beside its code in ``ingest/``, ``curate/``,
``report/``, ``tokens/``, ``pretrain/``, ``finetune/`` and ``apply/``; nothing here computes data.

``plan_lines.py`` collects what a plan says besides the stages. The other files are lines of it that
need several sections: ``feasibility.py`` and ``finetune_feasibility.py`` (what does not fit the
data or the machine), ``leaks.py`` (evaluation images that may be among the sources),
``pair_counts.py`` (pairs and images of the sources), ``compute_time.py`` (how long networks
compute), ``feed_memory.py`` (what the feed holds), ``scale.py`` (other numbers of
GPUs). ``gpu_rates.py`` holds what they assume of GPUs.
"""
