"""Tokens: vocabularies, codebooks, and the shards of token ids and codes that training reads."""
