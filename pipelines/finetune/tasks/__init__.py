"""The downstream tasks, a file for each; ``pipelines/finetune/task.py`` says what a task is."""
