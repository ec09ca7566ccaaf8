"""Ingestion: source lists, archives and corpora to stored images and cleaned documents."""
