// Hidden layers with ReLU (the other activations are in activated.cu), and what all of them need.
//
// A ReLU output that is zero has a zero gradient, whether the unit was off or dropped: the backward pass needs only
// the output and scale = 1 / keep_ratio, no mask.

__device__ __forceinline__ real dropped_relu(real value, bool kept, real scale)
{
    return value <= 0 || !kept ? (real)0 : value * scale;  // NaN stays NaN
}

template <class Out> struct ReluUnit {
    Out* out;
    real scale;
    __device__ __forceinline__ void set(i64 i, real x, bool kept) const { out[i] = dropped_relu(x, kept, scale); }
};

struct ReluSlope {
    const real* out;
    real scale;
    __device__ __forceinline__ real times(i64 i, real dout) const { return out[i] > 0 ? dout * scale : (real)0; }
};

// Results are `real`, or bf16 for products that would round them so (rounded_once.py).
struct alignas(8) SeveralBf16 { bf16 at[EACH]; };

// out = dropout(relu(z + b)) where EACH divides the width and all arrays begin at a multiple of 16 bytes: a thread has
// neighbours. out may be z.
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
    bias_each(ReluUnit<real>{out, scale}, z, b, size, width, DROPOUT, words);
}

KERNEL(256) bias_relu_bf16(bf16* out, const real* z, const real* b, i64 size, int width, real scale, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_each(ReluUnit<bf16>{out, scale}, z, b, size, width, DROPOUT, words);
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

// dz = dout scale where out > 0, else 0; db = sum_n dz. dz may be dout.
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
                const i64 i = (i64)(top + k * SIDE < rows ? top + k * SIDE : top) * width + m;
                gradient[k] = dout[i], output[k] = out[i];
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

KERNEL(1024) batchnorm_relu(
    real* out, real scale, real* x_hat, real* inv_std, const real* z, const real* b, const real* gamma, const real* beta,
    real* running_mean, real* running_var, int rows, int width, real momentum, real eps, DROPOUT_PARAMETERS)
{
    const ReluUnit<real> unit{out, scale};
    batchnorm_each(unit, x_hat, inv_std, z, b, gamma, beta, running_mean, running_var, rows, width, momentum, eps, DROPOUT);
}

KERNEL(1024) batchnorm_relu_backward(
    real* dz, real* db, real* dgamma, real* dbeta, const real* dout, const real* out, real scale, const real* x_hat,
    const real* inv_std, const real* gamma, int rows, int width)
{
    batchnorm_gradient(ReluSlope{out, scale}, dz, db, dgamma, dbeta, dout, x_hat, inv_std, gamma, rows, width);
}

KERNEL(256) layernorm_relu(
    real* out, real scale, real* x_hat, real* inv_std, const real* z, const real* b, const real* gamma, const real* beta,
    int width, real eps, DROPOUT_PARAMETERS)
{
    layernorm_each(ReluUnit<real>{out, scale}, x_hat, inv_std, z, b, gamma, beta, width, eps, DROPOUT);
}

KERNEL(256) layernorm_relu_backward(
    real* dz, real* dy, const real* dout, const real* out, real scale, const real* x_hat, const real* inv_std,
    const real* gamma, int width)
{
    layernorm_gradient(ReluSlope{out, scale}, dz, dy, dout, x_hat, inv_std, gamma, width);
}

// Layer norm's db = sum_n dz, dgamma = sum_n dy x_hat, dbeta = sum_n dy, of what `layernorm_gradient` wrote.
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
