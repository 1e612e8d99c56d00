// What follows a hidden layer's product, for any activation: the functions of fcnet.functional.hidden, in one pass or two.
//
// z, x_hat, out are (rows, width). `unit.set(i, x, kept)` writes out[i] = a(x) mask, a the activation, which acts on x;
// `slope.times(i, dout)` is the gradient with respect to x, dout a'(x) mask. `unit.set_neighbours` and
// `slope.times_neighbours` do so for EACH elements from EACH i on, 16 bytes at a time; of `stored` in bf16, 8.

// out = a(z + b) mask; out may be z. `aligned`: EACH divides the width, and all arrays begin at a multiple of 16 bytes.
template <class Unit>
__device__ __forceinline__ void bias_each(
    const Unit& unit, const stored* z, const real* b, i64 size, int width, bool aligned, const Dropout& dropout,
    u64 (*words)[4])
{
    const i64 begin = (i64)blockIdx.x * EACH * THREADS;
    real value[EACH];
    if (aligned) {
        const i64 mine = begin / EACH + threadIdx.x, i = mine * EACH;
        if (i < size) {
            const SeveralStored some = ((const SeveralStored*)z)[mine];
            const Several bias = ((const Several*)b)[column_of(i, width) / EACH];
            for (int k = 0; k < EACH; ++k) value[k] = some.at[k] + bias.at[k];
        }
        if (dropout.drops()) {
            if (threadIdx.x < EACH * THREADS / 16) dropout.draw(words[threadIdx.x], begin / 16 + threadIdx.x);
            __syncthreads();
        }
        if (i >= size) return;
        bool kept[EACH];
        for (int k = 0; k < EACH; ++k) kept[k] = dropout.keeps(words, begin / 16, i + k);
        unit.set_neighbours(mine, value, kept);
        return;
    }
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
        unit.set(i, value[k], dropout.keeps(words, begin / 16, i));
    }
}

// dz = dout a' mask, and parts (gridDim.y, width) = its sums over the rows, `share` at a time. dz may be dout.
template <class Slope>
__device__ __forceinline__ void bias_gradient_each(
    const Slope& slope, stored* dz, real* parts, const stored* dout, int rows, int width, int share)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const int begin = blockIdx.y * share, end = rows - begin < share ? rows : begin + share;
    real sum = 0;
    if (m < width)
        for (int top = begin + threadIdx.y; top < end; top += EACH * SIDE) {
            real gradient[EACH];
            for (int k = 0; k < EACH; ++k) {  // all are asked for before the first is needed
                const i64 i = (i64)(top + k * SIDE < end ? top + k * SIDE : top) * width + m;
                gradient[k] = slope.times(i, dout[i]);
            }
            for (int k = 0; k < EACH && top + k * SIDE < end; ++k) {
                dz[(i64)(top + k * SIDE) * width + m] = gradient[k];
                sum += gradient[k];
            }
        }
    sum = sum_of_column(sum, shared);
    if (m < width && threadIdx.y == 0) parts[blockIdx.y * width + m] = sum;
}

// The same, aligned as for `bias_each`: a block for SIDE * EACH columns.
const int ABREAST = THREADS / SIDE;
template <class Slope>
__device__ __forceinline__ void bias_gradient_neighbours(
    const Slope& slope, stored* dz, real* parts, const stored* dout, int rows, int width, int share)
{
    __shared__ Several shared[ABREAST][SIDE];
    const int m = blockIdx.x * SIDE + threadIdx.x, units = width / EACH;
    const int begin = blockIdx.y * share, end = rows - begin < share ? rows : begin + share;
    Several sum = {};
    if (m < units)
        for (int top = begin + threadIdx.y; top < end; top += EACH * ABREAST) {
            Several gradient[EACH];
            for (int k = 0; k < EACH; ++k) {
                const i64 mine = (i64)(top + k * ABREAST < end ? top + k * ABREAST : top) * units + m;
                gradient[k] = slope.times_neighbours(mine, ((const SeveralStored*)dout)[mine]);
            }
            for (int k = 0; k < EACH && top + k * ABREAST < end; ++k) {
                SeveralStored result;
                for (int j = 0; j < EACH; ++j) {
                    result.at[j] = gradient[k].at[j];
                    sum.at[j] += gradient[k].at[j];
                }
                ((SeveralStored*)dz)[(i64)(top + k * ABREAST) * units + m] = result;
            }
        }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (m >= units || threadIdx.y > 0) return;
    for (int y = 1; y < ABREAST; ++y)
        for (int j = 0; j < EACH; ++j) sum.at[j] += shared[y][threadIdx.x].at[j];
    ((Several*)parts)[blockIdx.y * units + m] = sum;
}

// x_hat = (z - mu) / sqrt(var + eps), mu and var over the rows of a column; out = a(gamma x_hat + beta) mask.
// running = momentum running + (1 - momentum) mu or var, if there are any; b only shifts the running mean. x_hat may be z.
template <class Unit>
__device__ __forceinline__ void batchnorm_each(
    const Unit& unit, real* x_hat, real* inv_std, const stored* z, const real* b, const real* gamma, const real* beta,
    real* running_mean, real* running_var, int rows, int width, real momentum, real eps,
    const Dropout& dropout)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const bool mine = m < width;
    // Measured from the first row, so that a constant column is exactly 0 after its mean is taken off.
    const real origin = mine ? (real)z[m] : (real)0;
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
        unit.set(i, value, kept);
    }
}

// dy = dout a' mask; dbeta = sum_n dy, dgamma = sum_n dy x_hat, dz = gamma inv_std (dy - dbeta / rows - x_hat dgamma / rows)
// db = 0: batch norm subtracts a bias again. dz may be dout.
template <class Slope>
__device__ __forceinline__ void batchnorm_gradient(
    const Slope& slope, stored* dz, real* db, real* dgamma, real* dbeta, const stored* dout, const real* x_hat,
    const real* inv_std, const real* gamma, int rows, int width)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const bool mine = m < width;
    real sum = 0, product = 0;
    if (mine)
        for (int n = threadIdx.y; n < rows; n += SIDE) {
            const i64 i = (i64)n * width + m;
            const real dy = slope.times(i, dout[i]);
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
        const real dy = slope.times(i, dout[i]);
        dz[i] = (dy - sum / rows - x_hat[i] * (product / rows)) * factor;
    }
}

// x_hat = (z + b - mu) / sqrt(var + eps), mu and var over the columns of a row, which has a block; x_hat may be z.
// out = a(gamma x_hat + beta) mask
template <class Unit>
__device__ __forceinline__ void layernorm_each(
    const Unit& unit, real* x_hat, real* inv_std, const stored* z, const real* b, const real* gamma, const real* beta,
    int width, real eps, const Dropout& dropout)
{
    __shared__ real shared[1024];
    const i64 row = (i64)blockIdx.x * width;
    const real origin = z[row] + b[0];  // as in batchnorm_each
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
        unit.set(i, value, dropout.keeps(words, first, i));
    }
}

// dy = dout a' mask; with g = gamma dy: dz = inv_std (g - mean_m(g) - x_hat mean_m(g x_hat)), a block for each row.
// dy is written for `layernorm_sums`; it may be dout.
template <class Slope>
__device__ __forceinline__ void layernorm_gradient(
    const Slope& slope, real* dz, real* dy, const stored* dout, const real* x_hat, const real* inv_std, const real* gamma,
    int width)
{
    __shared__ real shared[1024];
    const i64 row = (i64)blockIdx.x * width;
    real sum = 0, product = 0;
    for (int m = threadIdx.x; m < width; m += blockDim.x) {
        const i64 i = row + m;
        const real value = slope.times(i, dout[i]);
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
