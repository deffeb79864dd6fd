"""Ranks labels of embeddings, and writes and reads score tables."""
