"""Parses command lines and prints: a thin layer over `beam_flowers.workflows`."""
