// Training steps of a small network, many in one launch: a persistent cooperative kernel whose blocks all stay resident.
//
// Blocks have one of two roles, and a step has three phases (rows are samples of the batch, N of them):
//   tile blocks   own a tile of W1 (k, j), its moments too, in shared memory from the first step to the last.
//   row blocks    take R rows each through every layer above the first; they own the tiles of the other weights.
//
//   product   tile block: its part of z1 = x W1, over its k, to memory       -> `tiles_done`
//   rows      row block: sum of the parts, all layers, loss, all dz, to memory -> `rows_done`
//   update    every block: gradients of its own tiles, xᵀ dz, and the rule; row blocks write the weights that
//             all of them read in the next step                                -> `weights_done`
//
// A tile block goes from the update to the next product without waiting, because no other block writes its tile. So a step
// waits twice in a row for others: rows for tiles, tiles for rows; the row blocks' own exchange runs beside the product.
//
// What one block writes for another is read from L2 (`__ldcg`), never through L1, which is not invalidated within a launch.
// Every sum runs over fixed parts in a fixed order: the bits depend on the plan (backends/cuda/persistent.py), which
// gives all constants in capitals, and on nothing else, not on how many steps a launch makes either.

const int ROW_QUADS = (ROW_BLOCKS * R + 3) / 4;  // fours of rows
const int NP = 4 * ROW_QUADS;  // rows with padding: the length of a column in memory
const int PITCH = NP + (ROW_QUADS % 2 ? 0 : 4);  // of a column in shared memory: an odd number of float4s

__device__ __forceinline__ constexpr int fours(int n) { return (n + 3) / 4 * 4; }
__device__ __forceinline__ constexpr int pitch_of(int width) { return fours(width) / 4 % 2 ? fours(width) : fours(width) + 4; }
__device__ __forceinline__ constexpr int least(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ constexpr int most(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ constexpr int parts_of(int whole, int part) { return (whole + part - 1) / part; }

// Layer l = 1 .. LAYERS multiplies (rows, width(l - 1)) by (width(l - 1), width(l)).
__device__ __forceinline__ constexpr int width(int l)
{
    constexpr int widths[] = WIDTHS;
    return widths[l];
}

// Where a layer's columns begin among those of layers 1, 2, ..., each layer's filled up to fours; up to LAYERS + 1.
__device__ __forceinline__ constexpr int columns_before(int l)
{
    int sum = 0;
    for (int i = 1; i < l; ++i) sum += fours(width(i));
    return sum;
}
// Where the weights of layer l >= 2 begin in the padded copy; LAYERS + 1: its size.
__device__ __forceinline__ constexpr int padded_before(int l)
{
    int sum = 0;
    for (int i = 2; i < l; ++i) sum += width(i - 1) * pitch_of(width(i));
    return sum;
}
// Tiles of the layers 2 .. l - 1.
__device__ __forceinline__ constexpr int tiles_before(int l)
{
    int sum = 0;
    for (int i = 2; i < l; ++i) sum += parts_of(width(i - 1), K2) * parts_of(width(i), J2);
    return sum;
}
__device__ __forceinline__ constexpr int widest()
{
    int found = 0;
    for (int l = 1; l <= LAYERS; ++l) found = most(found, width(l));
    return found;
}
// What is known of layer L when this is compiled, where each tensor begins in the flat buffers too. (Asked as a
// function, at run time, it would be looked up in local memory.)
template <int L>
struct Layer {
    static constexpr int w_at[] = W_AT, b_at[] = B_AT, gamma_at[] = GAMMA_AT, beta_at[] = BETA_AT;
    static constexpr int mean_at[] = MEAN_AT, var_at[] = VAR_AT;
    static constexpr int K = width(L - 1), M = width(L), PITCH_ = pitch_of(M);
    static constexpr int COLUMN = columns_before(L), COLUMN_BELOW = columns_before(L - 1);
    static constexpr int PADDED_AT = padded_before(L), TILES = tiles_before(L), ACROSS = parts_of(M, J2);
    static constexpr int W = w_at[L], B = b_at[L], GAMMA = gamma_at[L], BETA = beta_at[L], MEAN = mean_at[L], VAR = var_at[L];
    static constexpr int OWNER = most(0, ROW_BLOCKS - L);  // the row block that updates gamma, beta and the statistics
};

const int COLUMNS = columns_before(LAYERS + 1);
const int HIDDEN_COLUMNS = columns_before(LAYERS);
const int PADDED = padded_before(LAYERS + 1);
const int LATER_TILES = tiles_before(LAYERS + 1);
const int TILES_OF_ROW_BLOCK = parts_of(LATER_TILES, ROW_BLOCKS);
const int J_SLICES = parts_of(width(1), J1);
const int K_SLICES = parts_of(width(0), K1);
const int TILE_BLOCKS = J_SLICES * K_SLICES;
const int WIDEST = fours(widest());
const int DRAWS = (15 + R * WIDEST) / 16 + 1;  // calls of the generator for a row block's part of one layer's mask
const int Z_WIDTH = fours(width(1));

struct alignas(R % 4 == 0 ? 16 : 4 * R) Rows { float v[R]; };  // a value for each row of a row block

// What a launch works on; made by the host, one struct, read only. `constants` are the update rule's.
struct Job {
    const X_TYPE* x; const float* shift; const float* scale; const Y_TYPE* y; const i64* order; i64 count;
    i64* counters;  // rows of the epoch used; losses in the log
    i64* step;  // updates made
    float* params; float* moment1; float* moment2; float* running; float* losses; i64 slots;
    float* partials; float* hidden; float* dz; float* padded; double* loss_parts; double* l2_parts;
    ulonglong2* exchange; unsigned* sync;
    const float* sample_weights;
    u64 seed, purpose, net;
    double constants[3], weight_decay, reg, l1; float clip, momentum, eps;
    float target_keep, target_add;  // label smoothing: a target's factor, and what is added
    int threshold; float keep_scale;
    float frozen_scale;  // of the units of frozen layers, which are never dropped
    int rows;
    // Of this launch:
    int steps; const double* rates; int rate_count;
};

// The benchmark of variants (benchmarks/gpu_variants.py) notes the clock at these places of a step.
#ifndef MARK
#define MARK(place)
#endif

enum { TILES_DONE = 0, ROWS_DONE = 32, WEIGHTS_DONE = 64, STOP = 96, LEAVING = 128, SYNC_WORDS = 160 };  // a line each

const bool PENALTY = REG || L1;
const bool RECTIFIED = is_relu<ACTIVATION>;  // the slope is known from the output

enum { SOFTMAX, SVM, MSE, BCE, POISSON };
const bool NUMBERS = LOSS >= MSE;  // the targets are numbers, not labels

const int MOMENTS = RULE::MOMENTS;  // numbers that the rule keeps for a weight

// What all weights of one learning rate share in a step's update.
struct Rate { float decayed, clip; RULE rule; };
const int RATE_FLOATS = 12;
static_assert(sizeof(Rate) <= 4 * RATE_FLOATS, "the rule shares more than there is room for");

__device__ __noinline__ void set_rate(Rate* to, const Job& job, i64 step, int s, int group)
{
    const double rate = job.rates[least(s, job.rate_count - 1) * RATES + group];
    to[group] = {(float)(rate * job.weight_decay), job.clip, RULE::of(step + s, rate, job.constants)};
}

// Which of the RATES rates an element of the flat buffer has: groups of neighbours share one, and begin at RATES_AT.
template <int GROUP = 1>
__device__ __forceinline__ constexpr int rate_of(int at)
{
    if constexpr (GROUP >= RATES) {
        return 0;
    } else {
        constexpr int starts[] = RATES_AT;
        constexpr int start = starts[GROUP];
        return (at >= start) + rate_of<GROUP + 1>(at);
    }
}

// The update of one weight, by the formulas of rules.cu.
__device__ __forceinline__ void apply_rule(float& w, float& m, float& v, float g, const Rate& rate)
{
    if (CLIP) {
        g = g < -rate.clip ? -rate.clip : g > rate.clip ? rate.clip : g;  // NaN stays NaN
    }
    rate.rule.apply(w, m, v, g);
}

// The same of a matrix's element: with the penalties' gradients, and decoupled decay.
__device__ __forceinline__ void apply_to_matrix(
    float& w, float& m, float& v, float g, float reg, float lasso, const Rate& rate)
{
    if (REG) g += reg * w;
    if (L1) g += w > 0 ? lasso : w < 0 ? -lasso : 0.0f;
    if (DECAY) apply_decay(w, rate.decayed);
    apply_rule(w, m, v, g, rate);
}

// What an element adds to the penalty: its square, whose factor waits for the sum; with an L1 term, all of it.
__device__ __forceinline__ double penalty_of(const Job& job, float w)
{
    return L1 ? 0.5 * job.reg * w * w + job.l1 * fabs((double)w) : (double)w * w;
}

// Shared memory, in floats from its start. The functions below are called once for each layer of one shape and not
// inlined, because code that a step runs only once costs more to fetch than to run; so they take places, not pointers.
const int JOB_FLOATS = fours((int)(sizeof(Job) + 3) / 4);
const int SUMS = JOB_FLOATS;  // parts of sums: of a gradient, of an exchange, of layer 1; the powers of the softmax
const int SUM_FLOATS = most(most(16 * THREADS_, 2 * WIDEST + 8 * THREADS_), most(Z_WIDTH * R * FIRST_PARTS, fours((width(LAYERS) + 1) * R)));
const int BOTH_END = SUMS + SUM_FLOATS;

__device__ __forceinline__ const Job& the_job()
{
    SHARED_FLOATS(shared);
    return *reinterpret_cast<const Job*>(shared);
}

// out[k][j] over a tile: sum over rows of a[k][row] d[j][row], columns PITCH apart; then `done(k, j, sum)` for each
// element, every one by one thread.
template <int K, int J, class Done>
__device__ __forceinline__ void gradient(int a, int d, Done done)
{
    constexpr int KM = parts_of(K, 4), JM = parts_of(J, 4), MICRO = KM * JM;
    constexpr int LANES = least(MICRO, THREADS_);  // of a pass
    constexpr int SPLITS = least(THREADS_ / LANES, ROW_QUADS);
    SHARED_FLOATS(shared);
    float* sums = shared + SUMS;
    for (int pass = 0; pass < MICRO; pass += LANES) {
        const int lane = (int)threadIdx.x % LANES, micro = pass + lane, split = (int)threadIdx.x / LANES;
        if (micro < MICRO && split < SPLITS) {
            const int k = micro % KM, j = micro / KM;
            float sum[4][4] = {};
#pragma unroll 1
            for (int q = split; q < ROW_QUADS; q += SPLITS) {
                float4 x[4], y[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    x[i] = *reinterpret_cast<const float4*>(shared + a + least(k + i * KM, K - 1) * PITCH + 4 * q);
                    y[i] = *reinterpret_cast<const float4*>(shared + d + least(j + i * JM, J - 1) * PITCH + 4 * q);
                }
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int c = 0; c < 4; ++c)
                        sum[i][c] += x[i].x * y[c].x + x[i].y * y[c].y + x[i].z * y[c].z + x[i].w * y[c].w;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int c = 0; c < 4; ++c) sums[((i * 4 + c) * SPLITS + split) * LANES + lane] = sum[i][c];
        }
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < 16 * LANES; e += THREADS_) {
            const int place = e / LANES, micro = pass + e % LANES;
            const int k = micro % KM + place / 4 * KM, j = micro / KM + place % 4 * JM;
            if (micro >= MICRO || k >= K || j >= J) continue;
            float total = 0;
#pragma unroll 4
            for (int s = 0; s < SPLITS; ++s) total += sums[(place * SPLITS + s) * LANES + e % LANES];
            done(k, j, total);
        }
        if (pass + LANES < MICRO) __syncthreads();
    }
}

// Columns `first` .. of a (columns, NP) array in memory to shared memory, PITCH apart; past `end`: zeros. To be waited
// for with `copies_done`.
template <int COUNT>
__device__ __forceinline__ void load_columns(int to, const float* from, int first, int end)
{
    SHARED_FLOATS(shared);
#pragma unroll 1
    for (int e = threadIdx.x; e < COUNT * ROW_QUADS; e += THREADS_) {
        const int column = e / ROW_QUADS, q = e % ROW_QUADS;
        const bool there = first + column < end;
        copy16(shared + to + column * PITCH + 4 * q, from + (i64)(there ? first + column : first) * NP + 4 * q, there);
    }
}

// ---- tile blocks

const int WP = fours(J1);  // a row of the tile in shared memory
const int TILE_FLOATS = K1 * WP;
const int TILE_X = BOTH_END, TILE_D = TILE_X + X_BUFFERS * K1 * PITCH, TILE_W = TILE_D + J1 * PITCH;
const int TILE_M = TILE_W + TILE_FLOATS, TILE_V = TILE_M + TILE_FLOATS, TILE_ROWS = TILE_V + TILE_FLOATS;
const int TILE_BIAS = TILE_ROWS + NP;  // of the tiles with the first k, without batch norm: it, m, v
const int TILE_RATE = TILE_BIAS + 3 * WP;
const int TILE_END = TILE_RATE + RATES * RATE_FLOATS;

// The element in data of floats, copied aside; of bytes, preprocessed.
__device__ __forceinline__ void fetch(float* to, const float* from, bool there, const Job&, int) { copy4(to, from, there); }
__device__ __forceinline__ void fetch(float* to, const unsigned char* from, bool there, const Job& job, int d)
{
    *to = there ? ((float)*from - job.shift[d]) * job.scale[d] : 0.0f;
}

// x[k][n] = the batch's rows from `cursor` on, columns k0 .. k0 + K1 - 1; to be waited for with `copies_done`.
__device__ __noinline__ void gather(int to, i64 cursor, int k0)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    int* numbers = reinterpret_cast<int*>(shared + TILE_ROWS);
#pragma unroll 1
    for (int n = threadIdx.x; n < NP; n += THREADS_)
        numbers[n] = n < job.rows ? (int)inside(job.order[inside(cursor + n, job.count)], job.count) : -1;
    __syncthreads();
    const X_TYPE* from = job.x;
    constexpr int TOGETHER = sizeof(X_TYPE) == 1 ? 8 : 1;  // bytes are not copied aside, so several are asked for at once
#pragma unroll TOGETHER
    for (int e = threadIdx.x; e < K1 * NP; e += THREADS_) {
        const int k = e % K1, n = e / K1, row = numbers[n];
        const bool there = row >= 0 && k0 + k < width(0);
        const int d = there ? k0 + k : 0;
        fetch(shared + to + k * PITCH + n, from + (i64)(there ? row : 0) * width(0) + d, there, job, d);
    }
}

__device__ __forceinline__ void write_partial(float* to, float4 value, int quad, int j)
{
    if constexpr (R % 4 == 0) {
        constexpr int QUADS = most(1, R / 4);  // 1: compiled, though not used, for an R below 4, too
        const int block = quad / QUADS, part = quad % QUADS;
        __stcg(reinterpret_cast<float4*>(to + ((i64)block * Z_WIDTH + j) * R) + part, value);
    } else {
        const float v[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int n = 4 * quad + i;
            if (n / R < ROW_BLOCKS) __stcg(to + ((i64)(n / R) * Z_WIDTH + j) * R + n % R, v[i]);
        }
    }
}

// This block's part of z1, over its k, and the bias if it is of this block: partials[k slice][row block][j][R].
__device__ __forceinline__ void first_product(int x, float* to, int j0, bool biased)
{
    constexpr int JM = WP / 4, MICRO = ROW_QUADS * JM, LANES = least(MICRO, THREADS_);
    constexpr int SPLITS = least(least(THREADS_ / LANES, K1), 4);
    SHARED_FLOATS(shared);
    float4* sums = reinterpret_cast<float4*>(shared + SUMS);
    for (int pass = 0; pass < MICRO; pass += LANES) {
        const int lane = (int)threadIdx.x % LANES, micro = pass + lane, split = (int)threadIdx.x / LANES;
        if (micro < MICRO && split < SPLITS) {
            const float* xs = shared + x + 4 * (micro / JM);
            const float* ws = shared + TILE_W + 4 * (micro % JM);
            float sum[4][4] = {};  // column, row
#pragma unroll 4
            for (int k = split; k < K1; k += SPLITS) {
                const float4 xv = *reinterpret_cast<const float4*>(xs + k * PITCH);
                const float4 wv = *reinterpret_cast<const float4*>(ws + k * WP);
                const float wc[4] = {wv.x, wv.y, wv.z, wv.w};
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    sum[c][0] += xv.x * wc[c];
                    sum[c][1] += xv.y * wc[c];
                    sum[c][2] += xv.z * wc[c];
                    sum[c][3] += xv.w * wc[c];
                }
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) sums[(c * SPLITS + split) * LANES + lane] = {sum[c][0], sum[c][1], sum[c][2], sum[c][3]};
        }
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < 4 * LANES; e += THREADS_) {
            // Neighbours write neighbouring columns.
            const int c = e % 4, at = e / 4, micro = pass + at, j = 4 * (micro % JM) + c;
            if (micro >= MICRO || j >= J1 || j0 + j >= width(1)) continue;
            float4 total = {0, 0, 0, 0};
#pragma unroll
            for (int s = 0; s < SPLITS; ++s) {
                const float4 value = sums[(c * SPLITS + s) * LANES + at];
                total.x += value.x, total.y += value.y, total.z += value.z, total.w += value.w;
            }
            if (biased) {
                const float bias = shared[TILE_BIAS + j];
                total.x += bias, total.y += bias, total.z += bias, total.w += bias;
            }
            write_partial(to, total, micro / JM, j0 + j);
        }
        if (pass + LANES < MICRO) __syncthreads();
    }
}

// A weight and what the rule keeps for it, `apart` in shared memory, from the flat buffers, or back.
template <bool LOAD>
__device__ __forceinline__ void move(const Job& job, i64 at, float* w, int apart)
{
    if (LOAD) w[0] = job.params[at]; else job.params[at] = w[0];
    if (MOMENTS > 0) { if (LOAD) w[apart] = job.moment1[at]; else job.moment1[at] = w[apart]; }
    if (MOMENTS > 1) { if (LOAD) w[2 * apart] = job.moment2[at]; else job.moment2[at] = w[2 * apart]; }
}

// A bias's gradient is the sum of dz over the rows: the columns that the tile has at hand. Eight threads a column.
template <int J>
__device__ __forceinline__ void update_bias(int place, int d, int count, const Rate& rate)
{
    SHARED_FLOATS(shared);
    const int part = threadIdx.x % 8;
#pragma unroll 1
    for (int first = 0; first < J; first += THREADS_ / 8) {
        const int j = first + (int)threadIdx.x / 8;
        float sum = 0;
        for (int q = part; q < ROW_QUADS; q += 8) {
            const float4 v = *reinterpret_cast<const float4*>(shared + d + least(j, J - 1) * PITCH + 4 * q);
            sum += (v.x + v.y) + (v.z + v.w);
        }
        for (int other = 4; other; other /= 2) sum += from_lane(sum, other);
        float* b = shared + place + j;
        if (part == 0 && j < count) apply_rule(b[0], b[fours(J)], b[2 * fours(J)], sum, rate);
    }
}

// A bias from the flat buffers, with what the rule keeps for it, or back.
template <bool LOAD>
__device__ __forceinline__ void move_bias(int place, int at, int count)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    float* b = shared + place;
    for (int j = threadIdx.x; j < count; j += THREADS_) {
        move<LOAD>(job, at + j, b + j, WP);
    }
}

// After a loss that is not finite the output layer's bias is NaN, and so are all losses after it: however many steps a
// launch makes, and as on a device where the update of that step is made.
__device__ __forceinline__ void spoil(int bias, int count)
{
    SHARED_FLOATS(shared);
    for (int j = threadIdx.x; j < count; j += THREADS_) shared[bias + j] = __int_as_float(0x7fc00000);
    __syncthreads();
}

// The tile from the flat buffers, or back.
template <bool LOAD>
__device__ __forceinline__ void move_tile(const Job& job, int k0, int j0)
{
    SHARED_FLOATS(shared);
#pragma unroll 1
    for (int e = threadIdx.x; e < TILE_FLOATS; e += THREADS_) {
        const int k = k0 + e / WP, j = j0 + e % WP;
        const bool mine = k < width(0) && e % WP < J1 && j < width(1);
        const i64 at = Layer<1>::W + (i64)k * width(1) + j;
        if (mine) move<LOAD>(job, at, shared + TILE_W + e, TILE_FLOATS);
        else if (LOAD) shared[TILE_W + e] = 0;
    }
}

__device__ __forceinline__ void tile_block(int block)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    const int k0 = block / J_SLICES * K1, j0 = block % J_SLICES * J1;
    Rate* rates = reinterpret_cast<Rate*>(shared + TILE_RATE);
    float* partials = job.partials + (i64)(k0 / K1) * ROW_BLOCKS * Z_WIDTH * R;
    const i64 cursor = job.counters[0], step = *job.step;
    const bool biased = NORM != 1 && k0 == 0;
    move_tile<true>(job, k0, j0);
    if (biased) move_bias<true>(TILE_BIAS, Layer<1>::B + j0, least(J1, width(1) - j0));
    gather(TILE_X, cursor, k0);
    copies_done<0>();
    bool stop = false;
#pragma unroll 1
    for (int s = 0; s < job.steps; ++s) {
        const int now = TILE_X + (X_BUFFERS == 2 ? s % 2 : 0) * K1 * PITCH;
        const int next = TILE_X + (X_BUFFERS == 2 ? (s + 1) % 2 : 0) * K1 * PITCH;
        const i64 then = cursor + (i64)(s + 1) * job.rows;
        MARK(0);
        first_product(now, partials, j0, biased);
        MARK(1);
        arrive(job.sync + TILES_DONE);
        MARK(2);
        for (int g = threadIdx.x; g < RATES; g += THREADS_) set_rate(rates, job, step, s, g);
        if (X_BUFFERS == 2 && s + 1 < job.steps) gather(next, then, k0);
        MARK(3);
        await(job.sync + ROWS_DONE, (unsigned)((s + 1) * ROW_BLOCKS));
        MARK(4);
        const unsigned stopped = load_relaxed(job.sync + STOP);  // asked for before the copies, needed after them
        load_columns<J1>(TILE_D, job.dz, j0, width(1));
        copies_done<0>();
        MARK(5);
        stop = stopped != 0;
        if (stop) break;
        const Rate r = rates[rate_of(Layer<1>::W)];
        const float reg = (float)job.reg, lasso = (float)job.l1;
        double squares = 0;
        if constexpr (FROZEN == 0) gradient<K1, J1>(now, TILE_D, [&](int k, int j, float g) {
            float* w = shared + TILE_W + k * WP + j;
            if (k0 + k >= width(0) || j0 + j >= width(1)) return;
            if (PENALTY) squares += penalty_of(job, *w);
            apply_to_matrix(*w, w[TILE_M - TILE_W], w[TILE_V - TILE_W], g, reg, lasso, r);
        });
        if (biased && FROZEN == 0) update_bias<J1>(TILE_BIAS, TILE_D, least(J1, width(1) - j0), rates[rate_of(Layer<1>::B)]);
        __syncthreads();
        MARK(6);
        if (PENALTY) {
            const double total = sum_of_block(squares, reinterpret_cast<double*>(shared + SUMS));
            if (threadIdx.x == 0) __stcg(job.l2_parts + s % 2 * (ROW_BLOCKS + TILE_BLOCKS) + ROW_BLOCKS + block, total);
        }
        if (X_BUFFERS == 1 && s + 1 < job.steps) {
            gather(next, then, k0);
            copies_done<0>();
        }
    }
    if (PENALTY) arrive(job.sync + TILES_DONE);
    if (LAYERS == 1 && biased && stop) spoil(TILE_BIAS, J1);
    move_tile<false>(job, k0, j0);
    if (biased) move_bias<false>(TILE_BIAS, Layer<1>::B + j0, least(J1, width(1) - j0));
}

// ---- row blocks

const int STAGED = (K2 + J2) * PITCH;  // of the update, where the weights were
const int TILE2_FLOATS = K2 * J2, OWN_FLOATS = 3 * (TILE2_FLOATS + fours(J2));  // a tile and its bias
const int MERGED_FLOATS = NORM == 1 ? 6 * HIDDEN_COLUMNS : 0;

const int WEIGHTS = BOTH_END;
const int OUT = WEIGHTS + fours(most(PADDED, STAGED));  // outputs of all layers; the last one's are the scores
const int NORMAL = OUT + COLUMNS * R;  // normalised, of the hidden layers
const int DZ = NORMAL + (NORM ? COLUMNS * R : 0);  // of a layer, row by row
const int DZ_BELOW = DZ + R * WIDEST;
const int OWN = DZ_BELOW + R * WIDEST;  // this block's tiles and biases, and what the rule keeps
const int VECTOR = OWN + fours(TILES_OF_ROW_BLOCK * OWN_FLOATS);  // all vectors, as in the flat buffer
const int MERGED = VECTOR + VECTOR_FLOATS;  // a column's shift, mean above it, 1 / deviation, variance; dgamma, dbeta
const int WORDS = MERGED + MERGED_FLOATS;  // of the generator
const int LOSSES = WORDS + 8 * DRAWS * (LAYERS - 1);  // R doubles
const int ROW_SUMS = LOSSES + 2 * R;  // R: of the softmax
const int LABELS = ROW_SUMS + R;  // R integers
const int PLACES = LABELS + R;  // of this block's tiles
const int ROW_RATE = PLACES + 8 * TILES_OF_ROW_BLOCK;
const int TARGETS = ROW_RATE + RATES * RATE_FLOATS;  // where they are numbers: (C, R)
const int SAMPLE_WEIGHTS = TARGETS + (NUMBERS ? width(LAYERS) * R : 0);
const int SLOPES = SAMPLE_WEIGHTS + (WEIGHTED ? R : 0);  // of the hidden units, with dropout's factor
const int INVERSES = SLOPES + (RECTIFIED ? 0 : HIDDEN_COLUMNS * R);  // layer norm's 1 / deviation: (layer, R)
const int ROW_END = INVERSES + (NORM == 2 ? (LAYERS - 1) * R : 0);

static_assert(4 * most(TILE_END, ROW_END) <= SHARED_BYTES, "the plan's shared memory is less than the kernel's");

__device__ __forceinline__ int rows_of(const Job& job, int block) { return most(0, least(R, job.rows - block * R)); }

__device__ __forceinline__ float sum_of_warp(float value)
{
#pragma unroll
    for (int bit = 16; bit; bit /= 2) value += from_lane(value, bit);
    return value;
}

// An exchange between the row blocks: of each of a layer's columns every block has a pair of numbers, and wants what
// all pairs together give, in the same bits as the others. Every block reads all pairs, [block][column], and works out all
// columns. A pair is one word of 64 bits; the last two bits of its second number are the step's tag, so that whoever sees
// it waits for nothing else. Every exchange of a step has its own place, which is written again in the next step: by then
// all have read it, because a block writes only after all were at ROWS_DONE. So what is in a word is the last step's or
// this one's, and three tags in turn are enough; 0 is what the places are cleared to when a launch begins.
__device__ __forceinline__ unsigned tag_of(int s) { return 1 + s % 3; }

// To be followed by `arrive` and `await` before the first exchange.
__device__ __forceinline__ void clear_exchange(const Job& job, int block)
{
    ulonglong2* mine = job.exchange + block * HIDDEN_COLUMNS;  // of 2 x HIDDEN_COLUMNS x ROW_BLOCKS words in all
#pragma unroll 1
    for (int e = threadIdx.x; e < HIDDEN_COLUMNS; e += THREADS_) store_relaxed(mine + e, make_ulonglong2(0, 0));
}

// f(i) for each i below COUNT, by one thread.
template <int COUNT, class F>
__device__ __forceinline__ void each_of(F f)
{
    if constexpr (COUNT <= THREADS_) {
        if ((int)threadIdx.x < COUNT) f((int)threadIdx.x);
    } else {
#pragma unroll 1
        for (int i = threadIdx.x; i < COUNT; i += THREADS_) f(i);
    }
}

__device__ __forceinline__ u64 word_of(float one, float two, unsigned tag)
{
    return (u64)(__float_as_uint(two) & ~3u | tag) << 32 | (u64)__float_as_uint(one);
}
__device__ __forceinline__ float one_of(u64 word) { return __uint_as_float((unsigned)word); }
__device__ __forceinline__ float two_of(u64 word) { return __uint_as_float((unsigned)(word >> 32) & ~3u); }
__device__ __forceinline__ bool is_of(u64 word, unsigned tag) { return (unsigned)(word >> 32) % 4 == tag; }

// A block's pair of column j to the others; `place`: the first column of the exchange. Columns that fill M up are sent,
// too, so that two neighbours can be read at once.
template <int M>
__device__ __forceinline__ void send(const Job& job, int place, int block, int j, float one, float two, unsigned tag)
{
    store_relaxed(reinterpret_cast<u64*>(job.exchange) + place * ROW_BLOCKS + block * fours(M) + j, word_of(one, two, tag));
}

// All pairs of the exchange whose first column is `place`, added up by `Sum`. A thread has two neighbouring columns and the
// blocks `share`, `share` + COUNT, ...; the sums of the shares are merged in their order, and `finish(column, sum)` called
// for each column.
const int PARTS_AT = SUMS + 2 * WIDEST;  // two float4s a thread
template <int M>
struct Shares {
    static constexpr int HALVES = fours(M) / 2, LANES = least(HALVES, THREADS_);
    static constexpr int COUNT = least(THREADS_ / LANES, ROW_BLOCKS), EACH = parts_of(ROW_BLOCKS, COUNT);
    static constexpr int AT_ONCE = parts_of(EACH, parts_of(EACH, 13));  // words that a thread asks for at once

    // From a thread's first word to its word number i; past the last block: to the first.
    static __device__ __forceinline__ int step(int share, int i)
    {
        const bool there = (i + 1) * COUNT <= ROW_BLOCKS || share + i * COUNT < ROW_BLOCKS;
        return there ? i * COUNT * HALVES : 0;
    }
};

template <int M, class Sum, class Finish>
__device__ __forceinline__ void merge_all(const Job& job, int place, unsigned tag, Finish finish)
{
    using Of = Shares<M>;
    SHARED_FLOATS(shared);
    float4* parts = reinterpret_cast<float4*>(shared + PARTS_AT);
    const int rows = job.rows, lane = threadIdx.x % Of::LANES, share = threadIdx.x / Of::LANES;
    const ulonglong2* from = job.exchange + place * ROW_BLOCKS / 2 + least(share, Of::COUNT - 1) * Of::HALVES;
#pragma unroll 1
    for (int pass = 0; pass < Of::HALVES; pass += Of::LANES) {
        const ulonglong2* first = from + least(pass + lane, Of::HALVES - 1);
        if (share < Of::COUNT) {
            Sum sum[2] = {};
#pragma unroll
            for (int chunk = 0; chunk < Of::EACH; chunk += Of::AT_ONCE) {
                ulonglong2 words[Of::AT_ONCE];
#pragma unroll
                for (int i = 0; i < Of::AT_ONCE; ++i) words[i] = load_relaxed(first + Of::step(share, chunk + i));
                for (bool all = false; !all;) {
                    all = true;
#pragma unroll
                    for (int i = 0; i < Of::AT_ONCE; ++i) {
                        const bool late = !is_of(words[i].x, tag) | !is_of(words[i].y, tag);
                        if (late) words[i] = load_relaxed(first + Of::step(share, chunk + i));
                        all &= !late;
                    }
                    if (!all) pause();
                }
                const auto add = [&](int i, int its) {
                    sum[0].add(one_of(words[i].x), two_of(words[i].x), its, chunk + i == 0);
                    sum[1].add(one_of(words[i].y), two_of(words[i].y), its, chunk + i == 0);
                };
                if (Of::EACH * Of::COUNT == ROW_BLOCKS && rows == ROW_BLOCKS * R) {  // as nearly always
#pragma unroll
                    for (int i = 0; i < Of::AT_ONCE; ++i) add(i, chunk + i < Of::EACH ? R : 0);
                } else {
#pragma unroll
                    for (int i = 0; i < Of::AT_ONCE; ++i) {
                        const int other = share + (chunk + i) * Of::COUNT;
                        add(i, other < ROW_BLOCKS ? most(0, least(R, rows - other * R)) : 0);
                    }
                }
            }
            parts[2 * (share * Of::LANES + lane)] = sum[0].part();
            parts[2 * (share * Of::LANES + lane) + 1] = sum[1].part();
        }
        __syncthreads();
        each_of<2 * Of::LANES>([&](int e) {
            if (2 * pass + e >= M) return;
            Sum total = {};
#pragma unroll
            for (int i = 0; i < Of::COUNT; ++i) total.merge(parts[2 * i * Of::LANES + e], i == 0);
            finish(2 * pass + e, total);
        });
        __syncthreads();
    }
}

// Of a column: the blocks' means as differences from the first one, so that a column that is constant has the variance 0,
// and the squares of all differences from `shift`.
struct Moments {
    float shift, sum, squares, count;

    __device__ __forceinline__ void add(float mean, float own, int rows, bool first)
    {
        if (first) shift = mean;
        const float above = mean - shift;
        sum += rows * above, squares += (rows ? own : 0) + rows * above * above, count += rows;
    }
    __device__ __forceinline__ float4 part() const { return {shift, sum, squares, count}; }
    __device__ __forceinline__ void merge(float4 part, bool first)
    {
        if (first) shift = part.x;
        const float above = part.x - shift;
        sum += part.y + part.w * above, squares += part.z + above * (2 * part.y + part.w * above);
    }
};

struct Sums {
    float one, two;

    __device__ __forceinline__ void add(float first, float second, int rows, bool) { if (rows) one += first, two += second; }
    __device__ __forceinline__ float4 part() const { return {one, two, 0, 0}; }
    __device__ __forceinline__ void merge(float4 part, bool) { one += part.x, two += part.y; }
};

// Batch norm's statistics of a layer of M columns over all rows, of the values at `z`, to MERGED + column.
template <int M>
__device__ __noinline__ void merge_statistics(int block, int column, int z, unsigned tag)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    float* merged = shared + MERGED + column;
    const int valid = rows_of(job, block);
    each_of<fours(M)>([&](int j) {
        const Rows v = *reinterpret_cast<const Rows*>(shared + z + least(j, M - 1) * R);
        float mean = 0, squares = 0;
#pragma unroll
        for (int r = 0; r < R; ++r) if (r < valid) mean += v.v[r] - v.v[0];
        mean = v.v[0] + (valid == R ? mean * (1.0f / R) : valid ? mean / valid : 0.0f);
#pragma unroll
        for (int r = 0; r < R; ++r) if (r < valid) squares += (v.v[r] - mean) * (v.v[r] - mean);
        send<M>(job, column, block, j, mean, squares, tag);
    });
    const float share = 1.0f / job.rows;
    merge_all<M, Moments>(job, column, tag, [&](int j, const Moments& total) {
        const float mean = total.sum * share, variance = fmaxf(0.0f, total.squares * share - mean * mean);
        merged[j] = total.shift, merged[HIDDEN_COLUMNS + j] = mean;
        merged[2 * HIDDEN_COLUMNS + j] = 1 / sqrtf(variance + job.eps), merged[3 * HIDDEN_COLUMNS + j] = variance;
    });
}

// The sums over all rows of two numbers a column, of which this block's are at `two` and `two` + M; they stay there.
template <int M>
__device__ __noinline__ void merge_sums(int block, int column, int two, unsigned tag)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    const int place = HIDDEN_COLUMNS + column;
    each_of<fours(M)>([&](int j) {
        send<M>(job, place, block, j, j < M ? shared[two + j] : 0.0f, j < M ? shared[two + M + j] : 0.0f, tag);
    });
    merge_all<M, Sums>(job, place, tag, [&](int j, const Sums& total) {
        shared[two + j] = total.one, shared[two + M + j] = total.two;
    });
}

__device__ __forceinline__ Dropout dropout_of(const Job& job, int l, i64 step)
{
    return Dropout{job.seed, job.purpose, (u64)l, (u64)step, job.net, job.threshold};
}

// Sums over the eight threads that share a task: of COUNT values (a multiple of 4) that each has parts of, each thread
// gets COUNT / 8, those from `first_of_eight` on (one, as its neighbour, if COUNT is 4). A step a call, LANE 4, 2, 1, on
// LEFT of the values: as a loop over steps the compiler would choose between addresses, and keep them in local memory.
template <int LANE = 4, int LEFT = 0, int COUNT>
__device__ __forceinline__ void sum_over_eight(float (&v)[COUNT])
{
    constexpr int HALF = (LEFT ? LEFT : COUNT) / 2;
    const bool upper = threadIdx.x & LANE;
    if constexpr (HALF) {
#pragma unroll
        for (int i = 0; i < HALF; ++i) {
            const float low = v[i], high = v[i + HALF];
            v[i] = (upper ? high : low) + from_lane(upper ? low : high, LANE);
        }
    } else {
        v[0] += from_lane(v[0], LANE);
    }
    if constexpr (LANE > 1) sum_over_eight<LANE / 2, most(1, HALF)>(v);
}

template <int COUNT>
__device__ __forceinline__ int first_of_eight() { return COUNT == 4 ? (int)threadIdx.x % 8 / 2 : (int)threadIdx.x % 8 * (COUNT / 8); }

// A hidden unit's output from what its activation is applied to. What the backward pass needs of a ReLU unit is whether
// its output is 0; of another, the slope is kept.
__device__ __forceinline__ void finish_unit(
    const Job& job, const Dropout& dropout, const u64 (*words)[4], int block, int column, int units, int j, int r, float value)
{
    SHARED_FLOATS(shared);
    const int first = block * R;
    const bool frozen = FROZEN && (int)dropout.layer <= FROZEN;
    const bool kept = frozen || dropout.keeps(words, (i64)first * units / 16, (i64)(first + r) * units + j);
    const float scale = frozen ? job.frozen_scale : job.keep_scale;
    if constexpr (RECTIFIED) {
        value = value <= 0 || !kept ? 0.0f : value * scale;
    } else {
        shared[SLOPES + (column + j) * R + r] = kept && r < rows_of(job, block) ? ACTIVATION::slope(value) * scale : 0.0f;
        value = kept ? ACTIVATION::of(value) * scale : 0.0f;
    }
    if (r >= rows_of(job, block)) value = 0;
    shared[OUT + (column + j) * R + r] = value;
    __stcg(job.hidden + (i64)(column + j) * NP + first + r, value);
}

// What of the generator's numbers is for hidden layer l.
__device__ __forceinline__ const u64 (*words_of(int l))[4]
{
    SHARED_FLOATS(shared);
    return reinterpret_cast<const u64(*)[4]>(shared + WORDS) + (l - 1) * DRAWS;
}

// Layer norm of this block's rows of hidden layer l, in place at `z`: a warp for each row.
template <int M>
__device__ __forceinline__ void normalise_rows(int l, int z)
{
    SHARED_FLOATS(shared);
    const float eps = the_job().eps;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int r = threadIdx.x / 32; r < R; r += THREADS_ / 32) {
        float* row = shared + z + r;
        // Measured from the first column, so that a constant row is exactly 0 after its mean is taken off.
        const float origin = row[0];
        float sum = 0, squares = 0;
        for (int j = lane; j < M; j += 32) sum += row[j * R] - origin;
        const float mean = sum_of_warp(sum) / M;
        for (int j = lane; j < M; j += 32) {
            const float centred = (row[j * R] - origin) - mean;
            squares += centred * centred;
        }
        const float inverse = 1 / sqrtf(sum_of_warp(squares) / M + eps);
        for (int j = lane; j < M; j += 32) row[j * R] = ((row[j * R] - origin) - mean) * inverse;
        if (lane == 0) shared[INVERSES + (l - 1) * R + r] = inverse;
    }
    __syncthreads();
}

// Outputs of hidden layer l, of M columns, from z at NORMAL: batch or layer norm, activation, dropout.
template <int M>
__device__ __noinline__ void finish_normalised(int block, int l, int column, int gamma, int beta, i64 step, unsigned tag)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    __syncthreads();
    if constexpr (NORM == 1) {
        if (!(FROZEN && l <= FROZEN)) merge_statistics<M>(block, column, NORMAL + column * R, tag);
    } else normalise_rows<M>(l, NORMAL + column * R);
    const Dropout dropout = dropout_of(job, l, step);
    const float* merged = shared + MERGED + column;
    float* normal = shared + NORMAL + column * R;
#pragma unroll 1
    for (int e = threadIdx.x; e < M * R; e += THREADS_) {
        const int j = e / R;
        float x = normal[e];
        if constexpr (NORM == 1)
            normal[e] = x = ((x - merged[j]) - merged[HIDDEN_COLUMNS + j]) * merged[2 * HIDDEN_COLUMNS + j];
        finish_unit(job, dropout, words_of(l), block, column, M, j, e % R, x * shared[VECTOR + gamma + j] + shared[VECTOR + beta + j]);
    }
    __syncthreads();
}

// Layer 1: z is the sum of its parts from memory, which have the bias already.
__device__ __forceinline__ void first_layer(const Job& job, int block, i64 step, unsigned tag)
{
    using First = Layer<1>;
    constexpr int LENGTH = Z_WIDTH * R / 4;  // float4s
    SHARED_FLOATS(shared);
    const float4* from = reinterpret_cast<const float4*>(job.partials) + (i64)block * LENGTH;
#pragma unroll 1
    for (int e = threadIdx.x; e < LENGTH * FIRST_PARTS; e += THREADS_) {
        const int at = e % LENGTH, part = e / LENGTH;
        float4 sum = {0, 0, 0, 0};
#pragma unroll 8
        for (int k = part; k < K_SLICES; k += FIRST_PARTS) {
            const float4 value = __ldcg(from + (i64)k * ROW_BLOCKS * LENGTH + at);
            sum.x += value.x, sum.y += value.y, sum.z += value.z, sum.w += value.w;
        }
        reinterpret_cast<float4*>(shared + SUMS)[e] = sum;
    }
    copies_done<LAYERS - 1>();  // the vectors
    MARK(12);
    const Dropout dropout = dropout_of(job, 1, step);
#pragma unroll 1
    for (int e = threadIdx.x; e < First::M * R; e += THREADS_) {
        float z = 0;
#pragma unroll 4
        for (int p = 0; p < FIRST_PARTS; ++p) z += shared[SUMS + p * 4 * LENGTH + e];
        if (LAYERS == 1) shared[OUT + e] = z;
        else if (NORM) shared[NORMAL + e] = z;
        else finish_unit(job, dropout, words_of(1), block, 0, First::M, e / R, e % R, z);
    }
    if constexpr (NORM && LAYERS > 1)
        finish_normalised<First::M>(block, 1, 0, First::GAMMA - VECTORS_AT, First::BETA - VECTORS_AT, step, tag);
    else
        __syncthreads();
}

// A later layer of K inputs and M outputs, hidden or the last: eight threads for four columns, each with its part of k.
template <int K, int M, bool HIDDEN>
__device__ __noinline__ void later_layer(int block, int l, int weights, int in, int column, int bias, i64 step)
{
    constexpr int QUADS = fours(M) / 4;
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    const int part = threadIdx.x % 8;
    const Dropout dropout = dropout_of(job, l, step);
#pragma unroll 1
    for (int first = 0; first < QUADS; first += THREADS_ / 8) {
        const int quad = first + (int)threadIdx.x / 8;
        float sum[4 * R] = {};
        const float* w = shared + weights + 4 * least(quad, QUADS - 1);
#pragma unroll 4
        for (int k = part; k < K; k += 8) {
            const float4 wv = *reinterpret_cast<const float4*>(w + k * pitch_of(M));
            const Rows x = *reinterpret_cast<const Rows*>(shared + in + k * R);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                sum[r] += wv.x * x.v[r];
                sum[R + r] += wv.y * x.v[r];
                sum[2 * R + r] += wv.z * x.v[r];
                sum[3 * R + r] += wv.w * x.v[r];
            }
        }
        sum_over_eight(sum);
        const int from = first_of_eight<4 * R>();
#pragma unroll
        for (int i = 0; i < most(1, R / 2); ++i) {
            const int j = 4 * quad + (from + i) / R, r = (from + i) % R;
            if (j >= M || (R == 1 && part % 2)) continue;
            if (HIDDEN && NORM == 1) shared[NORMAL + (column + j) * R + r] = sum[i];
            else if (HIDDEN && NORM) shared[NORMAL + (column + j) * R + r] = sum[i] + shared[VECTOR + bias + j];
            else if (HIDDEN) finish_unit(job, dropout, words_of(l), block, column, M, j, r, sum[i] + shared[VECTOR + bias + j]);
            else shared[OUT + (column + j) * R + r] = sum[i] + shared[VECTOR + bias + j];
        }
    }
    if (!(HIDDEN && NORM)) __syncthreads();
}

template <int L>
__device__ __forceinline__ void forward_from(int block, i64 step, unsigned tag)
{
    if constexpr (L <= LAYERS) {
        using This = Layer<L>;
        copies_done<LAYERS - L>();
        later_layer<This::K, This::M, (L < LAYERS)>(
            block, L, WEIGHTS + This::PADDED_AT, OUT + This::COLUMN_BELOW * R, This::COLUMN, This::B - VECTORS_AT, step);
        if constexpr (NORM && L < LAYERS)
            finish_normalised<This::M>(block, L, This::COLUMN, This::GAMMA - VECTORS_AT, This::BETA - VECTORS_AT, step, tag);
        forward_from<L + 1>(block, step, tag);
    }
}

// What the rows of this block are to give, those of the data from `from` on in the epoch's order.
__device__ __forceinline__ void load_targets(const Job& job, int block, i64 from)
{
    SHARED_FLOATS(shared);
    const int valid = rows_of(job, block);
    if constexpr (NUMBERS) {
        constexpr int C = width(LAYERS);
#pragma unroll 1
        for (int e = threadIdx.x; e < C * R; e += THREADS_) {
            const int r = e / C, c = e % C;
            const i64 row = inside(job.order[inside(from + r, job.count)], job.count);
            shared[TARGETS + c * R + r] = r < valid ? job.y[row * C + c] : 0.0f;
        }
    }
    if ((!NUMBERS || WEIGHTED) && threadIdx.x < R) {
        const bool there = (int)threadIdx.x < valid;
        const i64 row = there ? inside(job.order[inside(from + threadIdx.x, job.count)], job.count) : 0;
        if (!NUMBERS) reinterpret_cast<int*>(shared + LABELS)[threadIdx.x] = there ? (int)job.y[row] : -1;
        if (WEIGHTED) shared[SAMPLE_WEIGHTS + threadIdx.x] = there ? job.sample_weights[row] : 0.0f;
    }
}

// exp(s - peak) of all scores to SUMS + R, each row's peak to SUMS.
__device__ __forceinline__ void take_powers(const float* scores)
{
    constexpr int C = width(LAYERS);
    SHARED_FLOATS(shared);
    float* powers = shared + SUMS + R;
    for (int e = threadIdx.x; e < C * R; e += THREADS_) {
        const int r = e % R;
        float peak = scores[r];
#pragma unroll 8
        for (int c = 1; c < C; ++c) peak = scores[c * R + r] > peak ? scores[c * R + r] : peak;
        powers[e] = expf(scores[e] - peak);
        if (e < R) shared[SUMS + r] = peak;
    }
    __syncthreads();
}

// Softmax and cross-entropy of the scores: their gradient to DZ and memory. What the loss is made of stays in ROW_SUMS
// and LOSSES, for `write_loss`.
__device__ __forceinline__ void softmax_of_labels(const Job& job, int block)
{
    constexpr int C = width(LAYERS);
    SHARED_FLOATS(shared);
    const float* scores = shared + OUT + Layer<LAYERS>::COLUMN * R;
    const int* labels = reinterpret_cast<const int*>(shared + LABELS);
    float* powers = shared + SUMS + R;
    const int first = block * R, valid = rows_of(job, block);
    take_powers(scores);
    for (int e = threadIdx.x; e < C * R; e += THREADS_) {
        const int c = e / R, r = e % R, y = labels[r];
        float sum = 0;
#pragma unroll 8
        for (int i = 0; i < C; ++i) sum += powers[i * R + r];
        const float probability = powers[e] / (sum * job.rows);
        float d = c == y ? probability - 1.0f / job.rows : probability;
        if (r >= valid) d = 0;
        shared[DZ + r * WIDEST + c] = d;
        __stcg(job.dz + (i64)(Layer<LAYERS>::COLUMN + c) * NP + first + r, d);
        if (e < R) {
            const float own = y >= 0 && y < C ? scores[y * R + r] - shared[SUMS + r] : 0.0f;
            if (r < valid && !(fabsf(sum) <= 3e38f && fabsf(own) <= 3e38f)) __stcg(job.sync + STOP, 1u);
            reinterpret_cast<double*>(shared + LOSSES)[r] = r < valid ? -(double)own : 0.0;
            shared[ROW_SUMS + r] = r < valid ? sum : 1.0f;  // its logarithm is taken later
        }
    }
    __syncthreads();
}

// The target of output c, of row r: a number from the data, or 1 for the label's class and 0 for others, smoothed.
__device__ __forceinline__ float target_of(const Job& job, int c, int r)
{
    SHARED_FLOATS(shared);
    float target = 0;
    if (NUMBERS) target = shared[TARGETS + c * R + r];
    else if (c == reinterpret_cast<const int*>(shared + LABELS)[r]) target = 1;
    return SMOOTHING ? add(mul(target, job.target_keep), job.target_add) : target;
}

// A row's loss but for the softmax's logarithm, without its weight: by the formulas of fcnet.functional.loss.
__device__ __forceinline__ double loss_of_row(const Job& job, const float* scores, int r, float right)
{
    constexpr int C = width(LAYERS);
    SHARED_FLOATS(shared);
    double loss = 0;
#pragma unroll 1
    for (int c = 0; c < C; ++c) {
        const float s = scores[c * R + r], target = target_of(job, c, r);
        if (LOSS == SOFTMAX) loss -= target != 0 ? target * (s - shared[SUMS + r]) : 0.0f;  // no share, no loss: also at -inf
        if (LOSS == SVM && target == 0) loss += s - right + 1 <= 0 ? 0.0f : s - right + 1;  // a NaN shows
        if (LOSS == MSE) loss += (double)(s - target) * (s - target);
        if (LOSS == POISSON) loss += expf(s) - target * s + (target > 0 ? target * logf(target) : 0.0f) - target;
        if (LOSS == BCE) loss += fmaxf(s, 0.0f) - s * target + log1pf(expf(-fabsf(s)));
    }
    return NUMBERS ? loss / C : loss;
}

// As `softmax_of_labels`, for any loss, with sample weights.
__device__ __forceinline__ void loss_of_targets(const Job& job, int block)
{
    constexpr int C = width(LAYERS);
    SHARED_FLOATS(shared);
    const float* scores = shared + OUT + Layer<LAYERS>::COLUMN * R;
    const float* powers = shared + SUMS + R;
    const int first = block * R, valid = rows_of(job, block);
    if constexpr (LOSS == SOFTMAX) take_powers(scores);
#pragma unroll 1
    for (int e = threadIdx.x; e < C * R; e += THREADS_) {
        const int c = e / R, r = e % R;
        const float s = scores[e], target = target_of(job, c, r);
        float d = 0, sum = 1, right = 0;
        if constexpr (LOSS == SOFTMAX) {
            sum = 0;
            for (int i = 0; i < C; ++i) sum += powers[i * R + r];
            d = powers[e] / sum - target;
        }
        if constexpr (LOSS == SVM) {
            const int label = reinterpret_cast<const int*>(shared + LABELS)[r];
            right = label >= 0 && label < C ? scores[label * R + r] : 0.0f;
            int violations = 0;
            for (int i = 0; i < C; ++i) violations += i != label && !(scores[i * R + r] - right + 1 <= 0);
            d = c == label ? -violations : !(s - right + 1 <= 0);
        }
        if constexpr (LOSS == MSE) d = (s - target) * (2.0f / C);
        if constexpr (LOSS == POISSON) d = (expf(s) - target) * (1.0f / C);
        if constexpr (LOSS == BCE) d = (1 / (1 + expf(-s)) - target) * (1.0f / C);
        if (WEIGHTED) d *= shared[SAMPLE_WEIGHTS + r];
        d = r < valid ? d / job.rows : 0.0f;
        shared[DZ + r * WIDEST + c] = d;
        __stcg(job.dz + (i64)(Layer<LAYERS>::COLUMN + c) * NP + first + r, d);
        if (e >= R) continue;
        double loss = loss_of_row(job, scores, r, right);
        if (WEIGHTED) loss *= shared[SAMPLE_WEIGHTS + r];
        // The mean is a float: what it would not hold is no finite loss.
        if (r < valid && !(fabs(loss / job.rows) <= 3.4028235e38 && fabsf(sum) <= 3e38f)) __stcg(job.sync + STOP, 1u);
        reinterpret_cast<double*>(shared + LOSSES)[r] = r < valid ? loss : 0.0;
        shared[ROW_SUMS + r] = r < valid ? sum : 1.0f;
    }
    __syncthreads();
}

// The block's share of the loss to memory, when no block waits for it.
__device__ __forceinline__ void write_loss(const Job& job, int block, int s)
{
    SHARED_FLOATS(shared);
    if (threadIdx.x) return;
    double total = 0;
#pragma unroll 1
    for (int r = 0; r < R; ++r) {
        double part = LOSS == SOFTMAX ? log((double)shared[ROW_SUMS + r]) : 0.0;
        if (WEIGHTED) part *= shared[SAMPLE_WEIGHTS + r];
        total += part + reinterpret_cast<const double*>(shared + LOSSES)[r];
    }
    __stcg(job.loss_parts + s % 2 * ROW_BLOCKS + block, total);
}

// Layer norm's parts of gamma's gradient, then of beta's: (column, block); there is no other exchange then.
__device__ __forceinline__ float* norm_parts(const Job& job) { return reinterpret_cast<float*>(job.exchange); }

// From dz of the layer above, M columns at `above`, to dz of a hidden layer of K columns, to `below` and memory: eight
// threads for four columns, each with its part of the M.
template <int K, int M>
__device__ __noinline__ void backward(int block, int l, int column, int weights, int gamma, int above, int below, unsigned tag)
{
    constexpr int QUADS = fours(M) / 4;
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    const int first = block * R, valid = rows_of(job, block), part = threadIdx.x % 8;
    const float* out = shared + OUT + column * R;
    const float scale = job.keep_scale;
    float* to = job.dz + (i64)column * NP + first;
#pragma unroll 1
    for (int start = 0; start < fours(K) / 4; start += THREADS_ / 8) {
        const int k = 4 * (start + (int)threadIdx.x / 8);
        float sum[4 * R] = {};
#pragma unroll 1
        for (int q = part; q < QUADS; q += 8) {
            float4 d[R];
#pragma unroll
            for (int r = 0; r < R; ++r) d[r] = *reinterpret_cast<const float4*>(shared + above + r * WIDEST + 4 * q);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const float4 w = *reinterpret_cast<const float4*>(shared + weights + least(k + c, K - 1) * pitch_of(M) + 4 * q);
#pragma unroll
                for (int r = 0; r < R; ++r) sum[c * R + r] += w.x * d[r].x + w.y * d[r].y + w.z * d[r].z + w.w * d[r].w;
            }
        }
        sum_over_eight(sum);
        const int from = first_of_eight<4 * R>();
#pragma unroll
        for (int i = 0; i < most(1, R / 2); ++i) {
            const int j = k + (from + i) / R, r = (from + i) % R;
            if (j >= K || (R == 1 && part % 2)) continue;
            float d;
            if constexpr (RECTIFIED) d = out[j * R + r] > 0 ? sum[i] * scale : 0.0f;
            else d = sum[i] * shared[SLOPES + (column + j) * R + r];
            shared[below + r * WIDEST + j] = d;
            if (NORM == 0) __stcg(to + (i64)j * NP + r, d);
        }
    }
    __syncthreads();
    if constexpr (NORM == 1) {
        constexpr int two = SUMS;
        const float* normal = shared + NORMAL + column * R;
        each_of<K>([&](int j) {
            const Rows x = *reinterpret_cast<const Rows*>(normal + j * R);
            float sum = 0, product = 0;
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const float d = shared[below + r * WIDEST + j];
                if (r < valid) sum += d, product += d * x.v[r];
            }
            shared[two + j] = sum, shared[two + K + j] = product;
        });
        merge_sums<K>(block, column, two, tag);  // each thread sends what it has just written
        float* merged = shared + MERGED + column;
        const float share = 1.0f / job.rows;
#pragma unroll 1
        for (int e = threadIdx.x; e < K * R; e += THREADS_) {
            const int j = e / R, r = e % R;
            const float factor = shared[VECTOR + gamma + j] * merged[2 * HIDDEN_COLUMNS + j];
            float d = (shared[below + r * WIDEST + j] - shared[two + j] * share - normal[e] * (shared[two + K + j] * share)) * factor;
            if (r >= valid) d = 0;
            shared[below + r * WIDEST + j] = d;
            __stcg(to + (i64)j * NP + r, d);
            if (r == 0) merged[4 * HIDDEN_COLUMNS + j] = shared[two + K + j], merged[5 * HIDDEN_COLUMNS + j] = shared[two + j];
        }
        __syncthreads();
    }
    if constexpr (NORM == 2) {
        const float* normal = shared + NORMAL + column * R;
        // Of each row: the mean of the gradient of what was normalised, and that of its product with it.
#pragma unroll 1
        for (int r = threadIdx.x / 32; r < R; r += THREADS_ / 32) {
            float sum = 0, product = 0;
            for (int j = threadIdx.x % 32; j < K; j += 32) {
                const float d = shared[below + r * WIDEST + j] * shared[VECTOR + gamma + j];
                sum += d, product += d * normal[j * R + r];
            }
            sum = sum_of_warp(sum), product = sum_of_warp(product);
            if (threadIdx.x % 32 == 0) shared[SUMS + r] = sum / K, shared[SUMS + R + r] = product / K;
        }
        // Of each column: this block's part of gamma's gradient and of beta's.
        float* parts = norm_parts(job) + (i64)column * ROW_BLOCKS + block;
        for (int j = threadIdx.x; j < K; j += THREADS_) {
            const Rows x = *reinterpret_cast<const Rows*>(normal + j * R);
            float sum = 0, product = 0;
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const float d = shared[below + r * WIDEST + j];
                if (r < valid) sum += d, product += d * x.v[r];
            }
            __stcg(parts + j * ROW_BLOCKS, product);
            __stcg(parts + (HIDDEN_COLUMNS + j) * ROW_BLOCKS, sum);
        }
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x; e < K * R; e += THREADS_) {
            const int j = e / R, r = e % R;
            float d = shared[below + r * WIDEST + j] * shared[VECTOR + gamma + j];
            d = (d - shared[SUMS + r] - normal[e] * shared[SUMS + R + r]) * shared[INVERSES + (l - 1) * R + r];
            if (r >= valid) d = 0;
            shared[below + r * WIDEST + j] = d;
            __stcg(to + (i64)j * NP + r, d);
        }
        __syncthreads();
    }
}

template <int L>
__device__ __forceinline__ void backward_from(int block, int above, int below, unsigned tag)
{
    if constexpr (L > FROZEN) {
        using This = Layer<L>;
        backward<This::M, Layer<L + 1>::M>(
            block, L, This::COLUMN, WEIGHTS + Layer<L + 1>::PADDED_AT, This::GAMMA - VECTORS_AT, above, below, tag);
        backward_from<L - 1>(block, below, above, tag);
    }
}

// The rate of an element of the flat buffer, in a row block.
__device__ __forceinline__ const Rate& row_rate(int at)
{
    SHARED_FLOATS(shared);
    return reinterpret_cast<const Rate*>(shared + ROW_RATE)[rate_of(at)];
}

// An element's update where it lies, in memory.
__device__ __forceinline__ void update_element(const Job& job, int at, float gradient)
{
    float w = __ldcg(job.params + at), m = 0, v = 0;
    if (MOMENTS > 0) m = __ldcg(job.moment1 + at);
    if (MOMENTS > 1) v = __ldcg(job.moment2 + at);
    apply_rule(w, m, v, gradient, row_rate(at));
    __stcg(job.params + at, w);
    if (MOMENTS > 0) __stcg(job.moment1 + at, m);
    if (MOMENTS > 1) __stcg(job.moment2 + at, v);
}

// Batch norm's vectors and running statistics of a layer of M columns, by the block that owns them.
template <int M>
__device__ __noinline__ void update_norm(int column, int b, int gamma, int beta, int mean, int variance)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
#pragma unroll 1
    for (int e = threadIdx.x; e < 4 * M; e += THREADS_) {
        const int kind = e / M, j = e % M;
        const float* merged = shared + MERGED + column + j;
        if (kind < 3) {  // batch norm takes a bias away again: its gradient is 0
            const float gradient = kind == 0 ? merged[4 * HIDDEN_COLUMNS] : kind == 1 ? merged[5 * HIDDEN_COLUMNS] : 0.0f;
            update_element(job, (kind == 0 ? gamma : kind == 1 ? beta : b) + j, gradient);
        } else {
            const float batch = merged[0] + merged[HIDDEN_COLUMNS] + shared[VECTOR + b - VECTORS_AT + j];
            const float keep = job.momentum, rest = 1 - job.momentum;
            job.running[mean + j] = flushed(keep * job.running[mean + j] + rest * batch);
            job.running[variance + j] = flushed(keep * job.running[variance + j] + rest * merged[3 * HIDDEN_COLUMNS]);
        }
    }
}

template <int L>
__device__ __forceinline__ void update_norms_from(int block)
{
    if constexpr (NORM == 1 && L < LAYERS) {
        using This = Layer<L>;
        if (block == This::OWNER) update_norm<This::M>(This::COLUMN, This::B, This::GAMMA, This::BETA, This::MEAN, This::VAR);
        update_norms_from<L + 1>(block);
    }
}

// Where gamma or beta of column c of the hidden layers from L on lies in the flat buffer; -1 for what fills a layer up.
template <int L>
__device__ __forceinline__ int vector_of(int c, bool beta)
{
    using This = Layer<L>;
    if constexpr (L + 1 < LAYERS)
        if (c >= Layer<L + 1>::COLUMN) return vector_of<L + 1>(c, beta);
    const int j = c - This::COLUMN;
    return j >= This::M ? -1 : (beta ? This::BETA : This::GAMMA) + j;
}

// Layer norm's vectors: the gradient of number i of all gammas and betas is worked out by block i mod ROW_BLOCKS, a
// warp for each, and so is its update.
__device__ __noinline__ void update_layer_norms(int block)
{
    const Job& job = the_job();
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int i = block + (int)threadIdx.x / 32 * ROW_BLOCKS; i < 2 * HIDDEN_COLUMNS; i += THREADS_ / 32 * ROW_BLOCKS) {
        const int c = i < HIDDEN_COLUMNS ? i : i - HIDDEN_COLUMNS, at = vector_of<1>(c, i >= HIDDEN_COLUMNS);
        float sum = 0;
#pragma unroll
        for (int n = 0; n < parts_of(ROW_BLOCKS, 32); ++n)
            if (lane + 32 * n < ROW_BLOCKS) sum += __ldcg(norm_parts(job) + (i64)i * ROW_BLOCKS + lane + 32 * n);
        sum = sum_of_warp(sum);
        if (lane == 0 && at >= 0 && c >= Layer<FROZEN + 1>::COLUMN) update_element(job, at, sum);
    }
}

// The random numbers of this block's units in hidden layer L and above, ahead of their use; a thread for each call.
template <int L>
__device__ __forceinline__ int units_of(int l)
{
    if constexpr (L >= LAYERS - 1) return width(most(1, LAYERS - 1));
    else return l == L ? Layer<L>::M : units_of<L + 1>(l);
}

__device__ __forceinline__ void draw_masks(const Job& job, int block, i64 step)
{
    SHARED_FLOATS(shared);
    u64(*words)[4] = reinterpret_cast<u64(*)[4]>(shared + WORDS);
#pragma unroll 1
    for (int e = threadIdx.x; e < (LAYERS - 1) * DRAWS; e += THREADS_) {
        const int l = 1 + e / DRAWS;
        dropout_of(job, l, step).draw(words[e], (i64)block * R * units_of<1>(l) / 16 + e % DRAWS);
    }
}

// A tile of the later layers: its layer's sizes, where its columns and weights begin, and its corner.
struct Place { int inputs, outputs, column_in, column_out, padded, flat, bias, corner; };

template <int L>
__device__ __forceinline__ Place place_from(int number)
{
    if constexpr (L > LAYERS) {
        return {};
    } else {
        using This = Layer<L>;
        if constexpr (L < LAYERS)
            if (number >= Layer<L + 1>::TILES) return place_from<L + 1>(number);
        const int i = number - This::TILES, k0 = i / This::ACROSS * K2, j0 = i % This::ACROSS * J2;
        return {This::K, This::M, This::COLUMN_BELOW, This::COLUMN, This::PADDED_AT, This::W, This::B, k0 << 16 | j0};
    }
}

// How many tiles are this block's.
__device__ __forceinline__ int tiles_of(int block) { return most(0, (LATER_TILES - block + ROW_BLOCKS - 1) / ROW_BLOCKS); }

__device__ __forceinline__ const Place& place_of(int i)
{
    SHARED_FLOATS(shared);
    return reinterpret_cast<const Place*>(shared + PLACES)[i];
}

// The outputs and dz that the gradient of this block's tile number i is made of, to where the weights were.
__device__ __forceinline__ void stage(const Job& job, int i)
{
    const Place place = place_of(i);
    load_columns<K2>(WEIGHTS, job.hidden + (i64)place.column_in * NP, place.corner >> 16, place.inputs);
    load_columns<J2>(WEIGHTS + K2 * PITCH, job.dz + (i64)place.column_out * NP, place.corner & 0xffff, place.outputs);
}

// The update of the tiles that this block owns, the first one staged; their weights also to the padded copy.
__device__ __forceinline__ double update_tiles(const Job& job, int block)
{
    SHARED_FLOATS(shared);
    const float reg = (float)job.reg, lasso = (float)job.l1;
    double squares = 0;
#pragma unroll 1
    for (int i = 0; i < tiles_of(block); ++i) {
        if (FROZEN && place_of(i).column_out < Layer<FROZEN + 1>::COLUMN) continue;
        if (i) {
            __syncthreads();
            stage(job, i);
            copies_done<0>();
        }
        const Place place = place_of(i);
        const int k0 = place.corner >> 16, j0 = place.corner & 0xffff, pitch = pitch_of(place.outputs);
        const Rate rate = row_rate(place.flat);
        float* own = shared + OWN + i * OWN_FLOATS;
        float* padded = job.padded + place.padded + k0 * pitch + j0;
        gradient<K2, J2>(WEIGHTS, WEIGHTS + K2 * PITCH, [&](int k, int j, float g) {
            if (k0 + k >= place.inputs || j0 + j >= place.outputs) return;
            float* w = own + k * J2 + j;
            if (PENALTY) squares += penalty_of(job, *w);
            apply_to_matrix(*w, w[TILE2_FLOATS], w[2 * TILE2_FLOATS], g, reg, lasso, rate);
            __stcg(padded + k * pitch + j, *w);
        });
        const int bias = OWN + i * OWN_FLOATS + 3 * TILE2_FLOATS, count = least(J2, place.outputs - j0);
        if (k0 == 0 && (NORM != 1 || place.column_out == Layer<LAYERS>::COLUMN)) {
            update_bias<J2>(bias, WEIGHTS + K2 * PITCH, count, row_rate(place.bias));
            __syncthreads();
            for (int j = threadIdx.x; j < count; j += THREADS_) __stcg(job.params + place.bias + j0 + j, shared[bias + j]);
        }
    }
    __syncthreads();
    return squares;
}

// The tiles of this block and their biases from the flat buffers, or back.
template <bool LOAD>
__device__ __forceinline__ void move_tiles(const Job& job, int block)
{
    SHARED_FLOATS(shared);
    if (LOAD) {
        if ((int)threadIdx.x < tiles_of(block))
            reinterpret_cast<Place*>(shared + PLACES)[threadIdx.x] = place_from<2>(block + threadIdx.x * ROW_BLOCKS);
        __syncthreads();
    }
#pragma unroll 1
    for (int i = 0; i < tiles_of(block); ++i) {
        const Place place = place_of(i);
        const int k0 = place.corner >> 16, j0 = place.corner & 0xffff;
        // The last rows of elements, K2 J2 and on, are the bias.
#pragma unroll 1
        for (int e = threadIdx.x; e < TILE2_FLOATS + J2; e += THREADS_) {
            const bool bias = e >= TILE2_FLOATS;
            const int k = k0 + (bias ? 0 : e / J2), j = j0 + e % J2;
            if (k >= place.inputs || j >= place.outputs) continue;
            if (bias && (k0 || (NORM == 1 && place.column_out != Layer<LAYERS>::COLUMN))) continue;
            float* w = shared + OWN + i * OWN_FLOATS + (bias ? 2 * TILE2_FLOATS : 0) + e;
            const int apart = bias ? fours(J2) : TILE2_FLOATS;
            const i64 at = bias ? place.bias + j : place.flat + (i64)k * place.outputs + j;
            move<LOAD>(job, at, w, apart);
            if (LOAD && !bias) __stcg(job.padded + place.padded + k * pitch_of(place.outputs) + j, w[0]);
        }
    }
}

// The loss of step s to the log, by row block 0: its parts in order, and the penalty's.
__device__ __noinline__ void log_loss(int s, i64 slot)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    double* work = reinterpret_cast<double*>(shared + SUMS);
    double part = 0, squares = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < ROW_BLOCKS; i += THREADS_) part += __ldcg(job.loss_parts + s % 2 * ROW_BLOCKS + i);
    const double loss = sum_of_block(part, work) / job.rows;
    if (PENALTY) {
        const double* parts = job.l2_parts + s % 2 * (ROW_BLOCKS + TILE_BLOCKS);
#pragma unroll 1
        for (int i = threadIdx.x; i < ROW_BLOCKS + TILE_BLOCKS; i += THREADS_) squares += __ldcg(parts + i);
        squares = sum_of_block(squares, work);
    }
    if (threadIdx.x == 0 && slot + s >= 0 && slot + s < job.slots)
        job.losses[slot + s] = (float)((float)loss + (L1 ? 1.0 : 0.5 * job.reg) * squares);
}

// All vectors and, layer by layer, all weights, on their way to shared memory: each is waited for when it is needed, so
// that the first layers are worked on while the last ones' weights arrive.
__device__ __forceinline__ void load_vectors(const Job& job)
{
    SHARED_FLOATS(shared);
    const float* vectors = job.params + VECTORS_AT;
#pragma unroll 1
    for (int e = 4 * threadIdx.x; e < VECTOR_FLOATS; e += 4 * THREADS_) copy16(shared + VECTOR + e, vectors + e, true);
    copies_end();
}

template <int L>
__device__ __forceinline__ void load_weights_from(const Job& job)
{
    if constexpr (L <= LAYERS) {
        using This = Layer<L>;
        SHARED_FLOATS(shared);
        const float* padded = job.padded + This::PADDED_AT;
#pragma unroll 1
        for (int e = 4 * threadIdx.x; e < This::K * This::PITCH_; e += 4 * THREADS_)
            copy16(shared + WEIGHTS + This::PADDED_AT + e, padded + e, true);
        copies_end();
        load_weights_from<L + 1>(job);
    }
}

// The running statistics of frozen layers in the place of a batch's; they stay.
template <int L>
__device__ __forceinline__ void load_frozen_statistics_from(const Job& job)
{
    if constexpr (L <= FROZEN) {
        using This = Layer<L>;
        SHARED_FLOATS(shared);
        for (int j = threadIdx.x; j < This::M; j += THREADS_) {
            float* merged = shared + MERGED + This::COLUMN + j;
            merged[0] = job.running[This::MEAN + j] - job.params[This::B + j];  // z lacks the bias
            merged[HIDDEN_COLUMNS] = 0;
            merged[2 * HIDDEN_COLUMNS] = 1 / sqrtf(job.running[This::VAR + j] + job.eps);
        }
        load_frozen_statistics_from<L + 1>(job);
    }
}

// How many steps were made: all, or those before one whose loss is not finite.
__device__ __forceinline__ int row_block(int block)
{
    const Job& job = the_job();
    SHARED_FLOATS(shared);
    Rate* rates = reinterpret_cast<Rate*>(shared + ROW_RATE);
    const i64 cursor = job.counters[0], slot = job.counters[1], step = *job.step;
    for (int e = threadIdx.x; e < 2 * WIDEST * R; e += THREADS_) shared[DZ + e] = 0;  // what pads its columns, too
    if constexpr (NORM == 1) load_frozen_statistics_from<1>(job);
    move_tiles<true>(job, block);
    if constexpr (NORM == 1) clear_exchange(job, block);
    arrive(job.sync + WEIGHTS_DONE);
    int s = 0;
#pragma unroll 1
    for (; s < job.steps; ++s) {
        const unsigned tag = tag_of(s);
        MARK(8);
        // What needs no weights, while the other blocks finish theirs.
        if (job.threshold != 65536) draw_masks(job, block, step + s);
        load_targets(job, block, cursor + (i64)s * job.rows + block * R);
        for (int g = THREADS_ - 1 - (int)threadIdx.x; g < RATES; g += THREADS_) set_rate(rates, job, step, s, g);
        await(job.sync + WEIGHTS_DONE, (unsigned)((s + 1) * ROW_BLOCKS));
        MARK(9);
        load_vectors(job);
        load_weights_from<2>(job);
        MARK(10);
        await(job.sync + TILES_DONE, (unsigned)((s + 1) * TILE_BLOCKS));
        MARK(11);
        first_layer(job, block, step + s, tag);
        MARK(13);
        forward_from<2>(block, step + s, tag);
        MARK(14);
        if constexpr (LOSS == SOFTMAX && !SMOOTHING && !WEIGHTED) softmax_of_labels(job, block);
        else loss_of_targets(job, block);
        MARK(15);
        backward_from<LAYERS - 1>(block, DZ, DZ_BELOW, tag);
        MARK(16);
        arrive(job.sync + ROWS_DONE);
        MARK(17);
        write_loss(job, block, s);
        if (block == 0 && s) log_loss(s - 1, slot);  // of which all parts are known
        await(job.sync + ROWS_DONE, (unsigned)((s + 1) * ROW_BLOCKS));
        MARK(18);
        const unsigned stop = load_relaxed(job.sync + STOP);
        if (tiles_of(block)) stage(job, 0);
        copies_done<0>();
        MARK(19);
        if (stop) break;
        update_norms_from<FROZEN + 1>(block);
        if constexpr (NORM == 2) update_layer_norms(block);
        MARK(20);
        const double squares = update_tiles(job, block);
        if (PENALTY) {
            const double total = sum_of_block(squares, reinterpret_cast<double*>(shared + SUMS));
            if (threadIdx.x == 0) __stcg(job.l2_parts + s % 2 * (ROW_BLOCKS + TILE_BLOCKS) + block, total);
        }
        MARK(21);
        arrive(job.sync + WEIGHTS_DONE);
        MARK(22);
    }
    const bool stopped = s < job.steps;
    if (stopped) arrive(job.sync + WEIGHTS_DONE);
    if (block == 0) {
        const int made = stopped ? s + 1 : s;
        await(job.sync + WEIGHTS_DONE, (unsigned)((made + 1) * ROW_BLOCKS));
        if (PENALTY) await(job.sync + TILES_DONE, (unsigned)((made + 1) * TILE_BLOCKS));
        log_loss(made - 1, slot);
    }
    for (int i = 0; stopped && i < tiles_of(block); ++i)
        if (place_of(i).column_out == Layer<LAYERS>::COLUMN) spoil(OWN + i * OWN_FLOATS + 3 * TILE2_FLOATS, J2);
    move_tiles<false>(job, block);
    return s;
}

KERNEL(THREADS_) train_steps(const Job* given, const double* rates, int rate_count, int steps)
{
    SHARED_FLOATS(shared);
    if (threadIdx.x == 0) {
        Job* job = reinterpret_cast<Job*>(shared);
        *job = *given;
        job->steps = steps, job->rates = rates, job->rate_count = rate_count;
    }
    __syncthreads();
    const Job& job = the_job();
    const int block = blockIdx.x;
    int made = 0;
    if (block < ROW_BLOCKS) made = row_block(block);
    else tile_block(block - ROW_BLOCKS);
    if (block == 0) {
        __syncthreads();
        if (threadIdx.x == 0) {
            // After a loss that is not finite come others, so that the log keeps pace with whoever asked for the steps.
            const i64 slot = job.counters[1];
            for (i64 i = slot + made + 1; i < slot + job.steps && i < job.slots; ++i) job.losses[i] = __int_as_float(0x7fc00000);
            // Every block has read these before it arrived for the first time.
            job.counters[0] += (i64)job.steps * job.rows;
            job.counters[1] += job.steps;
            *job.step += made;
        }
    }
    leave(job.sync, SYNC_WORDS, job.sync + LEAVING);
}
