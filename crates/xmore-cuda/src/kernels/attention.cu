// softmax(q kT) v of 16-bit elements by tensor cores (mma.m16n8k16), with the running softmax of FlashAttention-2 (arXiv 2307.08691).
// HEAD: width of a head, a multiple of 16. A warp has TILES times 16 queries; a block's warps share the keys and
// values, 64 at a time in shared memory.
#ifndef HEAD
#define HEAD 64
#endif
#ifndef TILES
#define TILES 1
#endif
#ifndef BLOCKS
#define BLOCKS 1  // blocks of a multiprocessor, for which registers are kept
#endif
#define KEYS 64
#define STRIDE (HEAD + 8)  // elements between rows in shared memory: an odd number of 16-byte units, so that ldmatrix meets no bank twice

__device__ __forceinline__ void copy16(void* shared, const void* global, bool valid) {
    u32 to = (u32)__cvta_generic_to_shared(shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes));
}

__device__ __forceinline__ void load_matrix4(u32* r, const element* p) {
    u32 at = (u32)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

__device__ __forceinline__ void load_matrix4_transposed(u32* r, const element* p) {
    u32 at = (u32)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

__device__ __forceinline__ void multiply_add(float* c, const u32* a, u32 b0, u32 b1) {
#if ELEMENT == 2
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

struct Yes { static constexpr bool value = true; };
struct No { static constexpr bool value = false; };

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Grid: (tiles of queries, heads, sequences). `q` rows are q_stride elements apart, `k` and `v` rows kv_stride; a head's slice begins at
// head * HEAD. Queries are scaled already. Sequence n has the queries q_bounds[n] .. q_bounds[n + 1] and keys k_bounds[n] .. k_bounds[n + 1]; where
// there are no bounds, q_length and k_length of them each. `causal`: query i sees keys up to i. `out` rows are out_stride apart.
extern "C" __global__ void __launch_bounds__(256, BLOCKS) attention(const element* q, const element* k, const element* v, element* out,
                                                                    const int* q_bounds, const int* k_bounds, int q_length, int k_length, int q_stride,
                                                                    int kv_stride, int out_stride, int causal) {
    extern __shared__ __align__(16) u8 memory[];
    element* keys = (element*)memory;                // [2][KEYS][STRIDE]
    element* values = keys + 2 * KEYS * STRIDE;      // [2][KEYS][STRIDE]
    int sequence = blockIdx.z, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int q_first = q_bounds ? q_bounds[sequence] : sequence * q_length, q_count = q_bounds ? q_bounds[sequence + 1] - q_first : q_length;
    int k_first = k_bounds ? k_bounds[sequence] : sequence * k_length, k_count = k_bounds ? k_bounds[sequence + 1] - k_first : k_length;
    const int ROWS = 16 * TILES;
    int warps = blockDim.x / 32, block_first = blockIdx.x * warps * ROWS;
    if (block_first >= q_count) return;
    const element* key_rows = k + (long long)k_first * kv_stride + head * HEAD;
    const element* value_rows = v + (long long)k_first * kv_stride + head * HEAD;
    int seen_by_block = causal ? min(k_count, block_first + warps * ROWS) : k_count;
    int tiles = (seen_by_block + KEYS - 1) / KEYS;

    auto fetch = [&](int tile) {
        element* to_keys = keys + (tile & 1) * KEYS * STRIDE;
        element* to_values = values + (tile & 1) * KEYS * STRIDE;
        int rows = min(KEYS, (seen_by_block - tile * KEYS + 15) / 16 * 16);
        for (int i = threadIdx.x; i < rows * (HEAD / 8); i += blockDim.x) {
            int row = i / (HEAD / 8), column = i % (HEAD / 8) * 8, key = tile * KEYS + row;
            bool valid = key < k_count;
            long long at = valid ? (long long)key * kv_stride + column : 0;
            copy16(to_keys + row * STRIDE + column, key_rows + at, valid);
            copy16(to_values + row * STRIDE + column, value_rows + at, valid);
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(0);

    // Queries of this warp, straight from memory: thread t holds columns 2 (t % 4) of rows t / 4 and t / 4 + 8 of each 16.
    int row_first = block_first + warp * ROWS;
    bool active = row_first < q_count;
    u32 queries[TILES][HEAD / 16][4];
#pragma unroll
    for (int m = 0; m < TILES; m++) {
        const element* base = q + (long long)q_first * q_stride + head * HEAD + lane % 4 * 2;
        int row = row_first + m * 16 + lane / 4;
        const u32* from0 = (const u32*)(base + (long long)min(row, q_count - 1) * q_stride);
        const u32* from1 = (const u32*)(base + (long long)min(row + 8, q_count - 1) * q_stride);
#pragma unroll
        for (int i = 0; i < HEAD / 16; i++) {
            queries[m][i][0] = from0[i * 8];
            queries[m][i][1] = from1[i * 8];
            queries[m][i][2] = from0[i * 8 + 4];
            queries[m][i][3] = from1[i * 8 + 4];
        }
    }
    float sum[TILES][HEAD / 8][4];
    float largest[TILES][2], total[TILES][2];
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[m][i][j] = 0.0f;
#pragma unroll
        for (int r = 0; r < 2; r++) largest[m][r] = -1e30f, total[m][r] = 0.0f;
    }
    const float LOG2E = 1.4426950408889634f;

    // The keys and values of a tile; `full`: all of them, so that the compiler sees straight code.
    auto process = [&](int tile, int steps, const element* tile_keys, const element* tile_values, auto full) {
        float score[TILES][KEYS / 8][4];
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int j = 0; j < 4; j++) score[m][2 * n][j] = score[m][2 * n + 1][j] = full.value || n < steps ? 0.0f : -1e30f;
            if (full.value || n < steps) {
#pragma unroll
                for (int i = 0; i < HEAD / 16; i++) {
                    u32 b[4];
                    // Matrices: keys 0-7 columns 0-7, keys 0-7 columns 8-15, keys 8-15 columns 0-7, keys 8-15 columns 8-15.
                    int key = n * 16 + lane % 8 + lane / 16 * 8, column = i * 16 + lane / 8 % 2 * 8;
                    load_matrix4(b, tile_keys + key * STRIDE + column);
#pragma unroll
                    for (int m = 0; m < TILES; m++) {
                        multiply_add(score[m][2 * n], queries[m][i], b[0], b[1]);
                        multiply_add(score[m][2 * n + 1], queries[m][i], b[2], b[3]);
                    }
                }
            }
        }
        // Keys beyond the sequence, or after a query of a causal one.
        if ((tile + 1) * KEYS > k_count || (causal && (tile + 1) * KEYS > row_first)) {
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        int at = tile * KEYS + n * 8 + lane % 4 * 2 + j % 2, row = row_first + m * 16 + lane / 4 + j / 2 * 8;
                        if (at >= k_count || (causal && at > row)) score[m][n][j] = -1e30f;
                    }
        }
#pragma unroll
        for (int m = 0; m < TILES; m++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float above = largest[m][r];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) above = fmaxf(above, fmaxf(score[m][n][2 * r], score[m][n][2 * r + 1]));
                above = fmaxf(above, __shfl_xor_sync(0xffffffffu, above, 1));
                above = fmaxf(above, __shfl_xor_sync(0xffffffffu, above, 2));
                float shrink = exp2_fast((largest[m][r] - above) * LOG2E);
                largest[m][r] = above;
                float part = 0.0f, offset = above * LOG2E;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int j = 2 * r; j < 2 * r + 2; j++) {
                        float p = exp2_fast(score[m][n][j] * LOG2E - offset);
                        score[m][n][j] = p;
                        part += p;
                    }
                total[m][r] = total[m][r] * shrink + part;
                if (tile > 0) {
#pragma unroll
                    for (int i = 0; i < HEAD / 8; i++) {
                        sum[m][i][2 * r] *= shrink;
                        sum[m][i][2 * r + 1] *= shrink;
                    }
                }
            }
        }
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            if (full.value || n < steps) {
                u32 a[TILES][4];
#pragma unroll
                for (int m = 0; m < TILES; m++) {
                    a[m][0] = pack2(score[m][2 * n][0], score[m][2 * n][1]);
                    a[m][1] = pack2(score[m][2 * n][2], score[m][2 * n][3]);
                    a[m][2] = pack2(score[m][2 * n + 1][0], score[m][2 * n + 1][1]);
                    a[m][3] = pack2(score[m][2 * n + 1][2], score[m][2 * n + 1][3]);
                }
#pragma unroll
                for (int i = 0; i < HEAD / 16; i++) {
                    u32 b[4];
                    // Transposed: keys 0-7 and 8-15 of columns 0-7, then of columns 8-15.
                    int key = n * 16 + lane % 16, column = i * 16 + lane / 16 * 8;
                    load_matrix4_transposed(b, tile_values + key * STRIDE + column);
#pragma unroll
                    for (int m = 0; m < TILES; m++) {
                        multiply_add(sum[m][2 * i], a[m], b[0], b[1]);
                        multiply_add(sum[m][2 * i + 1], a[m], b[2], b[3]);
                    }
                }
            }
        }
    };

    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            fetch(tile + 1);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
        const element* tile_keys = keys + (tile & 1) * KEYS * STRIDE;
        const element* tile_values = values + (tile & 1) * KEYS * STRIDE;
        int seen = causal ? min(k_count, row_first + ROWS) : k_count;
        int steps = active ? min(KEYS / 16, (seen - tile * KEYS + 15) / 16) : 0;
        if (steps == KEYS / 16)
            process(tile, steps, tile_keys, tile_values, Yes());
        else if (steps > 0)
            process(tile, steps, tile_keys, tile_values, No());
        __syncthreads();
    }
    if (!active) return;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float all = total[m][r];
            all += __shfl_xor_sync(0xffffffffu, all, 1);
            all += __shfl_xor_sync(0xffffffffu, all, 2);
            int row = row_first + m * 16 + lane / 4 + r * 8;
            if (row >= q_count) continue;
            float scale = 1.0f / all;
            u32* to = (u32*)(out + (long long)(q_first + row) * out_stride + head * HEAD + lane % 4 * 2);
#pragma unroll
            for (int i = 0; i < HEAD / 8; i++) to[i * 4] = pack2(sum[m][i][2 * r] * scale, sum[m][i][2 * r + 1] * scale);
        }
}
