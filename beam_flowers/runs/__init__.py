"""Holds `jobs` alone, which printed commands name."""
