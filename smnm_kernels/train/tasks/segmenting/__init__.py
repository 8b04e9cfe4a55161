"""Unsupervised video object segmentation: clusters of frozen features, compared with masks."""
