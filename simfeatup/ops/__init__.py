"""Operators of the upsamplers: each defined once, in plain torch, with faster implementations behind one boundary.

:mod:`simfeatup.ops.operator` is the boundary; ``cpu`` and ``cuda`` behind it are loaded at the first use, so that
importing this package needs torch alone.
"""
