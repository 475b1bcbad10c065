"""The compiled kernels, one module per family. They trust their descriptors; `check` and `packing` do not."""
