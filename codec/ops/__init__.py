"""Executors of codec.network that need no torch: numpy (the definition), onnx (graphs), shapes (counts)."""
