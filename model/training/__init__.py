"""Pretraining: sampling order, masks, objectives, optimiser and the step. Free of Ray."""
