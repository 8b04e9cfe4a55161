"""Pictures of masks and of their power spectra: what `smnm show` draws.

`show.Show` is the command, `page` draws masks, `spectrum` computes spectra as plain arrays and
`spectrum_plot` draws them. Drawing needs `pip install 'smnm_kernels[train]'`.
"""
