"""Holds features that the core works without: no module imports them, commands load them by path.

`augment` makes distorted copies and trains on them, `retrain_files` imports retrain.py's text
files, `export_store` writes a store for TensorBoard's projector and for FiftyOne.
"""
