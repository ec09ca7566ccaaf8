"""The Multiway Transformer: pure PyTorch, no parallelism, no devices, no configuration files."""
