"""The data report: what each source gave, why the rest did not come, what curation dropped."""
