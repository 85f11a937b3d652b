"""Torch networks: for training, research and the GPU. Coding a picture needs none of this."""
