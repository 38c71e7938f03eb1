"""Configurations by the names of AISBench's own."""
