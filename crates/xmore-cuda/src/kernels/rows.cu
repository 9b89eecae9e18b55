// Work on rows: layer norm, activation, quantization to e4m3 with a scale for each row, copies, unit length, means.
// ACTIVATION: the number of the activation, where the compiler is to know it; else the argument `kind` says it.
// MAX_VECTORS: groups of 8 elements that a thread of a warp holds; a row has at most 256 * MAX_VECTORS elements.
#ifndef MAX_VECTORS
#define MAX_VECTORS 4
#endif
#ifndef QUANTIZE
#define QUANTIZE 0
#endif

#ifndef ACTIVATION
#define ACTIVATION kind
#endif

#define E4M3_MAX 448.0f

// Writes 8 values of a row as elements, or as e4m3 by the row's factor.
__device__ __forceinline__ void store_row8(void* out, long long at, const float* v, float factor) {
#if QUANTIZE
    uint2 packed;
    packed.x = pack_e4m3(v[0] * factor, v[1] * factor, v[2] * factor, v[3] * factor);
    packed.y = pack_e4m3(v[4] * factor, v[5] * factor, v[6] * factor, v[7] * factor);
    *(uint2*)((u8*)out + at) = packed;
#else
    store8((element*)out + at, v);
#endif
}

// 8 floats by two loads.
__device__ __forceinline__ void load_floats(const float* p, float* v) {
    float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}

// A warp for each row; width is a multiple of 8 and at most 256 * MAX_VECTORS. `scales` (with QUANTIZE) gets what a quantized row is multiplied by.
extern "C" __global__ void layer_norm(const element* x, const float* weight, const float* bias, void* out, float* scales, int rows, int width,
                                      float epsilon) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const element* from = x + (long long)row * width;
    float v[MAX_VECTORS][8];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < MAX_VECTORS; i++) {
        int at = (i * 32 + lane) * 8;
        if (at < width) {
            load8(from + at, v[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += v[i][j];
        }
    }
    float mean = warp_sum(sum) / width, square = 0.0f;
#pragma unroll
    for (int i = 0; i < MAX_VECTORS; i++) {
        if ((i * 32 + lane) * 8 < width) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float d = v[i][j] - mean;
                square += d * d;
            }
        }
    }
    float scale = 1.0f / sqrtf(warp_sum(square) / width + epsilon), largest = 0.0f;
#pragma unroll
    for (int i = 0; i < MAX_VECTORS; i++) {
        int at = (i * 32 + lane) * 8;
        if (at < width) {
            float w[8], b[8];
            load_floats(weight + at, w);
            load_floats(bias + at, b);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                v[i][j] = (v[i][j] - mean) * scale * w[j] + b[j];
                largest = fmaxf(largest, fabsf(v[i][j]));
            }
        }
    }
    float factor = 1.0f;
#if QUANTIZE
    largest = warp_max(largest);
    factor = largest > 0.0f ? E4M3_MAX / largest : 0.0f;
    if (lane == 0) scales[row] = largest / E4M3_MAX;
#endif
#pragma unroll
    for (int i = 0; i < MAX_VECTORS; i++) {
        int at = (i * 32 + lane) * 8;
        if (at < width) store_row8(out, (long long)row * width + at, v[i], factor);
    }
}

// The same for any width: a block for each row, 256 threads.
extern "C" __global__ void layer_norm_any(const element* x, const float* weight, const float* bias, element* out, int rows, int width,
                                          float epsilon) {
    __shared__ float parts[8];
    const element* from = x + (long long)blockIdx.x * width;
    element* to = out + (long long)blockIdx.x * width;
    float sums[2] = {0.0f, 0.0f}, mean = 0.0f;
    for (int pass = 0; pass < 2; pass++) {
        float sum = 0.0f;
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            float v = load1(from + i);
            sum += pass == 0 ? v : (v - mean) * (v - mean);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
        __syncthreads();
        for (int w = 0; w < blockDim.x / 32; w++) sums[pass] += parts[w];
        __syncthreads();
        mean = sums[0] / width;
    }
    float scale = 1.0f / sqrtf(sums[1] / width + epsilon);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        store1(to + i, (load1(from + i) - mean) * scale * weight[i] + bias[i]);
    }
}

// Activation of `count` elements in place: 32 for each of a block's 256 threads, in four groups of 8 that are read before the first is written.
extern "C" __global__ void activation(element* x, long long count, int kind) {
    long long first = (long long)blockIdx.x * 256 * 32 + threadIdx.x * 8;
    float v[4][8];
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (first + i * 2048 + 8 <= count) load8(x + first + i * 2048, v[i]);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        long long at = first + i * 2048;
        if (at + 8 <= count) {
#pragma unroll
            for (int j = 0; j < 8; j++) v[i][j] = activate(v[i][j], ACTIVATION);
            store8(x + at, v[i]);
        } else {
            for (; at < count && at < first + i * 2048 + 8; at++) store1(x + at, activate(load1(x + at), ACTIVATION));
        }
    }
}

// Activation (0 for none) and quantization to e4m3: a block of 128 threads for each row; width is a multiple of 8, at most 1024 * MAX_VECTORS.
extern "C" __global__ void quantize(const element* x, u8* out, float* scales, int width, int kind) {
    __shared__ float parts[4];
    const element* from = x + (long long)blockIdx.x * width;
    float v[MAX_VECTORS][8];
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < MAX_VECTORS; i++) {
        int at = (i * 128 + threadIdx.x) * 8;
        if (at < width) {
            load8(from + at, v[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                v[i][j] = activate(v[i][j], ACTIVATION);
                largest = fmaxf(largest, fabsf(v[i][j]));
            }
        }
    }
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = largest;
    __syncthreads();
    largest = fmaxf(fmaxf(parts[0], parts[1]), fmaxf(parts[2], parts[3]));
    float factor = largest > 0.0f ? E4M3_MAX / largest : 0.0f;
    if (threadIdx.x == 0) scales[blockIdx.x] = largest / E4M3_MAX;
#pragma unroll
    for (int i = 0; i < MAX_VECTORS; i++) {
        int at = (i * 128 + threadIdx.x) * 8;
        if (at < width) {
            uint2 packed;
            packed.x = pack_e4m3(v[i][0] * factor, v[i][1] * factor, v[i][2] * factor, v[i][3] * factor);
            packed.y = pack_e4m3(v[i][4] * factor, v[i][5] * factor, v[i][6] * factor, v[i][7] * factor);
            *(uint2*)(out + (long long)blockIdx.x * width + at) = packed;
        }
    }
}

// Copies a row of each sequence: row starts[n], or n * step where there are no starts.
extern "C" __global__ void pick_rows(const element* x, const int* wanted, int step, element* out, int width) {
    long long from = (long long)(wanted ? wanted[blockIdx.x] : blockIdx.x * step) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[(long long)blockIdx.x * width + i] = x[from + i];
}

// Rows of unit length in f32, a warp for each; a row of zeros stays one.
extern "C" __global__ void unit_rows(const element* x, float* out, int rows, int width) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0.0f;
    for (int i = lane; i < width; i += 32) {
        float v = load1(x + (long long)row * width + i);
        sum += v * v;
    }
    float norm = sqrtf(warp_sum(sum));
    float scale = norm > 0.0f ? 1.0f / norm : 0.0f;
    for (int i = lane; i < width; i += 32) out[(long long)row * width + i] = load1(x + (long long)row * width + i) * scale;
}

// Elements to f32.
extern "C" __global__ void to_f32_rows(const element* x, float* out, long long count) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) out[at] = load1(x + at);
}

// f32 to elements.
extern "C" __global__ void from_f32_rows(const float* x, element* out, long long count) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) store1(out + at, x[at]);
}

// Bytes of three channels to elements by a table [3][256].
extern "C" __global__ void from_bytes(const u8* x, const float* table, element* out, long long count) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) store1(out + at, table[at % 3 * 256 + x[at]]);
}

// Mean of the rows of each range (bounds[n], bounds[n + 1]), or of `step` rows each where there are no bounds; `unit`: to unit length.
extern "C" __global__ void mean_rows(const element* x, const int* bounds, int step, element* out, int width, int unit) {
    extern __shared__ float sums[];
    __shared__ float parts[32];
    int first = bounds ? bounds[blockIdx.x] : blockIdx.x * step, end = bounds ? bounds[blockIdx.x + 1] : first + step;
    float square = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0.0f;
        for (int row = first; row < end; row++) sum += load1(x + (long long)row * width + i);
        sum /= (end - first);
        sums[i] = sum;
        square += sum * sum;
    }
    square = warp_sum(square);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = square;
    __syncthreads();
    float total = 0.0f;
    for (int w = 0; w < blockDim.x / 32; w++) total += parts[w];
    float scale = unit ? (total > 0.0f ? 1.0f / sqrtf(total) : 0.0f) : 1.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) store1(out + (long long)blockIdx.x * width + i, sums[i] * scale);
}
