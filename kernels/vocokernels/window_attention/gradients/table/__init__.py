"""Gradient of the bias table on a GPU."""
