"""Gradients of shifted-window attention on a GPU."""
