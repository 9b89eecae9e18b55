// softmax(q kT) v of 16-bit elements by Hopper's warpgroup products (wgmma), for heads of 64 without a causal mask, as `attention` of attention.cu.
// A block is one warpgroup with 64 queries (two that share keys and values were slower: 393 instead of 326 us for 256 images of ViT-L/14 on an H200); keys and
// values go by tiles of 64 through a ring in shared memory, rows of 128 bytes with the 128-byte swizzle.
#define HEAD 64
#define KEYS 64
#define STAGES 3
#define TILE (KEYS * HEAD * 2)  // bytes of a tile of keys or of values

#if ELEMENT == 2
#define KIND "bf16"
#else
#define KIND "f16"
#endif

// d = q k^T (+ d) of 16 columns: 64 queries by 64 keys; the matrix of k is row by row in shared memory.
__device__ __forceinline__ void multiply_keys(float* d, const u32* a, u64 b, int add) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." KIND "." KIND " {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n"
        "}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// The same by 16 keys.
__device__ __forceinline__ void multiply_few_keys(float* d, const u32* a, u64 b, int add) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %13, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32." KIND "." KIND " {"
        "%0, %1, %2, %3, %4, %5, %6, %7"
        "}, {%8, %9, %10, %11}, %12, p, 1, 1, 0;\n"
        "}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// d = p v (+ d) of 16 keys: 64 queries by 64 columns; the rows of v are keys, so it is read transposed.
__device__ __forceinline__ void multiply_values(float* d, const u32* a, u64 b, int add) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." KIND "." KIND " {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n"
        "}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// Where a matrix is in shared memory: groups of 8 rows of 128 bytes, 1,024 bytes apart, with the 128-byte swizzle.
__device__ __forceinline__ u64 describe(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | ((u64)64 << 16) | ((u64)64 << 32) | ((u64)1 << 62);
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <int N>
struct Count { static constexpr int value = N; };

// Grid (tiles of 64 queries, heads, sequences), blocks of 128 threads, shared memory 2 * STAGES * TILE + 1024 bytes. Arguments are those of `attention`;
// `causal` must be 0.
extern "C" __global__ void __launch_bounds__(128, 4) attention_hopper(const element* q, const element* k, const element* v, element* out, const int* q_bounds,
                                                                      const int* k_bounds, int q_length, int k_length, int q_stride, int kv_stride,
                                                                      int out_stride, int causal) {
#if __CUDA_ARCH__ == 900
    extern __shared__ u8 memory[];
    u32 base = ((u32)__cvta_generic_to_shared(memory) + 1023) & ~1023u;
    int sequence = blockIdx.z, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int q_first = q_bounds ? q_bounds[sequence] : sequence * q_length, q_count = q_bounds ? q_bounds[sequence + 1] - q_first : q_length;
    int k_first = k_bounds ? k_bounds[sequence] : sequence * k_length, k_count = k_bounds ? k_bounds[sequence + 1] - k_first : k_length;
    if ((int)blockIdx.x * 64 >= q_count) return;
    const element* key_rows = k + (long long)k_first * kv_stride + head * HEAD;
    const element* value_rows = v + (long long)k_first * kv_stride + head * HEAD;
    int tiles = (k_count + KEYS - 1) / KEYS;

    // Keys of a tile that are computed: all, or 16 where no more are left.
    auto computed = [&](int tile) { return k_count - tile * KEYS > 16 ? KEYS : 16; };
    auto fetch = [&](int tile) {
        if (tile < tiles) {
            u32 keys = base + tile % STAGES * 2 * TILE, values = keys + TILE;
            int rows = computed(tile);
            for (int i = threadIdx.x; i < rows * 8; i += 128) {
                int row = i / 8, chunk = i % 8, key = tile * KEYS + row;
                bool valid = key < k_count;
                long long at = valid ? (long long)key * kv_stride + chunk * 8 : 0;
                u32 to = row * 128 + (chunk ^ (row & 7)) * 16;
                int bytes = valid ? 16 : 0;
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(keys + to), "l"(key_rows + at), "r"(bytes));
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(values + to), "l"(value_rows + at), "r"(bytes));
            }
        }
        asm volatile("cp.async.commit_group;");
    };
#pragma unroll
    for (int tile = 0; tile < STAGES; tile++) fetch(tile);

    int row = blockIdx.x * 64 + warp * 16 + lane / 4;
    u32 queries[HEAD / 16][4];
    {
        const element* from = q + (long long)q_first * q_stride + head * HEAD + lane % 4 * 2;
        const u32* from0 = (const u32*)(from + (long long)min(row, q_count - 1) * q_stride);
        const u32* from1 = (const u32*)(from + (long long)min(row + 8, q_count - 1) * q_stride);
#pragma unroll
        for (int i = 0; i < HEAD / 16; i++) {
            queries[i][0] = from0[i * 8];
            queries[i][1] = from1[i * 8];
            queries[i][2] = from0[i * 8 + 4];
            queries[i][3] = from1[i * 8 + 4];
        }
    }
    float sum[HEAD / 2];
#pragma unroll
    for (int i = 0; i < HEAD / 2; i++) sum[i] = 0.0f;
    float largest[2] = {-1e30f, -1e30f}, total[2] = {0.0f, 0.0f};
    const float LOG2E = 1.4426950408889634f;

    // Scores of `count` keys to weights; sums so far are scaled to the new largest score.
    auto weigh = [&](float* score, int tile, auto count) {
        if (tile * KEYS + count.value > k_count) {
#pragma unroll
            for (int n = 0; n < count.value / 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (tile * KEYS + n * 8 + lane % 4 * 2 + j % 2 >= k_count) score[n * 4 + j] = -1e30f;
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float above = largest[r];
#pragma unroll
            for (int n = 0; n < count.value / 8; n++) above = fmaxf(above, fmaxf(score[n * 4 + 2 * r], score[n * 4 + 2 * r + 1]));
            above = fmaxf(above, __shfl_xor_sync(0xffffffffu, above, 1));
            above = fmaxf(above, __shfl_xor_sync(0xffffffffu, above, 2));
            float shrink = exp2_fast((largest[r] - above) * LOG2E), part = 0.0f, offset = above * LOG2E;
            largest[r] = above;
#pragma unroll
            for (int n = 0; n < count.value / 8; n++)
#pragma unroll
                for (int j = 2 * r; j < 2 * r + 2; j++) {
                    float p = exp2_fast(score[n * 4 + j] * LOG2E - offset);
                    score[n * 4 + j] = p;
                    part += p;
                }
            total[r] = total[r] * shrink + part;
#pragma unroll
            for (int i = 0; i < HEAD / 8; i++) {
                sum[i * 4 + 2 * r] *= shrink;
                sum[i * 4 + 2 * r + 1] *= shrink;
            }
        }
    };
    auto process = [&](int tile, auto count) {
        u32 keys = base + tile % STAGES * 2 * TILE;
        u64 key_matrix = describe(keys), value_matrix = describe(keys + TILE);
        float score[count.value / 2];
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int i = 0; i < HEAD / 16; i++) {
            if constexpr (decltype(count)::value == KEYS)
                multiply_keys(score, queries[i], key_matrix + i * 2, i > 0);
            else
                multiply_few_keys(score, queries[i], key_matrix + i * 2, i > 0);
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        weigh(score, tile, count);
        u32 weights[count.value / 16][4];
#pragma unroll
        for (int i = 0; i < count.value / 16; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) weights[i][j] = pack2(score[i * 8 + j * 2], score[i * 8 + j * 2 + 1]);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int i = 0; i < count.value / 16; i++) multiply_values(sum, weights[i], value_matrix + i * 128, 1);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    };

    for (int tile = 0; tile < tiles; tile++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1));
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        if (computed(tile) == KEYS)
            process(tile, Count<KEYS>());
        else
            process(tile, Count<16>());
        __syncthreads();
        fetch(tile + STAGES);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float all = total[r];
        all += __shfl_xor_sync(0xffffffffu, all, 1);
        all += __shfl_xor_sync(0xffffffffu, all, 2);
        if (row + r * 8 >= q_count) continue;
        float scale = 1.0f / all;
        u32* to = (u32*)(out + (long long)(q_first + row + r * 8) * out_stride + head * HEAD + lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++) to[i * 4] = pack2(sum[i * 4 + 2 * r] * scale, sum[i * 4 + 2 * r + 1] * scale);
    }
#endif
}
