"""Measuring images and layers: features, distances, scores, paired errors, channel maxima.

Import the modules by name; `evaluate.intervals` is used by tables and must not pull in torch.
"""
