// Losses with their gradients, the functions of fcnet.functional.loss; the L2 penalty; accuracy.
//
// Scores s, dscores d and rows of targets t are (rows, classes), labels y are (rows). `lanes` threads share a row.
// The loss is summed in double: by one block if there is only one, else each leaves its part to `mean_of_parts`.
// A label outside 0..classes-1 is a row without a right class, as in the reference.

// A row of a batch, as a thread sees it.
struct Row {
    bool mine;  // whether there is such a row; where not, the thread computes on another and writes nothing
    const real* s;
    real* d;
    i64 label;
    bool known;

    __device__ __forceinline__ Row(const real* scores, real* dscores, const i64* y, int top, int rows, int classes, int lanes)
    {
        const i64 n = top + threadIdx.x / lanes;
        mine = n < rows;
        const i64 row = mine ? n : top;
        s = scores + row * classes, d = dscores + row * classes;
        label = y[row];
        known = label >= 0 && label < classes;
    }
};

// loss = total / rows, summed over the block, or the block's part of it; `shared`: a double for each warp.
__device__ __forceinline__ void give_mean(real* loss, double* parts, double total, double* shared, int rows)
{
    total = sum_of_lanes(total, 32);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    total = sum_of_lanes(threadIdx.x < blockDim.x / 32 ? shared[threadIdx.x] : 0.0, 32);
    if (threadIdx.x != 0) return;
    if (gridDim.x == 1) *loss = total / rows;
    else parts[blockIdx.x] = total;
}

// p = exp(s - peak) / sum, peak = max_c s, sum = sum_c exp(s - peak); loss = mean(log(sum) - (s_y - peak)) = mean(-log p_y)
// d = (p - [c = y]) / rows
KERNEL(1024) softmax_loss(
    real* loss, double* parts, real* dscores, const real* scores, const i64* y, int rows, int classes, int lanes)
{
    __shared__ double shared[32];
    double total = 0;
    const int lane = threadIdx.x % lanes, at_once = blockDim.x / lanes;
    for (int top = blockIdx.x * at_once; top < rows; top += gridDim.x * at_once) {
        const Row row(scores, dscores, y, top, rows, classes, lanes);
        const real* s = row.s;
        real peak = s[0];
        for (int c = lane; c < classes; c += lanes) peak = s[c] > peak ? s[c] : peak;
        peak = peak_of_lanes(peak, lanes);
        real sum = 0;
        for (int c = lane; c < classes; c += lanes) sum += exp(s[c] - peak);
        sum = sum_of_lanes(sum, lanes);
        if (!row.mine) continue;
        const real scale = 1 / (sum * rows);
#pragma unroll 2  // four times, as by itself, would not fit into the registers
        for (int c = lane; c < classes; c += lanes) {
            row.d[c] = exp(s[c] - peak) * scale - (c == row.label ? (real)1 / rows : (real)0);
        }
        if (lane != 0) continue;
        total += log(sum);
        if (row.known) total -= s[row.label] - peak;
    }
    give_mean(loss, parts, total, shared, rows);
}

// loss = mean(sum_{c != y} max(0, s_c - s_y + 1)); d = 1 / rows where such a margin is positive, minus their sum at y
KERNEL(1024) svm_loss(
    real* loss, double* parts, real* dscores, const real* scores, const i64* y, int rows, int classes, int lanes)
{
    __shared__ double shared[32];
    double total = 0;
    const int lane = threadIdx.x % lanes, at_once = blockDim.x / lanes;
    for (int top = blockIdx.x * at_once; top < rows; top += gridDim.x * at_once) {
        const Row row(scores, dscores, y, top, rows, classes, lanes);
        const real* s = row.s;
        const real right = row.known ? s[row.label] : (real)0;
        int violations = 0;
        for (int c = lane; c < classes; c += lanes) {
            const real margin = s[c] - right + 1;
            const bool violated = !(margin <= 0) && c != row.label;  // a NaN shows in the loss
            violations += violated;
            if (!row.mine) continue;
            if (violated) total += margin;
            row.d[c] = violated ? (real)1 / rows : (real)0;
        }
        violations = sum_of_lanes(violations, lanes);
        if (row.mine && row.known && row.label % lanes == lane) row.d[row.label] = -(real)violations / rows;
    }
    give_mean(loss, parts, total, shared, rows);
}

enum { SOFTMAX, SVM, MSE, BCE, POISSON };

// Any loss, of labels or of rows of targets t (the other is null), with a weight for each row if there are weights.
//
// loss = sum_n weight own / rows, d = weight slope / rows, with for each class or output c
//   SOFTMAX   own = -t log p, in two parts: -t (s - peak), and log(sum) once a row; slope = p - t
//   SVM       as svm_loss
//   MSE       own = (s - t)^2 / classes; slope = 2 (s - t) / classes
//   BCE       own = (max(s, 0) - s t + log(1 + exp(-|s|))) / classes; slope = (sigmoid(s) - t) / classes
template <int LOSS>
__device__ __forceinline__ void loss_of_targets(
    real* loss, double* parts, real* dscores, const real* scores, const real* targets, const i64* labels,
    const real* weights, int rows, int classes, int lanes)
{
    __shared__ double shared[32];
    double total = 0;
    const int lane = threadIdx.x % lanes, at_once = blockDim.x / lanes;
    for (int top = blockIdx.x * at_once; top < rows; top += gridDim.x * at_once) {
        const int n = top + threadIdx.x / lanes;
        const bool mine = n < rows;
        const i64 row = mine ? n : top;
        const real* s = scores + row * classes;
        real* d = dscores + row * classes;
        const i64 label = labels ? labels[row] : -1;
        const bool known = label >= 0 && label < classes;
        const real weight = weights ? weights[row] : (real)1, share = weight / rows;
        real peak = s[0], sum = 0, right = known ? s[label] : (real)0;
        int violations = 0;
        if (LOSS == SOFTMAX) {
            for (int c = lane; c < classes; c += lanes) peak = s[c] > peak ? s[c] : peak;
            peak = peak_of_lanes(peak, lanes);
            for (int c = lane; c < classes; c += lanes) sum += exp(s[c] - peak);
            sum = sum_of_lanes(sum, lanes);
            if (mine && lane == 0) total += (double)weight * log(sum);
        }
        for (int c = lane; c < classes; c += lanes) {
            const real target = targets ? targets[row * classes + c] : c == label ? (real)1 : (real)0;
            double own = 0;
            real slope = 0;
            if (LOSS == SOFTMAX) {
                own = target != 0 ? -(double)target * (s[c] - peak) : 0.0;  // no share, no loss: also at -inf
                slope = exp(s[c] - peak) / sum - target;
            }
            if (LOSS == SVM) {
                const real margin = s[c] - right + 1;
                const bool violated = !(margin <= 0) && c != label;  // a NaN shows in the loss
                own = violated ? margin : (real)0;
                slope = violated;
                violations += violated;
            }
            if (LOSS == MSE) {
                const real error = s[c] - target;
                own = (double)error * error / classes;
                slope = 2 * error / classes;
            }
            if (LOSS == BCE) {
                own = (double)((s[c] > 0 ? s[c] : (real)0) - s[c] * target + log1p(exp(-fabs(s[c])))) / classes;
                slope = (1 / (1 + exp(-s[c])) - target) / classes;
            }
            if (LOSS == POISSON) {
                const real mean = exp(s[c]), least = (target > 0 ? target * log(target) : (real)0) - target;
                own = (double)(mean - target * s[c] + least) / classes;
                slope = (mean - target) / classes;
            }
            if (!mine) continue;
            total += weight * own;
            d[c] = slope * share;
        }
        if (LOSS != SVM) continue;
        violations = sum_of_lanes(violations, lanes);
        if (mine && known && label % lanes == lane) d[label] = -(violations * share);
    }
    give_mean(loss, parts, total, shared, rows);
}

#define TARGETS_PARAMETERS \
    real *loss, double *parts, real *dscores, const real *scores, const real *targets, const i64 *labels, \
        const real *weights, int rows, int classes, int lanes
#define TARGETS loss, parts, dscores, scores, targets, labels, weights, rows, classes, lanes

KERNEL(1024) softmax_of_targets(TARGETS_PARAMETERS) { loss_of_targets<SOFTMAX>(TARGETS); }
KERNEL(1024) svm_of_targets(TARGETS_PARAMETERS) { loss_of_targets<SVM>(TARGETS); }
KERNEL(1024) mse_of_targets(TARGETS_PARAMETERS) { loss_of_targets<MSE>(TARGETS); }
KERNEL(1024) bce_of_targets(TARGETS_PARAMETERS) { loss_of_targets<BCE>(TARGETS); }
KERNEL(1024) poisson_of_targets(TARGETS_PARAMETERS) { loss_of_targets<POISSON>(TARGETS); }

// targets (rows, classes) = keep at the label + spread everywhere.
KERNEL(256) smooth_labels(real* targets, const i64* y, i64 size, int classes, real keep, real spread)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) targets[i] = i % classes == y[i / classes] ? add(keep, spread) : spread;
}

KERNEL(256) mean_of_parts(real* loss, const double* parts, int count, int rows)
{
    __shared__ double shared[256];
    double total = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) total += parts[i];
    total = sum_of_block(total, shared);
    if (threadIdx.x == 0) *loss = total / rows;
}

// How many rows have their highest score where the label is: the first of equal ones, and a NaN before all numbers.
KERNEL(1024) right_classes(i64* count, const real* scores, const i64* y, int rows, int classes)
{
    __shared__ int shared[1024];
    int right = 0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        const real* s = scores + (i64)row * classes;
        int best = 0;
        for (int c = 1; c < classes; ++c)
            if (s[best] == s[best] && !(s[c] <= s[best])) best = c;
        right += best == y[row];
    }
    right = sum_of_block(right, shared);
    if (threadIdx.x == 0) *count = right;
}

// loss += 0.5 reg sum(w^2), dw += reg w: sums of fixed parts, one part a block, then added by `l2_total`.
KERNEL(256) l2_parts(double* parts, real* dw, const real* w, i64 size, real reg)
{
    __shared__ double shared[256];
    double sum = 0;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += (i64)gridDim.x * blockDim.x) {
        dw[i] += reg * w[i];
        sum += (double)w[i] * w[i];
    }
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

KERNEL(256) l2_total(real* loss, const double* parts, int count, real reg)
{
    __shared__ double shared[256];
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0) *loss += 0.5 * reg * sum;
}
