"""Directions and gains learnt from the model itself under an expert's prompt."""
