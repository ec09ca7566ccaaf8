"""What people see of a run: MLflow, progress, logs, usage, estimates, tables."""
