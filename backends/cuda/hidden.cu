// What follows a hidden layer's product, for ReLU: the functions of fcnet.functional.hidden, in one pass or two.
//
// A ReLU output that is zero has a zero gradient, whether the unit was off or dropped: the backward pass needs only
// the output and scale = 1 / keep_ratio, no mask.

__device__ __forceinline__ real dropped_relu(real value, bool kept, real scale)
{
    return value <= 0 || !kept ? (real)0 : value * scale;  // NaN stays NaN
}

// Results are `real`, or bf16 for products that would round them so (rounded_once.py).
struct alignas(8) SeveralBf16 { bf16 at[EACH]; };

// out = dropout(relu(z + b)); out may be z.
template <class Out>
__device__ __forceinline__ void bias_relu_each(
    Out* out, const real* z, const real* b, i64 size, int width, real scale, const Dropout& dropout, u64 (*words)[4])
{
    const i64 begin = (i64)blockIdx.x * EACH * THREADS;
    real value[EACH];
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS + threadIdx.x;
        value[k] = i < size ? z[i] + b[column_of(i, width)] : (real)0;
    }
    if (dropout.drops()) {
        if (threadIdx.x < EACH * THREADS / 16) dropout.draw(words[threadIdx.x], begin / 16 + threadIdx.x);
        __syncthreads();
    }
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS + threadIdx.x;
        if (i >= size) return;
        out[i] = dropped_relu(value[k], dropout.keeps(words, begin / 16, i), scale);
    }
}

// The same where EACH divides the width and all arrays begin at a multiple of 16 bytes: a thread has neighbours.
template <class Out>
__device__ __forceinline__ void bias_relu_neighbours(
    Out* out, const Several* z, const Several* b, i64 size, int width, real scale, const Dropout& dropout, u64 (*words)[4])
{
    const i64 begin = (i64)blockIdx.x * EACH * THREADS, mine = begin / EACH + threadIdx.x, i = mine * EACH;
    Several value = {}, bias = {};
    if (i < size) value = z[mine], bias = b[column_of(i, width) / EACH];
    if (dropout.drops()) {
        if (threadIdx.x < EACH * THREADS / 16) dropout.draw(words[threadIdx.x], begin / 16 + threadIdx.x);
        __syncthreads();
    }
    if (i >= size) return;
    Out result;
    for (int k = 0; k < EACH; ++k) {
        result.at[k] = dropped_relu(value.at[k] + bias.at[k], dropout.keeps(words, begin / 16, i + k), scale);
    }
    out[mine] = result;
}

KERNEL(256) bias_relu(real* out, const real* z, const real* b, i64 size, int width, real scale, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_relu_each(out, z, b, size, width, scale, DROPOUT, words);
}

KERNEL(256) bias_relu_bf16(bf16* out, const real* z, const real* b, i64 size, int width, real scale, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_relu_each(out, z, b, size, width, scale, DROPOUT, words);
}

KERNEL(256) bias_relu_aligned(Several* out, const Several* z, const Several* b, i64 size, int width, real scale, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_relu_neighbours(out, z, b, size, width, scale, DROPOUT, words);
}

KERNEL(256) bias_relu_aligned_bf16(SeveralBf16* out, const Several* z, const Several* b, i64 size, int width, real scale, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_relu_neighbours(out, z, b, size, width, scale, DROPOUT, words);
}

// dz = dout where the output is not zero, times scale; db = its sum over the rows. dz may be dout.
template <class Gradient, class Hidden>
__device__ __forceinline__ void bias_relu_gradient(
    Gradient* dz, real* db, const real* dout, const Hidden* out, int rows, int width, real scale, real (*shared)[SIDE + 1])
{
    const int m = blockIdx.x * SIDE + threadIdx.x;
    real sum = 0;
    if (m < width)
        for (int top = threadIdx.y; top < rows; top += EACH * SIDE) {
            real gradient[EACH], output[EACH];
            for (int k = 0; k < EACH; ++k) {  // all are asked for before the first is needed
                const bool there = top + k * SIDE < rows;
                const i64 i = (i64)(there ? top + k * SIDE : top) * width + m;
                gradient[k] = dout[i], output[k] = there ? (real)out[i] : (real)0;
            }
            for (int k = 0; k < EACH && top + k * SIDE < rows; ++k) {
                const real value = output[k] > 0 ? gradient[k] * scale : (real)0;
                dz[(i64)(top + k * SIDE) * width + m] = value;
                sum += value;
            }
        }
    sum = sum_of_column(sum, shared);
    if (m < width && threadIdx.y == 0) db[m] = sum;
}

// The same for many rows, aligned as for `bias_relu_neighbours`: a block for SIDE * EACH columns of `share` rows. parts
// (gridDim.y, width) gets the sums of its rows, which `sum_of_parts` adds.
const int ABREAST = THREADS / SIDE;
template <class Gradient, class Hidden>
__device__ __forceinline__ void bias_relu_gradient_parts(
    Gradient* dz, Several* parts, const Several* dout, const Hidden* out, int rows, int width, int share, real scale,
    Several (*shared)[SIDE])
{
    const int m = blockIdx.x * SIDE + threadIdx.x, units = width / EACH;
    const int begin = blockIdx.y * share, end = rows - begin < share ? rows : begin + share;
    Several sum = {};
    if (m < units)
        for (int top = begin + threadIdx.y; top < end; top += EACH * ABREAST) {
            Several gradient[EACH];
            Hidden output[EACH];
            for (int k = 0; k < EACH && top + k * ABREAST < end; ++k) {
                const i64 i = (i64)(top + k * ABREAST) * units + m;
                gradient[k] = dout[i], output[k] = out[i];
            }
            for (int k = 0; k < EACH && top + k * ABREAST < end; ++k) {
                Gradient result;
                for (int j = 0; j < EACH; ++j) {
                    const real value = output[k].at[j] > 0 ? gradient[k].at[j] * scale : (real)0;
                    result.at[j] = value;
                    sum.at[j] += value;
                }
                dz[(i64)(top + k * ABREAST) * units + m] = result;
            }
        }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (m >= units || threadIdx.y > 0) return;
    for (int y = 1; y < ABREAST; ++y)
        for (int j = 0; j < EACH; ++j) sum.at[j] += shared[y][threadIdx.x].at[j];
    parts[blockIdx.y * units + m] = sum;
}

KERNEL(1024) bias_relu_backward(
    real* dz, real* db, const real* dout, const real* out, int rows, int width, real scale)
{
    __shared__ real shared[SIDE][SIDE + 1];
    bias_relu_gradient(dz, db, dout, out, rows, width, scale, shared);
}

KERNEL(256) bias_relu_backward_parts(
    Several* dz, Several* parts, const Several* dout, const Several* out, int rows, int width, int share, real scale)
{
    __shared__ Several shared[ABREAST][SIDE];
    bias_relu_gradient_parts(dz, parts, dout, out, rows, width, share, scale, shared);
}

KERNEL(1024) bias_relu_backward_to_bf16(
    bf16* dz, real* db, const real* dout, const real* out, int rows, int width, real scale)
{
    __shared__ real shared[SIDE][SIDE + 1];
    bias_relu_gradient(dz, db, dout, out, rows, width, scale, shared);
}

KERNEL(256) bias_relu_backward_to_bf16_parts(
    SeveralBf16* dz, Several* parts, const Several* dout, const Several* out, int rows, int width, int share, real scale)
{
    __shared__ Several shared[ABREAST][SIDE];
    bias_relu_gradient_parts(dz, parts, dout, out, rows, width, share, scale, shared);
}

KERNEL(1024) bias_relu_backward_bf16(
    bf16* dz, real* db, const real* dout, const bf16* out, int rows, int width, real scale)
{
    __shared__ real shared[SIDE][SIDE + 1];
    bias_relu_gradient(dz, db, dout, out, rows, width, scale, shared);
}

KERNEL(256) bias_relu_backward_bf16_parts(
    SeveralBf16* dz, Several* parts, const Several* dout, const SeveralBf16* out, int rows, int width, int share, real scale)
{
    __shared__ Several shared[ABREAST][SIDE];
    bias_relu_gradient_parts(dz, parts, dout, out, rows, width, share, scale, shared);
}

// sums[m] = the sum of column m of parts (count, width), from the first to the last.
KERNEL(256) sum_of_parts(real* sums, const real* parts, int count, int width)
{
    const int m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= width) return;
    real sum = 0;
    for (int n = 0; n < count; ++n) sum += parts[n * width + m];
    sums[m] = sum;
}

// out = dropout(relu(batchnorm(z))) with the batch's statistics, which also move the running ones (if there are any);
// b only shifts the running mean. x_hat may be z.
KERNEL(1024) batchnorm_relu(
    real* out, real* x_hat, real* inv_std, const real* z, const real* b, const real* gamma, const real* beta,
    real* running_mean, real* running_var, int rows, int width, real momentum, real eps, real scale, DROPOUT_PARAMETERS)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const bool mine = m < width;
    // Measured from the first row, so that a constant column is exactly 0 after its mean is taken off.
    const real origin = mine ? z[m] : (real)0;
    real sum = 0;
    if (mine)
        for (int n = threadIdx.y; n < rows; n += SIDE) sum += z[(i64)n * width + m] - origin;
    const real mean = sum_of_column(sum, shared) / rows;
    sum = 0;
    if (mine)
        for (int n = threadIdx.y; n < rows; n += SIDE) {
            const real centred = (z[(i64)n * width + m] - origin) - mean;
            sum += centred * centred;
        }
    const real variance = sum_of_column(sum, shared) / rows;
    const real inverse = 1 / sqrt(variance + eps);
    if (mine && threadIdx.y == 0) {
        inv_std[m] = inverse;
        if (running_mean) {
            running_mean[m] = flushed(momentum * running_mean[m] + (1 - momentum) * (origin + mean + b[m]));
            running_var[m] = flushed(momentum * running_var[m] + (1 - momentum) * variance);
        }
    }
    __shared__ u64 words[SIDE * 3][4];  // 32 elements of a row have their numbers in 3 sixteens at most
    const Dropout dropout = DROPOUT;
    const int thread = threadIdx.y * SIDE + threadIdx.x, left = blockIdx.x * SIDE;
    for (int top = 0; top < rows; top += SIDE) {
        if (dropout.drops()) {
            __syncthreads();  // the numbers of the rows above have been read
            if (thread < SIDE * 3) dropout.draw(words[thread], ((i64)(top + thread / 3) * width + left) / 16 + thread % 3);
            __syncthreads();
        }
        const int n = top + threadIdx.y;
        if (!mine || n >= rows) continue;
        const i64 i = (i64)n * width + m;
        const real normal = ((z[i] - origin) - mean) * inverse;
        const real value = normal * gamma[m] + beta[m];
        const bool kept = dropout.keeps(words + threadIdx.y * 3, ((i64)n * width + left) / 16, i);
        x_hat[i] = normal;
        out[i] = dropped_relu(value, kept, scale);
    }
}

// dgamma, dbeta, and dz = gamma inv_std (dy - mean(dy) - x_hat mean(dy x_hat)) with dy the gradient after
// normalisation; db = 0, because batch norm takes a bias away again. dz may be dout.
KERNEL(1024) batchnorm_relu_backward(
    real* dz, real* db, real* dgamma, real* dbeta, const real* dout, const real* out, const real* x_hat,
    const real* inv_std, const real* gamma, int rows, int width, real scale)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const bool mine = m < width;
    real sum = 0, product = 0;
    if (mine)
        for (int n = threadIdx.y; n < rows; n += SIDE) {
            const i64 i = (i64)n * width + m;
            const real dy = out[i] > 0 ? dout[i] * scale : (real)0;
            sum += dy;
            product += dy * x_hat[i];
        }
    sum = sum_of_column(sum, shared);
    product = sum_of_column(product, shared);
    if (!mine) return;
    if (threadIdx.y == 0) {
        dbeta[m] = sum;
        dgamma[m] = product;
        db[m] = 0;
    }
    const real factor = gamma[m] * inv_std[m];
    for (int n = threadIdx.y; n < rows; n += SIDE) {
        const i64 i = (i64)n * width + m;
        const real dy = out[i] > 0 ? dout[i] * scale : (real)0;
        dz[i] = (dy - sum / rows - x_hat[i] * (product / rows)) * factor;
    }
}

// out = dropout(relu(layernorm(z + b))): a block for each row. x_hat may be z.
KERNEL(256) layernorm_relu(
    real* out, real* x_hat, real* inv_std, const real* z, const real* b, const real* gamma, const real* beta, int width,
    real eps, real scale, DROPOUT_PARAMETERS)
{
    __shared__ real shared[1024];
    const i64 row = (i64)blockIdx.x * width;
    const real origin = z[row] + b[0];  // as in batchnorm_relu
    real sum = 0;
    for (int m = threadIdx.x; m < width; m += blockDim.x) sum += (z[row + m] + b[m]) - origin;
    const real mean = sum_of_block(sum, shared) / width;
    sum = 0;
    for (int m = threadIdx.x; m < width; m += blockDim.x) {
        const real centred = ((z[row + m] + b[m]) - origin) - mean;
        sum += centred * centred;
    }
    const real inverse = 1 / sqrt(sum_of_block(sum, shared) / width + eps);
    if (threadIdx.x == 0) inv_std[blockIdx.x] = inverse;
    __shared__ u64 words[THREADS / 16 + 1][4];  // THREADS elements from anywhere on
    const Dropout dropout = DROPOUT;
    for (int left = 0; left < width; left += THREADS) {
        const i64 first = (row + left) / 16;
        if (dropout.drops()) {
            __syncthreads();  // the numbers of the columns before have been read
            if (threadIdx.x <= THREADS / 16) dropout.draw(words[threadIdx.x], first + threadIdx.x);
            __syncthreads();
        }
        const int m = left + threadIdx.x;
        if (m >= width) continue;
        const i64 i = row + m;
        const real normal = (((z[i] + b[m]) - origin) - mean) * inverse;
        const real value = normal * gamma[m] + beta[m];
        x_hat[i] = normal;
        out[i] = dropped_relu(value, dropout.keeps(words, first, i), scale);
    }
}

// dz of `layernorm_relu`, a block for each row; dy, which `layernorm_sums` reads, is written too. dy may be dout.
KERNEL(256) layernorm_relu_backward(
    real* dz, real* dy, const real* dout, const real* out, const real* x_hat, const real* inv_std, const real* gamma,
    int width, real scale)
{
    __shared__ real shared[1024];
    const i64 row = (i64)blockIdx.x * width;
    real sum = 0, product = 0;
    for (int m = threadIdx.x; m < width; m += blockDim.x) {
        const i64 i = row + m;
        const real value = out[i] > 0 ? dout[i] * scale : (real)0;
        dy[i] = value;
        sum += value * gamma[m];
        product += value * gamma[m] * x_hat[i];
    }
    sum = sum_of_block(sum, shared) / width;
    product = sum_of_block(product, shared) / width;
    for (int m = threadIdx.x; m < width; m += blockDim.x) {
        const i64 i = row + m;
        dz[i] = (dy[i] * gamma[m] - sum - x_hat[i] * product) * inv_std[blockIdx.x];
    }
}

// db, dgamma and dbeta of `layernorm_relu_backward`.
KERNEL(1024) layernorm_sums(
    real* db, real* dgamma, real* dbeta, const real* dz, const real* dy, const real* x_hat, int rows, int width)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    real bias = 0, scale = 0, shift = 0;
    if (m < width)
        for (int n = threadIdx.y; n < rows; n += SIDE) {
            const i64 i = (i64)n * width + m;
            bias += dz[i];
            scale += dy[i] * x_hat[i];
            shift += dy[i];
        }
    bias = sum_of_column(bias, shared);
    scale = sum_of_column(scale, shared);
    shift = sum_of_column(shift, shared);
    if (m < width && threadIdx.y == 0) {
        db[m] = bias;
        dgamma[m] = scale;
        dbeta[m] = shift;
    }
}

// out = z + b: the end of an affine layer that nothing else follows. out may be z.
KERNEL(256) add_bias(real* out, const real* z, const real* b, i64 size, int width)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) out[i] = z[i] + b[column_of(i, width)];
}

// db (gridDim.y, width) = the sums of dout over its rows, `share` at a time.
KERNEL(1024) bias_gradient(real* db, const real* dout, int rows, int width, int share)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const int begin = blockIdx.y * share, end = rows - begin < share ? rows : begin + share;
    real sum = 0;
    if (m < width)
        for (int n = begin + threadIdx.y; n < end; n += SIDE) sum += dout[(i64)n * width + m];
    sum = sum_of_column(sum, shared);
    if (m < width && threadIdx.y == 0) db[blockIdx.y * width + m] = sum;
}
