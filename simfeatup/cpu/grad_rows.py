"""Compiled loops of a joint bilateral layer's backward pass; the forward pass is :mod:`simfeatup.cpu.rows`."""

from __future__ import annotations

import math

import numpy as np

from simfeatup.cpu.parallel import compiled

MIN_KERNEL_SUM = 1e-7  # as in simfeatup.joint_kernel


@compiled
def grad_similarity_rows(grad, logits, weights, sums, temperature, spatial, out, totals, top, bottom):
    """Gradients of the similarities, and of the spatial kernel and the temperature.

    From the kernels' gradient ``grad`` (T*T, H, W) and from what softmax_rows made of rows top to bottom: ``out``
    (T*T, H, W) in these rows, and ``totals`` (H, T*T + 1), one row's share a row, the temperature's last.
    """
    taps, _, width = grad.shape
    least = spatial.dtype.type(MIN_KERNEL_SUM)
    factor, mean = np.empty(width, grad.dtype), np.empty(width, grad.dtype)
    for y in range(top, bottom):
        total, joint = sums[1, y - top], sums[2, y - top]
        mean[:] = 0
        for x in range(width):
            factor[x] = 1 / max(joint[x], least * total[x])
        for tap in range(taps):
            weight, slope_out = weights[tap, y - top], grad[tap, y]
            for x in range(width):
                mean[x] += slope_out[x] * weight[x] * spatial[tap] * factor[x]
        for tap in range(taps):
            weight, slope_out, logit, target = weights[tap, y - top], grad[tap, y], logits[tap, y - top], out[tap, y]
            spatial_total, temperature_total = spatial[0] * 0, spatial[0] * 0
            for x in range(width):
                is_clamped = joint[x] < least * total[x]
                share = weight[x] * factor[x]  # of the spatial weight in the kernel
                own = share * slope_out[x]
                others = weight[x] / total[x] if is_clamped else share * spatial[tap]
                slope = own * spatial[tap] - others * mean[x]
                target[x] = temperature * slope
                spatial_total += own if is_clamped else own - share * mean[x]
                temperature_total += slope * logit[x]
            totals[y, tap] = spatial_total
            totals[y, taps] += temperature_total


@compiled
def grad_key_rows(grad_similarity, keys, out, top, bottom):
    """Gradient of the padded keys (H + 2r, K, W), rows top to bottom, each as centre and as neighbour."""
    taps, height, width = grad_similarity.shape
    side = int(math.sqrt(taps))
    radius = side // 2
    for row in range(top, bottom):
        for i in range(side):
            y = row - i
            if 0 <= y < height:  # as the neighbour of the pixels of row y
                for k in range(keys.shape[1]):
                    centre = keys[y + radius, k, radius : radius + width]
                    for j in range(side):
                        slope, target = grad_similarity[i * side + j, y], out[row, k, j : j + width]
                        for x in range(width):
                            target[x] += slope[x] * centre[x]
            y = row - radius
            if 0 <= y < height:  # as the centre
                for k in range(keys.shape[1]):
                    target = out[row, k, radius : radius + width]
                    for j in range(side):
                        slope, neighbour = grad_similarity[i * side + j, y], keys[y + i, k, j : j + width]
                        for x in range(width):
                            target[x] += slope[x] * neighbour[x]
