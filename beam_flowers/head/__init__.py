"""Splits images, trains and measures the softmax head, reads and writes models."""
