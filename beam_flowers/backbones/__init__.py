"""Runs pre-trained backbones, which turn pixels into embeddings."""
