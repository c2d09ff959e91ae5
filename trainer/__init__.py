"""Tabula's trainer: GPT language models from scratch, with WGSL kernels and no machine-learning library.

Importing this package and building a plan needs the standard library alone: that is what the page does.
numpy, wgpu and rich are imported only where they are used.
"""

__version__ = "0.1.0"
