"""Measures of masks and of data: spectra, energy, quality. Nothing is drawn here."""
