"""Everything that reports on a run: to a person, to MLflow, or to a later plan.

- ``tracking.py``, ``run_log.py``: MLflow runs of the workflow and its stages, and the log of one.
- ``latest_run.py``: the run of a workdir's last workflow; ``metric_history.py``: the points of a
  stage's metrics.
- ``progress.py``: progress bar or plain lines, and the heartbeat file of a stage.
- ``logs.py``: the log file of a run. ``versions.py``: the programs that it ran with.
- ``usage.py``: duration and memory of a stage over its attempts.
- ``results.py``: the results of a complete stage in words.
- ``estimates.py``: expected rows, bytes, duration and memory of the stages of a plan.
- ``summary.py``: tables of a plan, of the state of a workdir, and of the finished stages.

Nothing here changes an output: a stage commits the same bytes with and without reports. MLflow is
imported only when a run is opened, so a plan or a status starts fast. Reports that know images,
text or models belong to ``pipelines/report/``.
"""
