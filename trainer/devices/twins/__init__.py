"""NumPy twins of the kernels: module `<op>` for `shaders/<op>.wgsl`, a function for each entry point.

A twin takes the dispatch's constants as `k` and its bindings by name, as flat arrays; it writes its results
into them. It says the same maths in the plainest way, and serves every variant of the kernel.
"""
