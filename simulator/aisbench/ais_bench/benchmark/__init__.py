"""A stand-in for AISBench; see README.md beside this package."""
