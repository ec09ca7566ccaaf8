"""The files of downstream tasks that a recipe's ``data`` can name, a file for each format."""
