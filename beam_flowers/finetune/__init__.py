"""Trains the backbone itself on a store's labelled images."""
