"""One file per source: the form of its list files or archives, and how a row is read."""
