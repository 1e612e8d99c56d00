"""Loops of the Numba kernels of fused hidden layers with batch or layer norm; hidden.py makes the kernels of them.

Above each loop stands the mathematics it computes: N rows, M columns; a is the activation, a' its derivative. The
activations are applied to some rows at a time, which are then still in the first-level cache (`activation.py`).
"""

from __future__ import annotations

import numpy as np

from fcnet.backends.cpu import activation as kinds
from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, matrix, real, thunk_of, vector
from fcnet.backends.cpu.denormals import flushed, smallest_normal
from fcnet.backends.cpu.jit import Jit, compiled

CHUNK = 4096  # elements that an activation's loops take at a time
LANES = 32  # partial sums of a row: added one after the other, its numbers would be waited for one by one


@compiled
def rows_at_once(width):
    """Return how many rows of this width make about `CHUNK` elements, 1 or more."""
    return max(1, CHUNK // max(1, width))


@compiled
def _batch_statistics(z, b, running_mean, running_var, momentum, eps, first, offset, inv_std):
    # z = z - μ, in place: μ = first + offset, offset = mean(z - first); inv_std = 1 / sqrt(σ² + ε), σ² = mean((z - μ)²)
    # Measured from the first row, a constant column is exactly 0 once its mean is subtracted. A bias would be
    # subtracted with the mean, so b is not added to z: it moves the running mean only.
    rows, width = z.shape
    centred = z
    squares = inv_std  # Σ (z - μ)²; replaced by 1 / sqrt(σ² + ε)
    zero, one = z.dtype.type(0), z.dtype.type(1)
    share = z.dtype.type(1.0 / rows)
    normal = smallest_normal(z)
    for m in range(width):
        first[m] = z[0, m]
        offset[m] = zero
        squares[m] = zero
    for n in range(rows):
        for m in range(width):
            offset[m] += z[n, m] - first[m]
    for m in range(width):
        offset[m] *= share  # until here it was the sum
    for n in range(rows):
        for m in range(width):
            value = (z[n, m] - first[m]) - offset[m]
            centred[n, m] = value
            squares[m] += value * value
    for m in range(width):
        variance = squares[m] * share
        inv_std[m] = one / np.sqrt(variance + eps)
        if running_mean.size:
            moved = momentum * running_mean[m] + (one - momentum) * (first[m] + offset[m] + b[m])
            running_mean[m] = flushed(moved, normal)
            running_var[m] = flushed(momentum * running_var[m] + (one - momentum) * variance, normal)


@Jit
def batchnorm_relu(
    z, b, gamma, beta, running_mean, running_var, momentum, eps, bits, last, scale, first, offset, inv_std, out
):
    """Normalise a batch, in place of z, and apply ReLU and dropout."""
    # x̂ = (z - μ) / sqrt(σ² + ε), in place of z
    # out = max(γ x̂ + β, 0) mask; mask = scale = 1 / keep_ratio where bits <= last, else 0; 1 without bits
    _batch_statistics(z, b, running_mean, running_var, momentum, eps, first, offset, inv_std)
    rows, width = z.shape
    centred = x_hat = z  # z - μ, then x̂
    zero = z.dtype.type(0)
    if bits.size:
        for n in range(rows):
            for m in range(width):
                normalized = centred[n, m] * inv_std[m]
                x_hat[n, m] = normalized
                value = (normalized * gamma[m] + beta[m]) * scale
                dropped = (value <= zero) | (bits[n, m] > last)
                out[n, m] = zero if dropped else value
    else:
        for n in range(rows):
            for m in range(width):
                normalized = centred[n, m] * inv_std[m]
                x_hat[n, m] = normalized
                value = normalized * gamma[m] + beta[m]
                out[n, m] = zero if value <= zero else value  # NaN stays NaN


@Jit
def batchnorm_relu_backward(dout, out, scale, x_hat, inv_std, gamma, g, dz, dgamma, dbeta, mean_dgamma, mean_dbeta):
    """Compute the gradients of `batchnorm_relu`."""
    # g = dout scale where out > 0, else 0; dβ = Σ_n g, dγ = Σ_n g x̂
    # dz = γ / sqrt(σ² + ε) (g - dβ/N - x̂ dγ/N)
    count, width = dout.shape
    zero = dout.dtype.type(0)
    share = dout.dtype.type(1.0 / count)
    for m in range(width):
        dgamma[m] = zero
        dbeta[m] = zero
    for n in range(count):
        for m in range(width):
            value = dout[n, m] * scale if out[n, m] > zero else zero
            g[n, m] = value
            dbeta[m] += value
            dgamma[m] += value * x_hat[n, m]
    for m in range(width):
        mean_dbeta[m] = dbeta[m] * share
        mean_dgamma[m] = dgamma[m] * share
    for n in range(count):
        for m in range(width):
            dz[n, m] = (g[n, m] - mean_dbeta[m] - x_hat[n, m] * mean_dgamma[m]) * (gamma[m] * inv_std[m])


_batchnorm_relu_inner = batchnorm_relu.compiled
_batchnorm_relu_backward_inner = batchnorm_relu_backward.compiled


@thunk_of(batchnorm_relu, "211111rr*nr1112")
def _thunk_batchnorm_relu(record, shared, scratch, num_threads):
    z, b, gamma, beta = matrix(record, 0), vector(record, 3), vector(record, 5), vector(record, 7)
    running_mean, running_var = vector(record, 9), vector(record, 11)
    momentum, eps, scale = np.float32(real(record, 13)), np.float32(real(record, 14)), np.float32(real(record, 17))
    first, offset, inv_std, out = vector(record, 18), vector(record, 20), vector(record, 22), matrix(record, 24)
    bits = pool.no_bits()  # a call with dropout is made from Python
    _batchnorm_relu_inner(
        z,
        b,
        gamma,
        beta,
        running_mean,
        running_var,
        momentum,
        eps,
        bits,
        np.uint16(0),
        scale,
        first,
        offset,
        inv_std,
        out,
    )


@thunk_of(batchnorm_relu_backward, "22r211221111")
def _thunk_batchnorm_relu_backward(record, shared, scratch, num_threads):
    dout, out, scale, x_hat = matrix(record, 0), matrix(record, 3), np.float32(real(record, 6)), matrix(record, 7)
    inv_std, gamma, g, dz = vector(record, 10), vector(record, 12), matrix(record, 14), matrix(record, 17)
    dgamma, dbeta, mean_dgamma, mean_dbeta = (
        vector(record, 20), vector(record, 22), vector(record, 24), vector(record, 26),
    )  # fmt: skip
    _batchnorm_relu_backward_inner(
        dout, out, scale, x_hat, inv_std, gamma, g, dz, dgamma, dbeta, mean_dgamma, mean_dbeta
    )


@Jit
def batchnorm_activation(
    z, b, gamma, beta, running_mean, running_var, momentum, eps, first_row, offset, inv_std, out, first, second, kind
):
    """Normalise a batch, in place of z, and apply the activation of this kind."""
    # x̂ = (z - μ) / sqrt(σ² + ε), in place of z; out = a(γ x̂ + β); first and second are what a's backward pass reads
    _batch_statistics(z, b, running_mean, running_var, momentum, eps, first_row, offset, inv_std)
    rows, width = z.shape
    centred = x_hat = z  # z - μ, then x̂
    some = rows_at_once(width)
    for top in range(0, rows, some):
        end = min(rows, top + some)
        for n in range(top, end):
            for m in range(width):
                normalized = centred[n, m] * inv_std[m]
                x_hat[n, m] = normalized
                out[n, m] = normalized * gamma[m] + beta[m]
        kinds.activate(kind, out[top:end].reshape(-1), first[top:end].reshape(-1), second[top:end].reshape(-1))


@compiled
def _before_activation(g, dout, first, second, mask, scale, kind, top, end):
    # g = dout a' mask scale, for the rows from `top` to `end`; g may be dout
    width = g.shape[1]
    for n in range(top, end):
        for m in range(width):
            g[n, m] = dout[n, m] * scale
    kinds.descend(kind, g[top:end].reshape(-1), first[top:end].reshape(-1), second[top:end].reshape(-1))
    if mask.size:
        for n in range(top, end):
            for m in range(width):
                g[n, m] *= mask[n, m]


@Jit
def batchnorm_activation_backward(
    dout, first, second, mask, kind, x_hat, inv_std, gamma, g, dz, dgamma, dbeta, mean_dgamma, mean_dbeta
):
    """Compute the gradients of `batchnorm_activation` and of dropout after it."""
    # g = dout a' mask; dβ = Σ_n g, dγ = Σ_n g x̂; dz = γ / sqrt(σ² + ε) (g - dβ/N - x̂ dγ/N)
    rows, width = dout.shape
    one = dout.dtype.type(1)
    share = dout.dtype.type(1.0 / rows)
    dgamma[:] = 0
    dbeta[:] = 0
    some = rows_at_once(width)
    for top in range(0, rows, some):
        end = min(rows, top + some)
        _before_activation(g, dout, first, second, mask, one, kind, top, end)
        for n in range(top, end):
            for m in range(width):
                dbeta[m] += g[n, m]
                dgamma[m] += g[n, m] * x_hat[n, m]
    for m in range(width):
        mean_dbeta[m] = dbeta[m] * share
        mean_dgamma[m] = dgamma[m] * share
    for n in range(rows):
        for m in range(width):
            dz[n, m] = (g[n, m] - mean_dbeta[m] - x_hat[n, m] * mean_dgamma[m]) * (gamma[m] * inv_std[m])


@compiled
def _sum_of_lanes(lanes):
    """Return the sum of the partial sums, by halves."""
    half = LANES // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@Jit
def layernorm_activation(z, b, gamma, beta, eps, inv_std, out, first, second, kind):
    """Add the bias and normalise each row, in place of z, and apply the activation of this kind."""
    # With x = z + b: μ = mean_m x, σ² = mean_m (x - μ)², x̂ = (x - μ) / sqrt(σ² + ε), in place of z; out = a(γ x̂ + β)
    # Measured from the first column, as in _batch_statistics.
    rows, width = z.shape
    x = centred = x_hat = z  # z + b, then x - μ, then x̂
    zero, one = z.dtype.type(0), z.dtype.type(1)
    share = z.dtype.type(1.0 / width)
    lanes = np.empty(LANES, z.dtype)
    whole = width - width % LANES
    some = rows_at_once(width)
    for top in range(0, rows, some):
        end = min(rows, top + some)
        for n in range(top, end):
            for m in range(width):
                x[n, m] += b[m]
            origin = x[n, 0]
            lanes[:] = zero
            for left in range(0, whole, LANES):
                for k in range(LANES):
                    lanes[k] += x[n, left + k] - origin
            for m in range(whole, width):
                lanes[m - whole] += x[n, m] - origin
            offset = _sum_of_lanes(lanes) * share
            for m in range(width):
                centred[n, m] = (x[n, m] - origin) - offset
            lanes[:] = zero
            for left in range(0, whole, LANES):
                for k in range(LANES):
                    lanes[k] += centred[n, left + k] * centred[n, left + k]
            for m in range(whole, width):
                lanes[m - whole] += centred[n, m] * centred[n, m]
            inverse = one / np.sqrt(_sum_of_lanes(lanes) * share + eps)
            inv_std[n] = inverse
            for m in range(width):
                normalized = centred[n, m] * inverse
                x_hat[n, m] = normalized
                out[n, m] = normalized * gamma[m] + beta[m]
        kinds.activate(kind, out[top:end].reshape(-1), first[top:end].reshape(-1), second[top:end].reshape(-1))


@Jit
def layernorm_activation_backward(dout, first, second, mask, scale, kind, x_hat, inv_std, gamma, dz, db, dgamma, dbeta):
    """Compute the gradients of `layernorm_activation` and of dropout after it."""
    # dy = dout a' mask scale; dβ = Σ_n dy, dγ = Σ_n dy x̂; with g = γ dy
    # dz = (g - mean_m g - x̂ mean_m (g x̂)) / sqrt(σ² + ε), db = Σ_n dz; dz may be dout
    rows, width = dout.shape
    dy = dz  # until dz takes its place, row by row
    zero = dout.dtype.type(0)
    share = dout.dtype.type(1.0 / width)
    sums, products = np.empty(LANES, dz.dtype), np.empty(LANES, dz.dtype)  # of g, and of g x̂
    db[:] = 0
    dgamma[:] = 0
    dbeta[:] = 0
    whole = width - width % LANES
    some = rows_at_once(width)
    for top in range(0, rows, some):
        end = min(rows, top + some)
        _before_activation(dy, dout, first, second, mask, scale, kind, top, end)
        for n in range(top, end):
            sums[:] = zero
            products[:] = zero
            for left in range(0, whole, LANES):
                for k in range(LANES):
                    g = gamma[left + k] * dy[n, left + k]
                    sums[k] += g
                    products[k] += g * x_hat[n, left + k]
            for m in range(whole, width):
                g = gamma[m] * dy[n, m]
                sums[m - whole] += g
                products[m - whole] += g * x_hat[n, m]
            mean_g, mean_g_x_hat = _sum_of_lanes(sums) * share, _sum_of_lanes(products) * share
            inverse = inv_std[n]
            for m in range(width):
                value = dy[n, m]
                dbeta[m] += value
                dgamma[m] += value * x_hat[n, m]
                gradient = (gamma[m] * value - mean_g - x_hat[n, m] * mean_g_x_hat) * inverse
                dz[n, m] = gradient
                db[m] += gradient


_batchnorm_activation_inner = batchnorm_activation.compiled
_batchnorm_activation_backward_inner = batchnorm_activation_backward.compiled
_layernorm_activation_inner = layernorm_activation.compiled
_layernorm_activation_backward_inner = layernorm_activation_backward.compiled


@thunk_of(batchnorm_activation, "211111rr1112222n")
def _thunk_batchnorm_activation(record, shared, scratch, num_threads):
    z, b, gamma, beta = matrix(record, 0), vector(record, 3), vector(record, 5), vector(record, 7)
    running_mean, running_var = vector(record, 9), vector(record, 11)
    momentum, eps = np.float32(real(record, 13)), np.float32(real(record, 14))
    first_row, offset, inv_std = vector(record, 15), vector(record, 17), vector(record, 19)
    out, first, second, kind = matrix(record, 21), matrix(record, 24), matrix(record, 27), integer(record, 30)
    _batchnorm_activation_inner(
        z,
        b,
        gamma,
        beta,
        running_mean,
        running_var,
        momentum,
        eps,
        first_row,
        offset,
        inv_std,
        out,
        first,
        second,
        kind,
    )


@thunk_of(batchnorm_activation_backward, "2222n211221111")
def _thunk_batchnorm_activation_backward(record, shared, scratch, num_threads):
    dout, first, second, mask = matrix(record, 0), matrix(record, 3), matrix(record, 6), matrix(record, 9)
    kind, x_hat, inv_std, gamma = integer(record, 12), matrix(record, 13), vector(record, 16), vector(record, 18)
    g, dz, dgamma, dbeta = matrix(record, 20), matrix(record, 23), vector(record, 26), vector(record, 28)
    mean_dgamma, mean_dbeta = vector(record, 30), vector(record, 32)
    _batchnorm_activation_backward_inner(
        dout, first, second, mask, kind, x_hat, inv_std, gamma, g, dz, dgamma, dbeta, mean_dgamma, mean_dbeta
    )


@thunk_of(layernorm_activation, "2111r1222n")
def _thunk_layernorm_activation(record, shared, scratch, num_threads):
    z, b, gamma, beta = matrix(record, 0), vector(record, 3), vector(record, 5), vector(record, 7)
    eps, inv_std, out = np.float32(real(record, 9)), vector(record, 10), matrix(record, 12)
    first, second, kind = matrix(record, 15), matrix(record, 18), integer(record, 21)
    _layernorm_activation_inner(z, b, gamma, beta, eps, inv_std, out, first, second, kind)


@thunk_of(layernorm_activation_backward, "2222rn2112111")
def _thunk_layernorm_activation_backward(record, shared, scratch, num_threads):
    dout, first, second, mask = matrix(record, 0), matrix(record, 3), matrix(record, 6), matrix(record, 9)
    scale, kind, x_hat = np.float32(real(record, 12)), integer(record, 13), matrix(record, 14)
    inv_std, gamma, dz = vector(record, 17), vector(record, 19), matrix(record, 21)
    db, dgamma, dbeta = vector(record, 24), vector(record, 26), vector(record, 28)
    _layernorm_activation_backward_inner(
        dout, first, second, mask, scale, kind, x_hat, inv_std, gamma, dz, db, dgamma, dbeta
    )
