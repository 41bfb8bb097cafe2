"""Compiled loops of a joint bilateral layer: one row of pixels at a time, in the cache.

Arrays of a row are (taps, pixels), so that the innermost loops run over neighbouring pixels. What calls each other
stays in this file: numba's cache on disk notices changes of a function's own file only.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from simfeatup.cpu.parallel import OPTIONS, compiled

ROW_BLOCK = 256  # pixels of a row at a time, so that all their taps stay in the cache
PIXEL_MULTIPLE = 32  # pixels a compiled loop takes at once; what is left over takes as long
MIN_KERNEL_SUM = 1e-7  # as in simfeatup.joint_kernel

# Cephes expf: exp(x) = 2^n P(r), r = x - n ln 2 in two parts.
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP = tuple(
    np.float32(value)
    for value in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
)
# Abramowitz and Stegun 7.1.26: erfc(z) = t P(t) exp(-z^2), t = 1 / (1 + p z), error below 1.5e-7.
ERFC_P = np.float32(0.3275911)
ERFC = tuple(np.float32(value) for value in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))
SQRT_HALF, HALF, ONE, LOWEST = np.float32(0.5**0.5), np.float32(0.5), np.float32(1), np.float32(-87)


def _exp(x):
    """exp(x) for x <= 0."""


@overload(_exp, jit_options=OPTIONS)
def _exp_for(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def vectorisable(x):
        x = max(x, LOWEST)
        n = np.int32(x * LOG2_E - HALF)  # to the nearest, since x <= 0
        r = x - np.float32(n) * LN2_HIGH - np.float32(n) * LN2_LOW
        y = EXP[0] * r + EXP[1]
        y = y * r + EXP[2]
        y = y * r + EXP[3]
        y = y * r + EXP[4]
        y = y * r + EXP[5]
        y = y * (r * r) + r + ONE
        return y * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)

    return vectorisable


@compiled
def reflected(index, length):
    """Where an index outside 0 to length - 1 lies when the axis is mirrored at its first and last entry."""
    period = max(2 * (length - 1), 1)
    index %= period
    return min(index, period - index) if length > 1 else 0


@compiled
def _dense(weight, bias, inputs, out, n):
    """A 1x1 convolution of n pixels: inputs (I, >= n) -> out (O, >= n), O and I multiples of 3."""
    for o in range(0, len(weight), 3):
        p, q, r = out[o, :n], out[o + 1, :n], out[o + 2, :n]
        p[:], q[:], r[:] = bias[o], bias[o + 1], bias[o + 2]
        for i in range(0, weight.shape[1], 3):
            a0, a1, a2 = weight[o, i], weight[o, i + 1], weight[o, i + 2]
            b0, b1, b2 = weight[o + 1, i], weight[o + 1, i + 1], weight[o + 1, i + 2]
            c0, c1, c2 = weight[o + 2, i], weight[o + 2, i + 1], weight[o + 2, i + 2]
            u, v, w = inputs[i, :n], inputs[i + 1, :n], inputs[i + 2, :n]
            for x in range(n):
                p[x] += a0 * u[x] + a1 * v[x] + a2 * w[x]
                q[x] += b0 * u[x] + b1 * v[x] + b2 * w[x]
                r[x] += c0 * u[x] + c1 * v[x] + c2 * w[x]


@compiled
def _gelu(rows, count, n, tails):
    """GELU in place of the first ``count`` rows; ``tails`` (>= n,) is work space."""
    for k in range(count):
        row = rows[k]
        for x in range(n):
            z = abs(row[x]) * SQRT_HALF
            t = ONE / (ONE + ERFC_P * z)
            tail = ((((ERFC[0] * t + ERFC[1]) * t + ERFC[2]) * t + ERFC[3]) * t + ERFC[4]) * t
            tails[x] = tail * _exp(-z * z)
        for x in range(n):
            half = HALF * abs(row[x])
            row[x] = HALF * row[x] + half - half * tails[x]


@compiled
def key_rows(guidance, weight1, bias1, weight2, bias2, radius, keys, top, bottom):
    """Keys (K, H + 2r, >= W + 2r) of rows top to bottom, columns reflected; a bias (K,) beside each weight (K, I)."""
    width = guidance.shape[2]
    inputs = np.zeros((weight1.shape[1], width), np.float32)
    hidden = np.zeros((max(len(weight1), weight2.shape[1]), width), np.float32)
    out = np.zeros((len(weight2), width), np.float32)
    tails = np.empty(width, np.float32)
    for y in range(top, bottom):
        for channel in range(len(guidance)):
            for x in range(width):
                inputs[channel, x] = guidance[channel, y, x]
        _dense(weight1, bias1, inputs, hidden, width)
        _gelu(hidden, len(weight1), width, tails)
        _dense(weight2, bias2, hidden, out, width)
        for channel in range(len(out)):
            row = keys[channel, y + radius]
            for x in range(width):
                row[radius + x] = out[channel, x]
            for x in range(radius):
                row[x] = out[channel, reflected(x - radius, width)]
                row[radius + width + x] = out[channel, reflected(width + x, width)]


@compiled
def _similarity(keys, side, y, left, n, out):
    """Dot products of n pixels' keys with those of all their neighbours: out (T*T, >= n)."""
    radius = side // 2
    for i in range(side):
        for tap in range(i * side, i * side + side):
            out[tap, :n] = 0
        k = 0
        while k + 1 < len(keys):
            centre0 = keys[k, y + radius, left + radius : left + radius + n]
            centre1 = keys[k + 1, y + radius, left + radius : left + radius + n]
            for j in range(0, side - 1, 2):
                first = left + j
                u0, u1 = keys[k, y + i, first : first + n], keys[k + 1, y + i, first : first + n]
                v0, v1 = keys[k, y + i, first + 1 : first + 1 + n], keys[k + 1, y + i, first + 1 : first + 1 + n]
                p, q = out[i * side + j, :n], out[i * side + j + 1, :n]
                for x in range(n):
                    p[x] += centre0[x] * u0[x] + centre1[x] * u1[x]
                    q[x] += centre0[x] * v0[x] + centre1[x] * v1[x]
            j = side - 1
            u0, u1 = keys[k, y + i, left + j : left + j + n], keys[k + 1, y + i, left + j : left + j + n]
            p = out[i * side + j, :n]
            for x in range(n):
                p[x] += centre0[x] * u0[x] + centre1[x] * u1[x]
            k += 2
        if k < len(keys):
            centre0 = keys[k, y + radius, left + radius : left + radius + n]
            for j in range(side):
                u0, p = keys[k, y + i, left + j : left + j + n], out[i * side + j, :n]
                for x in range(n):
                    p[x] += centre0[x] * u0[x]


@compiled
def _softmax(logits, temperature, spatial, n, out, sums):
    """exp(temperature (logits - max)) -> out (T*T, >= n); sums (3, >= n): max, sum, sum with the spatial kernel."""
    peak, total, joint = sums[0, :n], sums[1, :n], sums[2, :n]
    peak[:], total[:], joint[:] = -np.inf, 0, 0
    for tap in range(len(spatial)):
        row = logits[tap]
        for x in range(n):
            peak[x] = max(peak[x], row[x])
    for tap in range(len(spatial)):
        row, weights, weight = logits[tap], out[tap], spatial[tap]
        for x in range(n):
            value = _exp(temperature * (row[x] - peak[x]))
            weights[x] = value
            total[x] += value
            joint[x] += value * weight


@compiled
def _joint_row(keys, side, y, left, n, temperature, spatial, logits, out, sums):
    """Joint kernels of n pixels -> out (T*T, >= n); ``logits``, as large, and ``sums`` (3, >= n) are work space."""
    _similarity(keys, side, y, left, n, logits)
    _softmax(logits, temperature, spatial, n, out, sums)
    least, factor = spatial.dtype.type(MIN_KERNEL_SUM), sums[0]
    for x in range(n):
        factor[x] = 1 / max(sums[2, x], least * sums[1, x])
    for tap in range(len(spatial)):
        row, weight = out[tap], spatial[tap]
        for x in range(n):
            row[x] *= weight * factor[x]


@compiled
def joint_kernel_rows(keys, temperature, spatial, out, top, bottom):
    """Kernels (T*T, H, W) of rows top to bottom from padded keys (K, H + 2r, W + 2r)."""
    taps, _, width = out.shape
    side = int(math.sqrt(taps))
    sums = np.empty((3, ROW_BLOCK), keys.dtype)
    logits, joint = np.empty((taps, ROW_BLOCK), keys.dtype), np.empty((taps, ROW_BLOCK), keys.dtype)
    for y in range(top, bottom):
        for left in range(0, width, ROW_BLOCK):
            n = min(ROW_BLOCK, width - left)
            _joint_row(keys, side, y, left, n, temperature, spatial, logits, joint, sums)
            for tap in range(taps):
                for x in range(n):
                    out[tap, y, left + x] = joint[tap, x]


@compiled
def softmax_rows(keys, temperature, spatial, logits, weights, sums, top, bottom):
    """What :func:`_softmax` computes, for rows top to bottom: logits, weights (T*T, rows, W) and sums (3, rows, W)."""
    taps, _, width = logits.shape
    side = int(math.sqrt(taps))
    own_logits, own_weights = np.empty((taps, ROW_BLOCK), keys.dtype), np.empty((taps, ROW_BLOCK), keys.dtype)
    own_sums = np.empty((3, ROW_BLOCK), keys.dtype)
    for y in range(top, bottom):
        for left in range(0, width, ROW_BLOCK):
            n = min(ROW_BLOCK, width - left)
            _similarity(keys, side, y, left, n, own_logits)
            _softmax(own_logits, temperature, spatial, n, own_weights, own_sums)
            for x in range(n):
                for tap in range(taps):
                    logits[tap, y - top, left + x] = own_logits[tap, x]
                    weights[tap, y - top, left + x] = own_weights[tap, x]
                for which in range(3):
                    sums[which, y - top, left + x] = own_sums[which, x]


@compiled
def folded_kernel_rows(
    guidance, keys, temperature, spatial, weight1, bias1, weight2, bias2, fold_y, fold_x, out, top, bottom
):
    """Kernels (H, Ty, Tx, W) of rows top to bottom; keys and fold_x reach PIXEL_MULTIPLE beyond the width."""
    taps, side, width = len(spatial), fold_y.shape[1], guidance.shape[2]
    blocks = (width + ROW_BLOCK - 1) // ROW_BLOCK
    block = _rounded((width + blocks - 1) // blocks)
    joint = np.zeros((weight1.shape[1], block), np.float32)
    hidden = np.zeros((max(len(weight1), weight2.shape[1]), block), np.float32)
    full = np.empty((max(len(weight2), taps), block), np.float32)
    partial = np.empty((side, block), np.float32)
    sums = np.empty((3, block), np.float32)
    for y in range(top, bottom):
        for left in range(0, width, block):
            pixels = min(block, width - left)
            n = _rounded(pixels)  # what is computed beyond the last pixel is cut off in the end
            _joint_row(keys, side, y, left, n, temperature, spatial, full, joint, sums)
            for channel in range(len(guidance)):
                for x in range(pixels):
                    joint[taps + channel, x] = guidance[channel, y, left + x]
            _dense(weight1, bias1, joint, hidden, n)
            _gelu(hidden, len(weight1), n, sums[0])
            _dense(weight2, bias2, hidden, full, n)
            for tap in range(taps):
                for x in range(n):
                    full[tap, x] += joint[tap, x]
            _fold_row(full, fold_y[y], fold_x, left, pixels, n, partial, sums[0], out[y])


@compiled
def _rounded(pixels):
    return (pixels + PIXEL_MULTIPLE - 1) // PIXEL_MULTIPLE * PIXEL_MULTIPLE


@compiled
def _fold_row(full, fold_y, fold_x, left, pixels, n, partial, target, out):
    """Folds full (T*T, >= n) -> out (Ty, Tx, W) from ``left`` on; partial (T, >= n), target (>= n,) are work space."""
    side = len(fold_y)
    for a in range(len(out)):
        partial[:] = 0
        for i in range(side):
            weight = fold_y[i, a]
            if weight != 0:
                for j in range(side):
                    row, source = partial[j], full[i * side + j]
                    for x in range(n):
                        row[x] += weight * source[x]
        for c in range(out.shape[1]):
            target[:n] = 0
            for j in range(side):
                row, weights = partial[j], fold_x[j, c, left : left + n]
                for x in range(n):
                    target[x] += weights[x] * row[x]
            for x in range(pixels):
                out[a, c, left + x] = target[x]
