"""Ops: each appends its kernels to a plan and leaves its backward part on the tape.

Shapes: B batch, T context, C width, V vocabulary, NH heads, HS head size; N = B·T rows. Activations are
(N, C) matrices. An op's module stands beside `shaders/<op>.wgsl`.
"""
