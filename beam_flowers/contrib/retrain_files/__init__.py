"""Vectors that retrain.py kept in text files, brought into a store."""
