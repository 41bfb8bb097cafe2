"""Operators of the upsamplers: each defined once, in plain torch, with faster implementations behind one boundary.

:mod:`simfeatup.ops.operator` is the boundary. An operator is registered with torch.library as ``simfeatup::NAME``: its
plain definition serves as its fake implementation too, so that torch.export and torch.compile take it as one node,
and its gradient is a second operator, whose definition is the first one's derivative. In eager use a call costs 1 to
10 microseconds more than a torch.autograd.Function, of some milliseconds that an operator takes.

``cpu`` holds loops compiled by numba, ``cuda`` Triton kernels. They are loaded at the first use, so that importing
this package needs torch alone.
"""
