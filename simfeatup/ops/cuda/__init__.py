"""The operators on CUDA devices, as Triton kernels: no extension to build, compiled at the first call.

Checked against the definitions in Triton's interpreter on CPUs. Block sizes are not tuned on a device.
"""
