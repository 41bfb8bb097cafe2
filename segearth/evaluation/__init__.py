"""Evaluation: data set and model in, figures, pictures and a row of results out."""
