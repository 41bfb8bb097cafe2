"""Encoders and the segmentor."""
