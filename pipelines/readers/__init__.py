"""What stages and training share: rows by number, and preparing what comes next."""
