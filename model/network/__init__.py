"""The Multiway Transformer in plain PyTorch, and the file layouts of other programs.

- ``config.py``: the sizes and switches of the network (no torch).
- ``multiway.py``: attention, experts and the block that routes a sequence through them.
- ``attention_mask.py``: which positions attend to which; ``attention_weights.py``: how much.
- ``beit3.py``: embeddings, the stack of blocks, the prediction heads.
- ``layer_norm.py``, ``cache.py``: LayerNorm under autocast; keys and values for generation.
- ``fused_norm.py``: GELU and LayerNorm in one kernel of a GPU.
- ``recomputing.py``: what a block keeps for the backward.
- ``input_checks.py``: masks and caches that do not fit.
- ``loading.py``: loading weights into a network of another resolution or with other parts;
  ``whole_state.py``: whether a state has all parts of a configuration's network.
- ``starting.py``: what a new training takes from given weights.
- ``weight_files.py``: reading weights that other programs saved.
- ``official_layout.py``: the official layout, read; ``interop.py``: written, and timm's.
- ``layouts.py``, ``deduced_config.py``: whose layout given weights have, and the configuration
  that their names and shapes say.
- ``pretrained.py``: a network from a folder, a file or the hub, and into a folder.

The forward holds mathematics alone. Sharding, compilation, device placement, losses and
configuration files belong to the callers.
"""
