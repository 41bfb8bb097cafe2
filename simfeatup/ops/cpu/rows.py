"""Compiled loops of a joint bilateral layer: one row of pixels at a time, in the cache.

Arrays of a row are (taps or channels, pixels), so that the innermost loops run over neighbouring pixels.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from simfeatup.ops.cpu.parallel import OPTIONS, compiled
from simfeatup.ops.cpu.simd import LANES, filled, load, multiply_add, number, store, zeros

ROW_BLOCK = 256  # pixels of a row at a time, so that all their taps stay in the cache
PIXEL_MULTIPLE = 32  # pixels a loop takes at once, a multiple of LANES; keys and buffers reach so far beyond a row
DENSE_MULTIPLE = 6  # rows of a weight matrix
MIN_KERNEL_SUM = 1e-7  # as in simfeatup.ops.stages; compiled loops are kept by the sources of this folder alone

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
def dense(weight, bias, inputs, out, n):
    """A 1x1 convolution of n pixels: inputs (I, >= n) -> out (O, >= n), O a multiple of 6, n of LANES."""
    width, out_width = inputs.shape[1], out.shape[1]
    for o in range(0, len(weight), DENSE_MULTIPLE):
        w0, w1, w2, w3, w4, w5 = weight[o], weight[o + 1], weight[o + 2], weight[o + 3], weight[o + 4], weight[o + 5]
        for x in range(0, n, LANES):
            a, b, c = filled(inputs, bias[o]), filled(inputs, bias[o + 1]), filled(inputs, bias[o + 2])
            d, e, f = filled(inputs, bias[o + 3]), filled(inputs, bias[o + 4]), filled(inputs, bias[o + 5])
            for i in range(weight.shape[1]):
                values = load(inputs, i * width + x)
                a, b = multiply_add(a, w0[i], values), multiply_add(b, w1[i], values)
                c, d = multiply_add(c, w2[i], values), multiply_add(d, w3[i], values)
                e, f = multiply_add(e, w4[i], values), multiply_add(f, w5[i], values)
            at = o * out_width + x
            store(out, at, a)
            store(out, at + out_width, b)
            store(out, at + 2 * out_width, c)
            store(out, at + 3 * out_width, d)
            store(out, at + 4 * out_width, e)
            store(out, at + 5 * out_width, f)


@compiled
def gelu(rows, count, n, tails):
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
    """Keys (H + 2r, K, >= W + 2r) of rows top to bottom, columns reflected; a bias (K,) beside each weight (K, I)."""
    width = guidance.shape[2]
    n = rounded(width)
    inputs = np.zeros((weight1.shape[1], n), np.float32)
    hidden = np.zeros((max(len(weight1), weight2.shape[1]), n), np.float32)
    out = np.zeros((len(weight2), n), np.float32)
    tails = np.empty(n, np.float32)
    for y in range(top, bottom):
        for channel in range(len(guidance)):
            for x in range(width):
                inputs[channel, x] = guidance[channel, y, x]
        dense(weight1, bias1, inputs, hidden, n)
        gelu(hidden, len(weight1), n, tails)
        dense(weight2, bias2, hidden, out, n)
        for channel in range(keys.shape[1]):
            row = keys[y + radius, channel]
            for x in range(width):
                row[radius + x] = out[channel, x]
            for x in range(radius):
                row[x] = out[channel, reflected(x - radius, width)]
                row[radius + width + x] = out[channel, reflected(width + x, width)]


@compiled
def rounded(pixels):
    """The next multiple of PIXEL_MULTIPLE."""
    return (pixels + PIXEL_MULTIPLE - 1) // PIXEL_MULTIPLE * PIXEL_MULTIPLE


@compiled
def block_side(width):
    """Pixels of each of the equal blocks, of at most ROW_BLOCK, that a row is computed in."""
    blocks = (width + ROW_BLOCK - 1) // ROW_BLOCK
    return rounded((width + blocks - 1) // blocks)


@compiled
def similarity(keys, side, y, left, n, out):
    """Dot products of n pixels' keys with their neighbours' keys: out (T*T, >= n), T at least 3.

    Less those of the keys with themselves, as in :func:`simfeatup.ops.stages.joint_kernel`.
    """
    channels, width = keys.shape[1:]
    radius, out_width = side // 2, out.shape[1]
    minus = keys.dtype.type(-1)
    for i in range(side):
        for group in range(0, side, 3):
            j = min(group, side - 3)
            for x in range(0, n, LANES):
                a, b, c = zeros(keys), zeros(keys), zeros(keys)
                for k in range(channels):
                    centre = load(keys, ((y + radius) * channels + k) * width + left + radius + x)
                    at = ((y + i) * channels + k) * width + left + j + x
                    a = multiply_add(a, centre, multiply_add(load(keys, at), minus, centre))
                    b = multiply_add(b, centre, multiply_add(load(keys, at + 1), minus, centre))
                    c = multiply_add(c, centre, multiply_add(load(keys, at + 2), minus, centre))
                at = (i * side + j) * out_width + x
                store(out, at, a)
                store(out, at + out_width, b)
                store(out, at + 2 * out_width, c)


@compiled
def softmax(logits, temperature, spatial, n, out, sums):
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
def normalised_row(logits, temperature, spatial, n, out, sums):
    """Softmax of n pixels' logits times the spatial kernel, of sum 1 -> out (T*T, >= n); sums (3, >= n) as above."""
    softmax(logits, temperature, spatial, n, out, sums)
    least, factor = spatial.dtype.type(MIN_KERNEL_SUM), sums[0]
    for x in range(n):
        factor[x] = 1 / max(sums[2, x], least * sums[1, x])
    for tap in range(len(spatial)):
        row, weight = out[tap], spatial[tap]
        for x in range(n):
            row[x] *= weight * factor[x]


@compiled
def joint_row(keys, side, y, left, n, temperature, spatial, logits, out, sums):
    """Joint kernels of n pixels -> out (T*T, >= n); ``logits``, as large, and ``sums`` (3, >= n) are work space."""
    similarity(keys, side, y, left, n, logits)
    normalised_row(logits, temperature, spatial, n, out, sums)


@compiled
def fold_row(full, fold_y, fold_x, left, pixels, n, partial, target, out):
    """Folds full (T*T, >= n) -> out (Ty, Tx, W) from ``left`` on; partial (T, >= n), target (>= n,) are work space."""
    side, width = len(fold_y), full.shape[1]
    for a in range(len(out)):
        first, last = 0, side  # the taps that this row of the input has a share in
        while fold_y[first, a] == 0 and first < side - 1:
            first += 1
        while fold_y[last - 1, a] == 0 and last > first + 1:
            last -= 1
        for j in range(side):
            for x in range(0, n, LANES):
                total = zeros(full)
                for i in range(first, last):
                    taps = load(full, (i * side + j) * width + x)
                    total = multiply_add(total, number(fold_y, i * len(out) + a), taps)
                store(partial, j * width + x, total)
        for c in range(out.shape[1]):
            for x in range(0, n, LANES):
                total = zeros(full)
                for j in range(side):
                    weights = load(fold_x, (j * out.shape[1] + c) * fold_x.shape[2] + left + x)
                    total = multiply_add(total, weights, load(partial, j * width + x))
                store(target, x, total)
            for x in range(pixels):
                out[a, c, left + x] = target[x]
