"""The top floor: where Ray meets the domain. One file per stage; see ``docs/architecture.md``."""
