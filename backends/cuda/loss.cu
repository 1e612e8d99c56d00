// Losses with their gradients, of labels: the functions of fcnet.functional.loss. One block; a thread takes whole rows.
// The loss is summed in double. A label outside 0..classes-1 is a row without a right class, as in the reference.

KERNEL(1024) softmax_loss(
    real* loss, real* dscores, const real* scores, const i64* y, int rows, int classes)
{
    __shared__ double shared[1024];
    double total = 0;
    for (int n = threadIdx.x; n < rows; n += blockDim.x) {
        const real* s = scores + (i64)n * classes;
        real* d = dscores + (i64)n * classes;
        real peak = s[0];
        for (int c = 1; c < classes; ++c) peak = s[c] > peak ? s[c] : peak;
        real sum = 0;
        for (int c = 0; c < classes; ++c) sum += d[c] = exp(s[c] - peak);
        const real scale = 1 / (sum * rows);
        for (int c = 0; c < classes; ++c) d[c] *= scale;
        total += log(sum);
        if (y[n] >= 0 && y[n] < classes) {
            total -= s[y[n]] - peak;
            d[y[n]] -= (real)1 / rows;
        }
    }
    total = sum_of_block(total, shared);
    if (threadIdx.x == 0) *loss = total / rows;
}

KERNEL(1024) svm_loss(real* loss, real* dscores, const real* scores, const i64* y, int rows, int classes)
{
    __shared__ double shared[1024];
    double total = 0;
    for (int n = threadIdx.x; n < rows; n += blockDim.x) {
        const real* s = scores + (i64)n * classes;
        real* d = dscores + (i64)n * classes;
        const bool known = y[n] >= 0 && y[n] < classes;
        const real right = known ? s[y[n]] : (real)0;
        int violations = 0;
        for (int c = 0; c < classes; ++c) {
            const real margin = s[c] - right + 1;
            const bool violated = !(margin <= 0) && !(known && c == y[n]);  // a NaN shows in the loss
            if (violated) total += margin;
            d[c] = violated ? (real)1 / rows : (real)0;
            violations += violated;
        }
        if (known) d[y[n]] = -(real)violations / rows;
    }
    total = sum_of_block(total, shared);
    if (threadIdx.x == 0) *loss = total / rows;
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
