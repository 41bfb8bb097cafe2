"""Inference on tensors: windows, scores, classes. Pure torch."""
