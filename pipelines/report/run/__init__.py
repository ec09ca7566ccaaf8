"""The run report: one page about a workflow, whichever stages it has and however far it came.

- ``run_report.py``: reads everything and writes the page, beside the workflow's record.
- ``stages.py``: state, time, cost, rows and rejects of each stage.
- ``trainings.py``: curves of each training.
- ``tokenizers.py``: health of the codebook and of the vocabulary.
- ``measured.py``: numbers of the evaluation beside baselines.
- ``samples.py``: held-out samples with predictions; ``neighbors.py``: what is nearest to some.

The templates are ``run_report.html`` and those that it includes. A new part of the page is a field
of ``RunReport``, what fills it, and a section of the template.
"""
