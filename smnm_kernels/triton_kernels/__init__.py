"""The ops in Triton, with the names and signatures of ``smnm_kernels.reference``.

They run on CUDA tensors, and on CPU tensors in Triton's interpreter (``TRITON_INTERPRET=1``).
"""

from .dispersion_ops import dispersion_kernel
from .draw_ops import draw_masks_kernel
from .noise_ops import noise_kernel, noise_masks_kernel
from .rbn_ops import rbn_bank_kernel, rbn_masks_kernel
from .structure_ops import structure_masks_kernel
from .threshold_ops import threshold_kernel

__all__ = [
    "dispersion_kernel",
    "draw_masks_kernel",
    "noise_kernel",
    "noise_masks_kernel",
    "rbn_bank_kernel",
    "rbn_masks_kernel",
    "structure_masks_kernel",
    "threshold_kernel",
]
