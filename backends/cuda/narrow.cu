// Affine layers of few outputs, such as the last one: what counts is to read x once and to write dx once, which may be
// stored in bf16.
//
// The number in a kernel's name is how many outputs a thread keeps in registers, `columns`; a layer with fewer leaves some
// of them unused. Rows are read in fours where `aligned` (they begin at multiples of 16 bytes and consist of
// whole fours), else one by one. How rows and sums are shared out is decided in narrow.py, from the shapes.

const int WARPS = THREADS / 32;
const int FORWARD_ROWS = 4;  // of a warp at once: so often is a weight used that was read from shared memory
const int FORWARD_BYTES = 48 << 10;  // of weights in shared memory at most: what every kernel may have
const int FILL = 20 / sizeof(real);  // fours of weights that a thread has on their way to shared memory
const int RESIDENT = 8 / sizeof(real);  // blocks on a multiprocessor, at least: so many registers may a thread take
const int AT_ONCE = 4;  // outputs whose sums over the warps are made between two barriers

__device__ __forceinline__ constexpr int power_within(int n) { return n < 2 ? 1 : 2 * power_within(n / 2); }

// U neighbours in a row, read and written at once.
template <int U>
struct alignas(U * sizeof(real) < 16 ? U * sizeof(real) : 16) Neighbours { real at[U]; };

// The same as they are stored.
template <int U>
struct alignas(U * sizeof(stored) < 16 ? U * sizeof(stored) : 16) StoredNeighbours { stored at[U]; };

// Those from `begin` on; what would lie behind the row's end is 0.
template <int U>
__device__ __forceinline__ Neighbours<U> neighbours(const stored* row, int begin, int length, bool aligned)
{
    Neighbours<U> value = {};
    if (aligned) {
        if (begin < length) {
            const StoredNeighbours<U> some = *(const StoredNeighbours<U>*)(row + begin);
#pragma unroll
            for (int j = 0; j < U; ++j) value.at[j] = some.at[j];
        }
    } else {
#pragma unroll
        for (int j = 0; j < U; ++j)
            if (begin + j < length) value.at[j] = row[begin + j];
    }
    return value;
}

// Sums of `count` values over a warp, by halves: each time a thread gives away half of its sums and gets the other half's
// from another. It is left with count / 16, which its neighbour of an even or odd number has to be asked for, too.
template <int count, int apart>
__device__ __forceinline__ void halve(real* sum, int lane)
{
    const bool upper = lane & apart;
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
        const real given = upper ? sum[i] : sum[i + count / 2], kept = upper ? sum[i + count / 2] : sum[i];
        sum[i] = kept + __shfl_xor_sync(0xffffffff, given, apart);
    }
    if constexpr (apart > 2) halve<count / 2, apart / 2>(sum, lane);
}

// out = x w + b for the blockIdx.x % groups -th share of the outputs. Warps take FORWARD_ROWS rows each, or `splits` of
// them the same rows, each with every `splits`-th run of 32 fours; what they have is added in order.
template <int columns>
__device__ __forceinline__ void narrow_forward(
    real* out, const stored* x, const real* w, const real* b, int rows, int inner, int width, int groups, int splits,
    bool aligned)
{
    constexpr int R = FORWARD_ROWS, CHUNK = power_within(FORWARD_BYTES / sizeof(real) / EACH / columns);
    // Each output's weights, in fours along the row of x; the place of a four is mixed with the output's number, so that
    // neither their transposition nor their use has threads wait for the same bank.
    __shared__ Several weights[columns * CHUNK];
    const int lane = threadIdx.x % 32, split = threadIdx.x / 32 % splits, team = threadIdx.x / 32 / splits;
    const int block_rows = WARPS / splits * R, first = blockIdx.x / groups * block_rows, top = first + team * R;
    const int share = (width + groups - 1) / groups, left = blockIdx.x % groups * share;
    const int mine = width - left < share ? width - left : share;
    const int fours = (inner + EACH - 1) / EACH, step = 32 * splits;
    const stored* row[R];
#pragma unroll
    for (int r = 0; r < R; ++r) row[r] = x + (i64)(top + r < rows ? top + r : rows - 1) * inner;
    real sum[R * columns] = {};
    int four = split * 32 + lane;
    Neighbours<EACH> next[R];  // asked for before the weights, and while those before are multiplied
#pragma unroll
    for (int r = 0; r < R; ++r) next[r] = neighbours<EACH>(row[r], four * EACH, inner, aligned);
    for (int begin = 0; begin < fours; begin += CHUNK) {
        const int end = fours - begin < CHUNK ? fours : begin + CHUNK, low = begin * EACH;
        const auto place = [&](int k, int c) -> real& {
            return weights[c * CHUNK + ((k / EACH) ^ (c & 7))].at[k % EACH];
        };
        __syncthreads();  // the weights before have been used
        if (aligned && groups == 1) {
            const Several* from = (const Several*)(w + (i64)low * width);
            const int count = (end - begin) * width;
            for (int base = threadIdx.x; base < count; base += FILL * THREADS) {
                Several value[FILL];
#pragma unroll
                for (int i = 0; i < FILL; ++i)
                    if (base + i * THREADS < count) value[i] = from[base + i * THREADS];
#pragma unroll
                for (int i = 0; i < FILL; ++i) {
                    if (base + i * THREADS >= count) break;
                    int k = (base + i * THREADS) * EACH / width, c = (base + i * THREADS) * EACH - k * width;
#pragma unroll
                    for (int j = 0; j < EACH; ++j) {
                        place(k, c) = value[i].at[j];
                        if (++c == width) c = 0, ++k;
                    }
                }
            }
        } else {
            const int count = (end - begin) * EACH * mine;
#pragma unroll 4
            for (int i = threadIdx.x; i < count; i += THREADS) {
                const int k = i / mine, c = i - k * mine;
                place(k, c) = low + k < inner ? w[(i64)(low + k) * width + left + c] : (real)0;
            }
        }
        __syncthreads();
        for (; four < end; four += step) {
            Neighbours<EACH> value[R];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                value[r] = next[r];
                next[r] = neighbours<EACH>(row[r], (four + step) * EACH, inner, aligned);
            }
#pragma unroll
            for (int c = 0; c < columns; ++c) {
                const Several weight = weights[c * CHUNK + ((four - begin) ^ (c & 7))];
#pragma unroll
                for (int r = 0; r < R; ++r)
#pragma unroll
                    for (int j = 0; j < EACH; ++j) sum[r * columns + c] += value[r].at[j] * weight.at[j];
            }
        }
    }
    halve<R * columns, 16>(sum, lane);
    real* parts = (real*)weights;  // (splits, block_rows, columns)
    __syncthreads();
#pragma unroll
    for (int i = 0; i < columns / 4; ++i) {
        const real whole = sum[i] + __shfl_xor_sync(0xffffffff, sum[i], 1);
        const int r = lane / 8, c = lane / 2 % 4 * (columns / 4) + i;  // which the halves have come to
        if (lane % 2 == 0) parts[(split * block_rows + team * R + r) * columns + c] = whole;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < block_rows * mine; i += THREADS) {
        const int r = i / mine, c = i - r * mine;
        if (first + r >= rows) return;
        real total = parts[r * columns + c];
        for (int s = 1; s < splits; ++s) total += parts[(s * block_rows + r) * columns + c];
        out[(i64)(first + r) * width + left + c] = total + b[left + c];
    }
}

#define FORWARD_PARAMETERS                                                                                         \
    real *out, const stored *x, const real *w, const real *b, int rows, int inner, int width, int groups, int splits, \
        int aligned
#define FORWARD_ARGUMENTS out, x, w, b, rows, inner, width, groups, splits, aligned

// Rows `top` to `end` of dout, `count` at most, to shared memory; what is not there is 0.
template <int count, int columns>
__device__ __forceinline__ void fetch_gradients(real* to, const real* dout, int top, int end, int width)
{
    constexpr int EVERY = count * columns / THREADS;
    real value[EVERY];
#pragma unroll
    for (int i = 0; i < EVERY; ++i) {
        const int at = threadIdx.x + i * THREADS, r = at / columns, c = at % columns;
        value[i] = top + r < end && c < width ? dout[(i64)(top + r) * width + c] : (real)0;
    }
#pragma unroll
    for (int i = 0; i < EVERY; ++i) to[threadIdx.x + i * THREADS] = value[i];
}

// Which rows of a matrix and which fours, twos or ones of its columns a block of the backward kernel has.
struct Tile {
    int number, begin, end;

    __device__ __forceinline__ Tile(int block, int tiles, int share, int rows)
    {
        number = block % tiles, begin = block / tiles * share;
        end = rows - begin < share ? rows : begin + share;
    }
};

// dw = the sum of xᵀ dout, and db that of dout, over the rows of the tile; a thread has U rows of dw.
template <int columns, int U>
__device__ __forceinline__ void weight_gradient(
    real* dw, real* db, const real* dout, const stored* x, int inner, int width, const Tile& tile, bool aligned, real* shared)
{
    constexpr int BATCH = U == 1 && columns < 32 ? 16 : 8;  // rows that a thread asks for at once
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, k = (tile.number * 32 + lane) * U;
    real sum[columns][U] = {}, bias = 0;
    for (int top = tile.begin; top < tile.end; top += WARPS * BATCH) {
        Neighbours<U> value[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const int n = top + i * WARPS + warp;
            value[i] = {};
            if (n < tile.end) value[i] = neighbours<U>(x + (i64)n * inner, k, inner, aligned);
        }
        __syncthreads();  // the gradients before have been used
        fetch_gradients<WARPS * BATCH, columns>(shared, dout, top, tile.end, width);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            if (top + i * WARPS + warp >= tile.end) break;
            const real* gradient = shared + (i * WARPS + warp) * columns;
#pragma unroll
            for (int c = 0; c < columns; c += EACH) {
                const Several some = *(const Several*)(gradient + c);
#pragma unroll
                for (int m = 0; m < EACH; ++m)
#pragma unroll
                    for (int j = 0; j < U; ++j) sum[c + m][j] += value[i].at[j] * some.at[m];
            }
            if (tile.number == 0 && lane < columns) bias += gradient[lane];
        }
    }
    Neighbours<U>* parts = (Neighbours<U>*)shared;  // (WARPS, AT_ONCE, 32)
#pragma unroll
    for (int left = 0; left < columns; left += AT_ONCE) {
        __syncthreads();
#pragma unroll
        for (int c = 0; c < AT_ONCE; ++c)
#pragma unroll
            for (int j = 0; j < U; ++j) parts[(warp * AT_ONCE + c) * 32 + lane].at[j] = sum[left + c][j];
        __syncthreads();
        for (int i = threadIdx.x; i < AT_ONCE * 32 * U; i += THREADS) {
            const int row = tile.number * 32 * U + i % (32 * U), column = left + i / (32 * U);
            real total = shared[i];
#pragma unroll
            for (int other = 1; other < WARPS; ++other) total += shared[other * AT_ONCE * 32 * U + i];
            if (row < inner && column < width) dw[(i64)row * width + column] = total;
        }
    }
    if (tile.number > 0) return;
    __syncthreads();
    shared[warp * 32 + lane] = bias;
    __syncthreads();
    if (threadIdx.x >= width) return;
    bias = 0;
#pragma unroll
    for (int other = 0; other < WARPS; ++other) bias += shared[other * 32 + threadIdx.x];
    db[threadIdx.x] = bias;
}

// dx = dout wᵀ for the rows of the tile; a thread has the weights of U columns in registers.
template <int columns, int U>
__device__ __forceinline__ void input_gradient(
    stored* dx, const real* dout, const real* w, int inner, int width, const Tile& tile, bool aligned, real* shared)
{
    constexpr int BATCH = 8, PITCH = 32 * U + 4, EVERY = U * columns / WARPS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, low = tile.number * 32 * U, k = low + lane * U;
    real* const weights = shared + WARPS * BATCH * columns;  // transposed: (columns, PITCH)
    {
        real value[EVERY];
#pragma unroll
        for (int i = 0; i < EVERY; ++i) {
            const int at = threadIdx.x + i * THREADS, row = at / columns, c = at % columns;
            value[i] = low + row < inner && c < width ? w[(i64)(low + row) * width + c] : (real)0;
        }
#pragma unroll
        for (int i = 0; i < EVERY; ++i) {
            const int at = threadIdx.x + i * THREADS;
            weights[at % columns * PITCH + at / columns] = value[i];
        }
    }
    Neighbours<U> weight[columns];
    for (int top = tile.begin; top < tile.end; top += WARPS * BATCH) {
        __syncthreads();  // the gradients before have been used
        fetch_gradients<WARPS * BATCH, columns>(shared, dout, top, tile.end, width);
        __syncthreads();
        if (top == tile.begin) {
#pragma unroll
            for (int c = 0; c < columns; ++c) weight[c] = *(const Neighbours<U>*)(weights + c * PITCH + lane * U);
        }
#pragma unroll 2
        for (int i = 0; i < BATCH; ++i) {
            const int n = top + i * WARPS + warp;
            if (n >= tile.end) break;
            const real* gradient = shared + (i * WARPS + warp) * columns;
            Neighbours<U> value = {};
#pragma unroll
            for (int c = 0; c < columns; c += EACH) {
                const Several some = *(const Several*)(gradient + c);
#pragma unroll
                for (int m = 0; m < EACH; ++m)
#pragma unroll
                    for (int j = 0; j < U; ++j) value.at[j] += some.at[m] * weight[c + m].at[j];
            }
            StoredNeighbours<U> some;
#pragma unroll
            for (int j = 0; j < U; ++j) some.at[j] = value.at[j];
            stored* const to = dx + (i64)n * inner + k;
            if (aligned) {
                if (k < inner) *(StoredNeighbours<U>*)to = some;
            } else {
#pragma unroll
                for (int j = 0; j < U; ++j)
                    if (k + j < inner) to[j] = some.at[j];
            }
        }
    }
}

// All gradients in one launch: the first blocks have tiles of dw, the others tiles of dx. Where a tile of dw has not all
// the rows, db is null and dw has room for each tile's sums, those of dout behind the others (narrow_sums); where it has
// all of them (`few`), its threads have one row of dw each, so that there are more of them. 32 columns are always `few`.
template <int columns>
__device__ __forceinline__ void narrow_backward(
    stored* dx, real* dw, real* db, const real* dout, const stored* x, const real* w, int rows, int inner, int width,
    int share, int parts, int dx_share, bool few, bool aligned)
{
    constexpr int U = columns > 16 ? 2 : 4;  // so that the sums, or weights, fit into a thread's registers
    __shared__ Several shared[1088];
    static_assert(columns * (64 + 32 * U + 4) <= 1088 * EACH, "dout and w");
    static_assert(columns == 32 || columns * 128 <= 1088 * EACH, "dout");
    static_assert(WARPS * AT_ONCE * 32 * U <= 1088 * EACH, "sums of warps");
    real* const memory = (real*)shared;
    const int across = few ? 32 : 32 * U, tiles = (inner + across - 1) / across, gradients = tiles * parts;
    if (blockIdx.x >= gradients) {
        const Tile tile(blockIdx.x - gradients, (inner + 32 * U - 1) / (32 * U), dx_share, rows);
        input_gradient<columns, U>(dx, dout, w, inner, width, tile, aligned, memory);
        return;
    }
    const Tile tile(blockIdx.x, tiles, share, rows);
    dw += (i64)(blockIdx.x / tiles) * (inner + 1) * width;
    if (!db) db = dw + (i64)inner * width;
    if constexpr (columns < 32) {
        if (!few) {
            weight_gradient<columns, U>(dw, db, dout, x, inner, width, tile, aligned, memory);
            return;
        }
    }
    weight_gradient<columns, 1>(dw, db, dout, x, inner, width, tile, false, memory);
}

#define BACKWARD_PARAMETERS                                                                                         \
    stored *dx, real *dw, real *db, const real *dout, const stored *x, const real *w, int rows, int inner, int width, \
        int share, int parts, int dx_share, int few, int aligned
#define BACKWARD_ARGUMENTS dx, dw, db, dout, x, w, rows, inner, width, share, parts, dx_share, few, aligned
