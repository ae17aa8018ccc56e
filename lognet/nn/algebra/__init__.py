"""Layers whose numbers are complex numbers, quaternions or small matrices: one table of structure constants an algebra."""
