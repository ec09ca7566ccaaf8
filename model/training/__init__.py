"""Pretraining: sampling order, masks, objectives, optimizer and the step. Free of Ray."""
