"""Reports: HTML pages that hold everything they show, with a JSON file of the same numbers.

- ``data_report.py``: the stage ``data_report``: what each source gave, why the other rows were
  rejected, and what curation dropped.
- ``source_counts.py``: its numbers as dataclasses; these are the JSON file.
- ``pair_counts.py``: pairs and images of each source, beside the paper's.
- ``held_out_counts.py``: kept rows that the token stages will hold out.
- ``task_report.py``: the stage ``task_report``, a page of predictions; ``predicted.py``: some right
  and some wrong ones, ``nearest.py``: those of retrieval, ``detected.py``: boxes and masks drawn,
  ``segmented.py``: label maps drawn, ``drawn_words.py``: names in both; ``class_tables.py``: the
  classes of both.
- ``outputs/``: what lies in a workdir, for ``beit3 inspect``.
- ``run/``: the run report, a page about a whole workflow.
- ``learned.py``: what a pretraining has learned, beside baselines, as tables of the summary.
- ``scores.py``: the score of a fine-tuning as a table. ``results.py``: the committed scores and
  evaluations of a workdir; ``comparison.py``: those of several side by side; ``intervals.py``:
  means over seeds; ``comparison_tables.py``: a comparison as tables and CSV,
  ``comparison_page.py``: as a page with charts.
- ``charts.py``: coordinates of curves and intervals, which ``templates/charts.html`` draws.
- ``column_counts.py``: counts over columns of committed datasets, in Arrow.
- ``contact_sheets.py``: thumbnails as data URIs.
- ``page.py``, ``templates/``: a report as one HTML file. ``base.html`` is the frame of every page,
  ``macros.html`` holds histograms and contact sheets.

A new report is a module that counts, a template that extends ``base.html``, and a call of
``page.render``. Nothing depends on a report, which is why it may show times.
"""
