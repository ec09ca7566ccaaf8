"""Curation: which images go on."""
