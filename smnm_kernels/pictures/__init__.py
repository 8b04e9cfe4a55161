"""Pictures of masks and of their power spectra: what `smnm show` paints.

`show.Show` is the command, `page` paints masks and `spectrum_plot` the spectra that
`analysis.spectrum` computes. They need `pip install 'smnm_kernels[train]'`.
"""
