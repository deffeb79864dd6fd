"""Features that the core does without: nothing imports them, commands load them when asked.

`augment` makes distorted copies and trains on them, `retrain_files` imports retrain.py's text
files, `export_store` writes a store for TensorBoard's projector and for FiftyOne.
"""
