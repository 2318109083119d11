"""Foundations every package may use: errors, atomic files, tensors on disk, seeds, progress."""
