// softmax(q kT) v in 32-bit floats, for any width of a head up to 256 and any element: a warp for each query and head, keys across its threads.
#define MAX_PER_THREAD 8

// As `attention` of attention.cu, with `head_width` instead of HEAD and grid (queries of the longest sequence / warps, heads, sequences). Shared memory: a
// query and its weights for each warp, (head_width + longest) floats.
extern "C" __global__ void attention_any(const element* q, const element* k, const element* v, element* out, const int* q_bounds, const int* k_bounds,
                                         int q_length, int k_length, int q_stride, int kv_stride, int out_stride, int causal, int head_width,
                                         int longest) {
    extern __shared__ float memory[];
    int sequence = blockIdx.z, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int q_first = q_bounds ? q_bounds[sequence] : sequence * q_length, q_count = q_bounds ? q_bounds[sequence + 1] - q_first : q_length;
    int k_first = k_bounds ? k_bounds[sequence] : sequence * k_length, k_count = k_bounds ? k_bounds[sequence + 1] - k_first : k_length;
    int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= q_count) return;
    float* query = memory + warp * (head_width + longest);
    float* weights = query + head_width;
    const element* from = q + (long long)(q_first + row) * q_stride + head * head_width;
    for (int i = lane; i < head_width; i += 32) query[i] = load1(from + i);
    __syncwarp();
    int seen = causal ? min(k_count, row + 1) : k_count;
    float largest = -1e30f;
    for (int key = lane; key < seen; key += 32) {
        const element* at = k + (long long)(k_first + key) * kv_stride + head * head_width;
        float s = 0.0f;
        for (int i = 0; i < head_width; i++) s += query[i] * load1(at + i);
        weights[key] = s;
        largest = fmaxf(largest, s);
    }
    largest = warp_max(largest);
    float total = 0.0f;
    for (int key = lane; key < seen; key += 32) {
        float p = expf(weights[key] - largest);
        weights[key] = p;
        total += p;
    }
    total = warp_sum(total);
    __syncwarp();
    float sums[MAX_PER_THREAD];
    for (int i = 0; i < MAX_PER_THREAD; i++) sums[i] = 0.0f;
    for (int key = 0; key < seen; key++) {
        const element* at = v + (long long)(k_first + key) * kv_stride + head * head_width;
        float p = weights[key];
#pragma unroll
        for (int i = 0; i < MAX_PER_THREAD; i++) {
            if (i * 32 + lane < head_width) sums[i] += p * load1(at + i * 32 + lane);
        }
    }
    element* to = out + (long long)(q_first + row) * out_stride + head * head_width;
#pragma unroll
    for (int i = 0; i < MAX_PER_THREAD; i++) {
        if (i * 32 + lane < head_width) store1(to + i * 32 + lane, sums[i] / total);
    }
}
