// Kernels of benchmarks/gpu_products.py: what it needs to make and compare data, and ways of passing over memory.
//
// Sums run over fixed parts in a fixed order. Widths are multiples of the elements that a thread takes at a time.

typedef long long i64;
typedef unsigned short bf16;  // the upper half of a float's bits

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

const int LANES = 32;  // threads of a block side by side, where it works on columns
const int MOST = 16;  // rows of threads of such a block

__device__ __forceinline__ float real(float x) { return x; }
__device__ __forceinline__ float real(bf16 x) { return __uint_as_float((unsigned)x << 16); }
__device__ __forceinline__ void put(float& to, float x) { to = x; }
__device__ __forceinline__ void put(bf16& to, float x)
{
    const unsigned bits = __float_as_uint(x);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could make it infinite
    to = (bf16)((nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

// So many elements that are read or written at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
    T x[V];
};

template <int V, class T>
__device__ __forceinline__ Pack<T, V> load(const T* from)
{
    return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <int V, class T>
__device__ __forceinline__ void store(T* to, const Pack<T, V>& pack)
{
    *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

// Loads and stores of four floats that are not to stay in the cache.
__device__ __forceinline__ Pack<float, 4> load_once(const float* from)
{
    const float4 value = __ldcs(reinterpret_cast<const float4*>(from));
    return {value.x, value.y, value.z, value.w};
}

__device__ __forceinline__ void store_once(float* to, const Pack<float, 4>& pack)
{
    __stcs(reinterpret_cast<float4*>(to), make_float4(pack.x[0], pack.x[1], pack.x[2], pack.x[3]));
}

__device__ __forceinline__ unsigned mixed(unsigned x)
{
    x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
    return x;
}

// Normal numbers, times scale. `zeros`: 1, those below zero are zero, as after a ReLU; 2, any half, as in its gradient.
KERNEL(256) fill(float* out, i64 size, unsigned seed, float scale, int zeros)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const unsigned a = mixed((unsigned)i * 2 + seed * 0x9e3779b9u), b = mixed(a + 0x85ebca6bu);
    const float radius = sqrtf(-2 * logf(((a >> 8) + 1) * 5.9604645e-8f));
    const float value = scale * radius * cosf(6.2831853f * (b >> 8) * 5.9604645e-8f);
    const bool zero = zeros == 1 ? value < 0 : zeros == 2 && (mixed(b + 0xc2b2ae35u) & 1);
    out[i] = zero ? 0 : value;
}

KERNEL(256) round_bf16(bf16* out, const float* in, i64 size)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) put(out[i], in[i]);
}

// A bit for each element, set where it is positive; a byte a thread, `row` bits from one row to the next.
KERNEL(256) pack_mask(unsigned char* out, const float* in, i64 rows, int width, int row)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const i64 n = i / (row / 8);
    const int m = (int)(i % (row / 8)) * 8;
    if (n >= rows) return;
    unsigned bits = 0;
    for (int k = 0; k < 8 && m + k < width; ++k) bits |= (unsigned)(in[n * width + m + k] > 0) << k;
    out[i] = (unsigned char)bits;
}

// How many words differ, added to *count.
KERNEL(256) differing(unsigned* count, const unsigned* a, const unsigned* b, i64 size)
{
    unsigned differ = 0;
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) differ += a[i] != b[i];
    if (differ) atomicAdd(count, differ);
}

// Adam: V elements at a time, U times a thread, over as many blocks as there are. BF16: the new weights rounded, too.
template <int V>
__device__ __forceinline__ void adam_of(
    Pack<float, V>& w, const Pack<float, V>& dw, Pack<float, V>& m, Pack<float, V>& v, float alpha, float epsilon)
{
    for (int k = 0; k < V; ++k) {
        m.x[k] = 0.9f * m.x[k] + 0.1f * dw.x[k];
        v.x[k] = 0.999f * v.x[k] + 0.001f * (dw.x[k] * dw.x[k]);
        w.x[k] -= alpha * (m.x[k] / (sqrtf(v.x[k]) + epsilon));
    }
}

template <int V, int U, bool BF16>
__device__ __forceinline__ void adam(
    float* w, const float* dw, float* m, float* v, bf16* copy, i64 size, float alpha, float epsilon)
{
    const i64 step = (i64)blockDim.x * V, stride = gridDim.x * step * U;
    for (i64 begin = blockIdx.x * step * U + threadIdx.x * V; begin < size; begin += stride) {
        Pack<float, V> weight[U], gradient[U], first[U], second[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const i64 i = begin + u * step;
            if (i >= size) break;
            weight[u] = load<V>(w + i), gradient[u] = load<V>(dw + i);
            first[u] = load<V>(m + i), second[u] = load<V>(v + i);
        }
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const i64 i = begin + u * step;
            if (i >= size) break;
            adam_of<V>(weight[u], gradient[u], first[u], second[u], alpha, epsilon);
            store<V>(w + i, weight[u]), store<V>(m + i, first[u]), store<V>(v + i, second[u]);
            if (BF16) {
                Pack<bf16, V> rounded;
                for (int k = 0; k < V; ++k) put(rounded.x[k], weight[u].x[k]);
                store<V>(copy + i, rounded);
            }
        }
    }
}

#define ADAM_PARAMETERS float* w, const float* dw, float* m, float* v, bf16* copy, i64 size, float alpha, float epsilon
#define ADAM_ARGUMENTS w, dw, m, v, copy, size, alpha, epsilon
KERNEL(512) adam_1x1(ADAM_PARAMETERS) { adam<1, 1, false>(ADAM_ARGUMENTS); }
KERNEL(512) adam_1x4(ADAM_PARAMETERS) { adam<1, 4, false>(ADAM_ARGUMENTS); }
KERNEL(512) adam_2x1(ADAM_PARAMETERS) { adam<2, 1, false>(ADAM_ARGUMENTS); }
KERNEL(512) adam_2x2(ADAM_PARAMETERS) { adam<2, 2, false>(ADAM_ARGUMENTS); }
KERNEL(512) adam_4x1(ADAM_PARAMETERS) { adam<4, 1, false>(ADAM_ARGUMENTS); }
KERNEL(512) adam_4x2(ADAM_PARAMETERS) { adam<4, 2, false>(ADAM_ARGUMENTS); }
KERNEL(512) adam_1x4_bf16(ADAM_PARAMETERS) { adam<1, 4, true>(ADAM_ARGUMENTS); }
KERNEL(512) adam_4x1_bf16(ADAM_PARAMETERS) { adam<4, 1, true>(ADAM_ARGUMENTS); }
KERNEL(512) adam_4x2_bf16(ADAM_PARAMETERS) { adam<4, 2, true>(ADAM_ARGUMENTS); }

// As adam_4x1, past the cache.
KERNEL(512) adam_4x1_once(ADAM_PARAMETERS)
{
    const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= size) return;
    Pack<float, 4> weight = load_once(w + i), first = load_once(m + i), second = load_once(v + i);
    adam_of<4>(weight, load_once(dw + i), first, second, alpha, epsilon);
    store_once(w + i, weight), store_once(m + i, first), store_once(v + i, second);
}

// out = relu(z + b): V columns a thread, R rows below each other.
template <int V, int R, class In, class Out>
__device__ __forceinline__ void bias_relu(Out* out, const In* z, const float* b, int rows, int width)
{
    const int m = (blockIdx.x * blockDim.x + threadIdx.x) * V, top = blockIdx.y * R;
    if (m >= width) return;
    const Pack<float, V> bias = load<V>(b + m);
    Pack<In, V> value[R];
#pragma unroll
    for (int r = 0; r < R; ++r)
        if (top + r < rows) value[r] = load<V>(z + (i64)(top + r) * width + m);
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (top + r >= rows) break;
        Pack<Out, V> result;
        for (int k = 0; k < V; ++k) {
            const float sum = real(value[r].x[k]) + bias.x[k];
            put(result.x[k], sum <= 0 ? 0 : sum);
        }
        store<V>(out + (i64)(top + r) * width + m, result);
    }
}

#define FORWARD(In, Out) Out* out, const In* z, const float* b, int rows, int width
KERNEL(512) forward_1x4(FORWARD(float, float)) { bias_relu<1, 4>(out, z, b, rows, width); }
KERNEL(512) forward_4x1(FORWARD(float, float)) { bias_relu<4, 1>(out, z, b, rows, width); }
KERNEL(512) forward_4x2(FORWARD(float, float)) { bias_relu<4, 2>(out, z, b, rows, width); }
KERNEL(512) forward_4x4(FORWARD(float, float)) { bias_relu<4, 4>(out, z, b, rows, width); }
KERNEL(512) forward_4x8(FORWARD(float, float)) { bias_relu<4, 8>(out, z, b, rows, width); }
KERNEL(512) forward_4x4_to_bf16(FORWARD(float, bf16)) { bias_relu<4, 4>(out, z, b, rows, width); }
KERNEL(512) forward_8x2_bf16(FORWARD(bf16, bf16)) { bias_relu<8, 2>(out, z, b, rows, width); }
KERNEL(512) forward_8x4_bf16(FORWARD(bf16, bf16)) { bias_relu<8, 4>(out, z, b, rows, width); }

// As forward_4x4, past the cache.
KERNEL(512) forward_4x4_once(FORWARD(float, float))
{
    const int m = (blockIdx.x * blockDim.x + threadIdx.x) * 4, top = blockIdx.y * 4;
    if (m >= width) return;
    const Pack<float, 4> bias = load<4>(b + m);
    Pack<float, 4> value[4];
#pragma unroll
    for (int r = 0; r < 4; ++r)
        if (top + r < rows) value[r] = load_once(z + (i64)(top + r) * width + m);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        if (top + r >= rows) break;
        for (int k = 0; k < 4; ++k) {
            const float sum = value[r].x[k] + bias.x[k];
            value[r].x[k] = sum <= 0 ? 0 : sum;
        }
        store_once(out + (i64)(top + r) * width + m, value[r]);
    }
}

// dz = dout where out > 0, and its sums over this block's rows: V columns a thread, U rows at a time, the rows of
// blockIdx.y of gridDim.y parts.
template <int V, int U, class T>
__device__ __forceinline__ void relu_backward(T* dz, float* parts, const T* dout, const T* out, int rows, int width)
{
    __shared__ float shared[MOST][LANES * V];
    const int m = (blockIdx.x * LANES + threadIdx.x) * V;
    const int part = (rows + gridDim.y - 1) / gridDim.y;
    const int begin = blockIdx.y * part, end = begin + part < rows ? begin + part : rows;
    float sum[V] = {};
    if (m < width)
        for (int top = begin + threadIdx.y; top < end; top += U * blockDim.y) {
            Pack<T, V> gradient[U], hidden[U];
#pragma unroll
            for (int u = 0; u < U; ++u) {
                const int n = top + u * blockDim.y;
                if (n >= end) break;
                gradient[u] = load<V>(dout + (i64)n * width + m), hidden[u] = load<V>(out + (i64)n * width + m);
            }
#pragma unroll
            for (int u = 0; u < U; ++u) {
                const int n = top + u * blockDim.y;
                if (n >= end) break;
                for (int k = 0; k < V; ++k) {
                    if (!(real(hidden[u].x[k]) > 0)) gradient[u].x[k] = 0;
                    sum[k] += real(gradient[u].x[k]);
                }
                store<V>(dz + (i64)n * width + m, gradient[u]);
            }
        }
    for (int k = 0; k < V; ++k) shared[threadIdx.y][threadIdx.x * V + k] = sum[k];
    __syncthreads();
    for (int c = threadIdx.y * LANES + threadIdx.x; c < LANES * V; c += blockDim.y * LANES) {
        const int column = blockIdx.x * LANES * V + c;
        float total = 0;
        for (int y = 0; y < blockDim.y; ++y) total += shared[y][c];
        if (column < width) parts[(i64)blockIdx.y * width + column] = total;
    }
}

#define BACKWARD(T) T* dz, float* parts, const T* dout, const T* out, int rows, int width
KERNEL(512) backward_1x4(BACKWARD(float)) { relu_backward<1, 4>(dz, parts, dout, out, rows, width); }
KERNEL(512) backward_2x4(BACKWARD(float)) { relu_backward<2, 4>(dz, parts, dout, out, rows, width); }
KERNEL(512) backward_4x2(BACKWARD(float)) { relu_backward<4, 2>(dz, parts, dout, out, rows, width); }
KERNEL(512) backward_4x4(BACKWARD(float)) { relu_backward<4, 4>(dz, parts, dout, out, rows, width); }
KERNEL(512) backward_4x4_bf16(BACKWARD(bf16)) { relu_backward<4, 4>(dz, parts, dout, out, rows, width); }
KERNEL(512) backward_8x2_bf16(BACKWARD(bf16)) { relu_backward<8, 2>(dz, parts, dout, out, rows, width); }

// The sum of the parts, in their order.
KERNEL(256) sum_parts(float* out, const float* parts, int count, int width)
{
    const int m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= width) return;
    float sum = 0;
    for (int p = 0; p < count; ++p) sum += parts[(i64)p * width + m];
    out[m] = sum;
}
