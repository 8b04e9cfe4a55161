"""Benchmarks: other ways to make masks (``peers``), their times, and what masks are worth."""
