"""Pretraining: token shards to a checkpoint, its evaluation and its export."""
