// Exact search: inner products of f16 rows with queries, of which only those that reach the query's cut are kept.
//
// A scan visits tiles of 128 rows in an order that spreads any first part of it over all rows: the tile visited v-th is v * step % tiles. Entries are
// (bits of the score, row); a row number of NO_ROW means that there is none. The first launch of a scan (`sample`) keeps every row, the row visited
// v-th at place v of each list; later ones append rows with score >= cut. `select` then raises the cuts and drops entries below them.
// QUERIES: compiles `scan_few`, for so many queries (1, 2, 4, 8) and rows of WIDTH elements. TILE: compiles `scan_many`, by tensor cores, with so many
// queries in a block (64, 128). HOPPER: compiles `scan_hopper`, the same for compute capability 9.0. None of these: the other kernels. Widths are
// multiples of 64.
#define TILE_ROWS 128
#define NO_ROW 0xffffffffu
#define INFINITE __int_as_float(0x7f800000)

// `rows` begins at the first of `count` rows, which is number `base` of all. `tiles` visited ones, of which this launch does from .. to.
#define SCAN_ROWS const u16 *rows, int count, int base, int tiles, int step, int from, int to
// Lists of `capacity` entries; a count above it says that entries were lost.
#define SCAN_LISTS const float *cuts, int *counts, uint2 *entries, int capacity, int sample

__device__ __forceinline__ void keep(float score, int row, int count, int base, int place, int query, float cut, int* counts, uint2* entries,
                                     int capacity, int sample) {
    uint2* list = entries + (long long)query * capacity;
    if (sample) {
        bool counted = row < count && score == score;
        list[place] = counted ? make_uint2(__float_as_uint(score), (u32)(base + row)) : make_uint2(0xff800000u, NO_ROW);
    } else if (score >= cut && row < count) {
        int at = atomicAdd(counts + query, 1);
        if (at < capacity) list[at] = make_uint2(__float_as_uint(score), (u32)(base + row));
    }
}

#if defined(QUERIES)
#define STEPS (WIDTH / 64)
#define BATCH (STEPS % 4 == 0 ? 4 : STEPS % 3 == 0 ? 3 : STEPS % 2 == 0 ? 2 : 1)

__device__ __forceinline__ uint4 load_once(const uint4* p) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

__device__ __forceinline__ void unpack2(u32 word, float& low, float& high) {
    asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }" : "=f"(low), "=f"(high) : "r"(word));
}

// f32 queries [QUERIES, WIDTH], of which query_count are asked; 256 threads. Eight threads read a row together, 128 bytes at a time, and a warp 8 rows.
extern "C" __global__ void __launch_bounds__(256, QUERIES <= 4 ? 3 : 2) scan_few(SCAN_ROWS, const float* queries, int query_count, SCAN_LISTS) {
    // Of each 64 elements first the lower halves of the 8 threads' elements, then the upper ones, so that no bank is read twice at a time.
    extern __shared__ __align__(16) float shared_queries[];
    for (int i = threadIdx.x; i < QUERIES * WIDTH; i += 256) {
        int at = i % 64;
        shared_queries[i - at + at % 8 / 4 * 32 + at / 8 * 4 + at % 4] = queries[i];
    }
    __syncthreads();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = lane % 8;
    float cut = part < query_count ? cuts[part] : INFINITE;
    for (int v = from + blockIdx.x; v < to; v += gridDim.x) {
        int tile = (int)((long long)v * step % tiles);
#pragma unroll 1
        for (int eight = 0; eight < 2; eight++) {
            int in_tile = warp * 16 + eight * 8 + lane / 8, row = tile * TILE_ROWS + in_tile;
            const uint4* from0 = (const uint4*)(rows + (long long)min(row, count - 1) * WIDTH) + part;
            const uint4* from1 = (const uint4*)(rows + (long long)min(row + 4, count - 1) * WIDTH) + part;
            float sums[2][QUERIES];
#pragma unroll
            for (int q = 0; q < QUERIES; q++) sums[0][q] = sums[1][q] = 0.0f;
#pragma unroll 2
            for (int s = 0; s < STEPS; s += BATCH) {
                uint4 x[2][BATCH];
#pragma unroll
                for (int b = 0; b < BATCH; b++) {
                    x[0][b] = load_once(from0 + (s + b) * 8);
                    x[1][b] = load_once(from1 + (s + b) * 8);
                }
#pragma unroll
                for (int b = 0; b < BATCH; b++) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        float a[2][4];
#pragma unroll
                        for (int r = 0; r < 2; r++) {
                            unpack2(half ? x[r][b].z : x[r][b].x, a[r][0], a[r][1]);
                            unpack2(half ? x[r][b].w : x[r][b].y, a[r][2], a[r][3]);
                        }
#pragma unroll
                        for (int q = 0; q < QUERIES; q++) {
                            float4 y = *(const float4*)(shared_queries + q * WIDTH + (s + b) * 64 + half * 32 + part * 4);
#pragma unroll
                            for (int r = 0; r < 2; r++) {
                                float sum = sums[r][q];
                                sum = fmaf(a[r][0], y.x, sum);
                                sum = fmaf(a[r][1], y.y, sum);
                                sum = fmaf(a[r][2], y.z, sum);
                                sums[r][q] = fmaf(a[r][3], y.w, sum);
                            }
                        }
                    }
                }
            }
            float mine[2] = {0.0f, 0.0f};
#pragma unroll
            for (int r = 0; r < 2; r++) {
#pragma unroll
                for (int q = 0; q < QUERIES; q++) {
                    float sum = sums[r][q];
                    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 4);
                    if (part == q) mine[r] = sum;
                }
            }
            if (part < query_count) {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    keep(mine[r], row + 4 * r, count, base, v * TILE_ROWS + in_tile + 4 * r, part, cut, counts, entries, capacity, sample);
                }
            }
        }
    }
}

#elif defined(TILE)
#define STAGES (TILE == 64 ? 4 : 3)
#define WARPS_N (TILE / 32)
#define WARPS_M (8 / WARPS_N)
#define M_TILES (TILE_ROWS / 16 / WARPS_M)
#define STAGE_BYTES ((TILE_ROWS + TILE) * 128)

__device__ __forceinline__ void copy16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}

__device__ __forceinline__ void load_matrix4(u32* r, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

__device__ __forceinline__ void multiply_add(float* c, const u32* a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// f16 queries [groups * TILE, width], of which query_count are asked; 256 threads. A block has one group of queries, and every groups-th block the same
// one; blocks that follow one another read the same rows at about the same time. In shared memory a stage has 64 columns of a tile's rows and of the
// group's queries; of each row the 16-byte piece c lies at c ^ (row % 8), so that neither copies nor ldmatrix meet a bank twice.
extern "C" __global__ void __launch_bounds__(256, 2) scan_many(SCAN_ROWS, const u16* queries, int query_count, int width, int groups, SCAN_LISTS) {
    extern __shared__ __align__(128) u8 memory[];
    u32 shared = (u32)__cvta_generic_to_shared(memory);
    int group = blockIdx.x % groups, first = from + blockIdx.x / groups, lanes = gridDim.x / groups, chunks = width / 64;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warp_m = warp / WARPS_N, warp_n = warp % WARPS_N;
    int copy_row = threadIdx.x / 8, copy_piece = threadIdx.x % 8;
    u32 copy_to = shared + copy_row * 128 + ((copy_piece ^ (copy_row % 8)) * 16);
    const u16* copy_queries = queries + (long long)(group * TILE + copy_row) * width + copy_piece * 8;
    int query0 = group * TILE + warp_n * 32 + lane % 4 * 2;
    float cut[4][2];
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
        for (int j = 0; j < 2; j++) cut[n][j] = query0 + n * 8 + j < query_count ? cuts[query0 + n * 8 + j] : INFINITE;
    }

    // The stage that is fetched next: its tile, as visited, and its columns.
    int fetch_v = first, fetch_chunk = 0, fetch_stage = 0;
    const u16* fetch_rows[TILE_ROWS / 32];
    auto fetch = [&]() {
        if (fetch_v < to) {
            if (fetch_chunk == 0) {
                int tile = (int)((long long)fetch_v * step % tiles);
#pragma unroll
                for (int i = 0; i < TILE_ROWS / 32; i++) {
                    fetch_rows[i] = rows + (long long)min(tile * TILE_ROWS + copy_row + i * 32, count - 1) * width + copy_piece * 8;
                }
            }
            u32 at = copy_to + fetch_stage * STAGE_BYTES;
#pragma unroll
            for (int i = 0; i < TILE_ROWS / 32; i++) copy16(at + i * 32 * 128, fetch_rows[i] + fetch_chunk * 64);
            at += TILE_ROWS * 128;
#pragma unroll
            for (int i = 0; i < TILE / 32; i++) copy16(at + i * 32 * 128, copy_queries + (long long)i * 32 * width + fetch_chunk * 64);
            fetch_stage = fetch_stage + 1 == STAGES ? 0 : fetch_stage + 1;
            if (++fetch_chunk == chunks) {
                fetch_chunk = 0;
                fetch_v += lanes;
            }
        }
        asm volatile("cp.async.commit_group;");
    };
    for (int i = 0; i < STAGES - 1; i++) fetch();

    // Where ldmatrix reads in a stage: this thread's row of 16 rows and of 16 queries, and which of two pieces.
    u32 row_at = (warp_m * M_TILES * 16 + lane % 16) * 128, query_at = TILE_ROWS * 128 + (warp_n * 32 + lane % 8 + lane / 16 * 8) * 128;
    int row_piece = lane / 16, query_piece = lane / 8 % 2, swizzle = lane % 8;
    int stage = 0;
    for (int v = first; v < to; v += lanes) {
        float sums[M_TILES][4][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
#pragma unroll
            for (int n = 0; n < 4; n++) sums[m][n][0] = sums[m][n][1] = sums[m][n][2] = sums[m][n][3] = 0.0f;
        }
        for (int chunk = 0; chunk < chunks; chunk++) {
            asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
            __syncthreads();
            fetch();
            u32 at = shared + stage * STAGE_BYTES;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 b[2][4];
#pragma unroll
                for (int n = 0; n < 2; n++) load_matrix4(b[n], at + query_at + n * 16 * 128 + (((k * 2 + query_piece) ^ swizzle) * 16));
#pragma unroll
                for (int m = 0; m < M_TILES; m++) {
                    u32 a[4];
                    load_matrix4(a, at + row_at + m * 16 * 128 + (((k * 2 + row_piece) ^ swizzle) * 16));
#pragma unroll
                    for (int n = 0; n < 2; n++) {
                        multiply_add(sums[m][2 * n], a, b[n][0], b[n][1]);
                        multiply_add(sums[m][2 * n + 1], a, b[n][2], b[n][3]);
                    }
                }
            }
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        int tile = (int)((long long)v * step % tiles);
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    if (sample || sums[m][n][j] >= cut[n][j % 2]) {
                        int query = query0 + n * 8 + j % 2, in_tile = (warp_m * M_TILES + m) * 16 + lane / 4 + j / 2 * 8;
                        if (query < query_count) {
                            keep(sums[m][n][j], tile * TILE_ROWS + in_tile, count, base, v * TILE_ROWS + in_tile, query, cut[n][j % 2], counts, entries,
                                 capacity, sample);
                        }
                    }
                }
            }
        }
    }
}

#elif defined(HOPPER)
#define N_TILES (HOPPER / 8)
#define STAGE_BYTES ((TILE_ROWS + HOPPER) * 128)
#define STAGES (192 * 1024 / STAGE_BYTES)
#define CONSUMERS 8

struct __align__(64) TensorMap {
    u64 opaque[16];
};

#if __CUDA_ARCH__ == 900
__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}

__device__ __forceinline__ void arrive(u32 barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }

// 64 columns of rows from `row` on, as many as the map's box has; zeros beyond the last row.
__device__ __forceinline__ void copy_box(u32 to, const TensorMap* map, u32 barrier, int column, int row) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"((u64)map), "r"(barrier), "r"(column), "r"(row)
                 : "memory");
}

// Of rows of 128 bytes, swizzled by 128 bytes: eight of them are 1,024 bytes.
__device__ __forceinline__ u64 descriptor(u32 at) { return (u64)((at & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62; }

// d (64 rows, HOPPER queries) = products of 16 columns, added to d if `add`.
__device__ __forceinline__ void multiply(float* d, u64 rows, u64 queries, int add) {
#if HOPPER == 64
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, %32, %33, p, 1, 1, 0, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                   "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                   "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
                 : "l"(rows), "l"(queries), "r"(add));
#elif HOPPER == 128
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, p, 1, 1, 0, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                   "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                   "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
                   "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
                   "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
                   "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
                 : "l"(rows), "l"(queries), "r"(add));
#elif HOPPER == 256
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %130, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
                 "}, %128, %129, p, 1, 1, 0, 0; }"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                   "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                   "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
                   "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
                   "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
                   "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]),
                   "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]),
                   "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]),
                   "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]),
                   "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]),
                   "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
                   "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]),
                   "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]),
                   "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
                 : "l"(rows), "l"(queries), "r"(add));
#endif
}
#endif

// As `scan_many`, with the asynchronous copies and products of Hopper: 288 threads. The last warp copies stages, each of 64 columns of a tile's rows and
// of a group's HOPPER queries (64, 128, 256); the eight others multiply, 64 rows by four warps. The maps' boxes are 128 rows and HOPPER queries.
extern "C" __global__ void __launch_bounds__(288, 1) scan_hopper(const __grid_constant__ TensorMap rows_map, int count, int base, int tiles, int step,
                                                                  int from, int to, const __grid_constant__ TensorMap queries_map, int query_count,
                                                                  int width, int groups, SCAN_LISTS) {
#if __CUDA_ARCH__ == 900
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ __align__(8) float group_cuts[HOPPER];
    // The swizzle goes by the address.
    u32 shared = ((u32)__cvta_generic_to_shared(memory) + 1023) & ~1023u;
    u32 full = (u32)__cvta_generic_to_shared(barriers), empty = full + STAGES * 8;
    int group = blockIdx.x % groups, first = from + blockIdx.x / groups, lanes = gridDim.x / groups, chunks = width / 64;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = threadIdx.x; i < HOPPER; i += blockDim.x) group_cuts[i] = group * HOPPER + i < query_count ? cuts[group * HOPPER + i] : INFINITE;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(full + i * 8), "r"(1));
            asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(empty + i * 8), "r"(CONSUMERS));
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async;" ::: "memory");
    }
    __syncthreads();

    int stage = 0;
    u32 parity = 0;
    auto next_stage = [&]() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    };
    if (warp == CONSUMERS) {
        if (lane != 0) return;
        for (int v = first; v < to; v += lanes) {
            int tile = (int)((long long)v * step % tiles);
            for (int chunk = 0; chunk < chunks; chunk++) {
                wait(empty + stage * 8, parity ^ 1);
                u32 barrier = full + stage * 8, at = shared + stage * STAGE_BYTES;
                asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(STAGE_BYTES) : "memory");
                copy_box(at, &rows_map, barrier, chunk * 64, tile * TILE_ROWS);
                copy_box(at + TILE_ROWS * 128, &queries_map, barrier, chunk * 64, group * HOPPER);
                next_stage();
            }
        }
        return;
    }

    int rows64 = warp / 4;
    for (int v = first; v < to; v += lanes) {
        float d[N_TILES * 4];
#pragma unroll
        for (int i = 0; i < N_TILES * 4; i++) d[i] = 0.0f;
        int last = 0;
        for (int chunk = 0; chunk < chunks; chunk++) {
            wait(full + stage * 8, parity);
            u32 at = shared + stage * STAGE_BYTES;
            u64 of_rows = descriptor(at + rows64 * 64 * 128), of_queries = descriptor(at + TILE_ROWS * 128);
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
            // 16 columns are 32 bytes, 2 in units of a descriptor.
#pragma unroll
            for (int k = 0; k < 4; k++) multiply(d, of_rows + 2 * k, of_queries + 2 * k, chunk > 0 || k > 0);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            // The products of the stage before are done, so it may be filled again.
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            if (chunk > 0 && lane == 0) arrive(empty + last * 8);
            last = stage;
            next_stage();
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        if (lane == 0) arrive(empty + last * 8);

        int tile = (int)((long long)v * step % tiles), in_tile = warp * 16 + lane / 4;
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            float2 cut = *(const float2*)(group_cuts + n * 8 + lane % 4 * 2);
            bool some = d[4 * n] >= cut.x || d[4 * n + 1] >= cut.y || d[4 * n + 2] >= cut.x || d[4 * n + 3] >= cut.y;
            if (sample || some) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int query = group * HOPPER + n * 8 + lane % 4 * 2 + j % 2, row = in_tile + j / 2 * 8;
                    if (query < query_count) {
                        keep(d[4 * n + j], tile * TILE_ROWS + row, count, base, v * TILE_ROWS + row, query, j % 2 ? cut.y : cut.x, counts, entries,
                             capacity, sample);
                    }
                }
            }
        }
    }
#endif
}

#else
// Whole numbers in the order of the scores; 0, below all of them, for an entry without a row.
__device__ __forceinline__ u32 key_of(uint2 entry) {
    if (entry.y == NO_ROW) return 0;
    return entry.x >> 31 ? ~entry.x : entry.x | 0x80000000u;
}

// Raises a query's cut to margin below its n-th best score and drops the entries below; 512 threads, a block for each query. Of the first launch's lists,
// `sampled` is the length; 0 for lists that were appended to. Where entries were lost, nothing is kept from now on.
extern "C" __global__ void __launch_bounds__(512) select(uint2* entries, int* counts, float* cuts, const float* margins, int capacity, int n,
                                                          int sampled) {
    __shared__ int bins[256];
    __shared__ int chosen, wanted, kept;
    uint2* list = entries + (long long)blockIdx.x * capacity;
    int count = sampled > 0 ? sampled : counts[blockIdx.x], lane = threadIdx.x % 32;
    __syncthreads();
    if (count > capacity) {
        if (threadIdx.x == 0) {
            counts[blockIdx.x] = 0x40000000;
            cuts[blockIdx.x] = INFINITE;
        }
        return;
    }
    float cut = -INFINITE;
    if (count >= n) {
        // The n-th largest key, 8 bits at a time from the top: `want`-th of those that begin with `prefix`.
        u32 prefix = 0, mask = 0;
        int want = n;
        for (int shift = 24; shift >= 0; shift -= 8) {
            if (threadIdx.x < 256) bins[threadIdx.x] = 0;
            __syncthreads();
            for (int i = threadIdx.x; i - lane < count; i += blockDim.x) {
                u32 key = i < count ? key_of(list[i]) : 0;
                u32 bin = i < count && (key & mask) == prefix ? key >> shift & 255 : 256;
                u32 same = __match_any_sync(0xffffffffu, bin);
                if (bin < 256 && lane == __ffs(same) - 1) atomicAdd(bins + bin, __popc(same));
            }
            __syncthreads();
            if (threadIdx.x < 32) {
                // Lane l has the 8 bins down from 255 - 8 l.
                int sum = 0;
#pragma unroll
                for (int i = 0; i < 8; i++) sum += bins[255 - 8 * lane - i];
                int above = sum;
#pragma unroll
                for (int offset = 1; offset < 32; offset <<= 1) {
                    int other = __shfl_up_sync(0xffffffffu, above, offset);
                    if (lane >= offset) above += other;
                }
                above -= sum;
                if (above < want && want <= above + sum) {
                    for (int bin = 255 - 8 * lane;; bin--) {
                        if (want <= above + bins[bin]) {
                            chosen = bin;
                            wanted = want - above;
                            break;
                        }
                        above += bins[bin];
                    }
                }
            }
            __syncthreads();
            prefix |= (u32)chosen << shift;
            mask |= 255u << shift;
            want = wanted;
            __syncthreads();
        }
        if (prefix != 0) {
            float nth = __uint_as_float(prefix >> 31 ? prefix ^ 0x80000000u : ~prefix);
            cut = __fsub_rd(nth, margins[blockIdx.x]);
        }
    }
    if (threadIdx.x == 0) kept = 0;
    __syncthreads();
    for (int start = 0; start < count; start += blockDim.x) {
        int i = start + threadIdx.x;
        uint2 entry = i < count ? list[i] : make_uint2(0, NO_ROW);
        // What is kept goes to places that have been read.
        __syncthreads();
        if (entry.y != NO_ROW && __uint_as_float(entry.x) >= cut) list[atomicAdd(&kept, 1)] = entry;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        counts[blockIdx.x] = kept;
        cuts[blockIdx.x] = cut;
    }
}

// Puts all lists into one: places[query] is where a query's begins and its length, -1 where entries were lost or the one list is full. A block for each
// query; `total` is 0 at first.
extern "C" __global__ void pack(const uint2* entries, const int* counts, int capacity, int2* places, int* total, uint2* out, int out_capacity) {
    __shared__ int start;
    int count = counts[blockIdx.x];
    if (threadIdx.x == 0) {
        bool whole = count <= capacity;
        start = whole ? atomicAdd(total, count) : out_capacity;
        places[blockIdx.x] = make_int2(start, whole && start + count <= out_capacity ? count : -1);
    }
    __syncthreads();
    if (count > capacity || start + count > out_capacity) return;
    const uint2* list = entries + (long long)blockIdx.x * capacity;
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[start + i] = list[i];
}

// The largest sum of squares of a row, as the bits of an f32, into `largest`, which is 0 at first. Rows with a NaN do not count. A warp for each row.
extern "C" __global__ void largest_row(const u16* rows, long long count, int width, u32* largest) {
    int lane = threadIdx.x % 32;
    float most = 0.0f;
    for (long long row = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; row < count; row += gridDim.x * (long long)(blockDim.x / 32)) {
        float sum = 0.0f;
        for (int at = lane * 8; at < width; at += 256) {
            uint4 x = *(const uint4*)(rows + row * width + at);
            u32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float low = f16_to_f32((u16)(words[i] & 0xffffu)), high = f16_to_f32((u16)(words[i] >> 16));
                sum += low * low + high * high;
            }
        }
        sum = warp_sum(sum);
        if (sum > most) most = sum;
    }
    if (lane == 0 && most > 0.0f) atomicMax(largest, __float_as_uint(most));
}
#endif
