"""The command line: a thin layer over `beam_flowers.workflows`."""
