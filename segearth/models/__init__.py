"""Encoders, and the module that joins them with words and an upsampler."""
