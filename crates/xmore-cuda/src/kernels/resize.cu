// Pillow's fixed-point resampling of images of 8-bit RGB, to the same bytes: the horizontal pass first, bytes between the passes. A launch works on
// a batch of images of any sizes. Coefficients have 22 bits of fraction.

// Must be `Descriptor` of resize.rs.
struct Image {
    const u8* pixels;          // its pixel (0, 0)
    long long x_step, y_step;  // bytes from a pixel to the next one and to the one below
    u8* narrow;                // its rows between the passes, `stride` bytes each, as in the square
    int top, rows;             // input rows that are needed
    int left, columns;         // input columns that are needed
    int column_taps, row_taps; // where its tables begin in `tables`
    int x, y, width, height;   // where its output is in the square
};

// A table of n output positions: n first inputs, n counts, then the weights, [largest count][n].
struct Taps {
    const int *firsts, *counts, *weights;
    __device__ Taps(const int* table, int n) : firsts(table), counts(table + n), weights(table + 2 * n) {}
};

// Rows that a thread of the horizontal pass works on at a time: their weights are the same.
#define ROWS 8
#define FRACTION 22
#define HALF (1 << (FRACTION - 1))

__device__ __forceinline__ u8 clip8(int sum) { return (u8)min(max(sum >> FRACTION, 0), 255); }

// The needed pixels of row `row` (of those that are needed), or of the last one.
__device__ __forceinline__ const u8* needed_row(const Image& image, int row) {
    return image.pixels + (image.top + min(row, image.rows - 1)) * image.y_step + image.left * image.x_step;
}

// All columns of rows `row`..`row + ROWS`. STAGED: the input rows are in shared memory, `pitch` bytes each, every one as far from a multiple of
// 16 bytes as in global memory.
template <bool STAGED>
__device__ __forceinline__ void narrow_rows(const Image& image, const int* tables, int row, int stride, const u8* shared, int pitch) {
    Taps taps(tables + image.column_taps, image.width);
    const u8* rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const u8* global = needed_row(image, row + r);
        rows[r] = STAGED ? shared + r * pitch + (int)((u64)global & 15) : global;
    }
    for (int x = threadIdx.x; x < image.width; x += blockDim.x) {
        int sums[ROWS][3];
#pragma unroll
        for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = sums[r][2] = HALF;
        int count = taps.counts[x];
        long long step = STAGED ? 3 : image.x_step;
        long long at = (taps.firsts[x] - image.left) * step;
        for (int k = 0; k < count; k++, at += step) {
            int weight = taps.weights[k * image.width + x];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const u8* pixel = rows[r] + at;
#pragma unroll
                for (int c = 0; c < 3; c++) sums[r][c] += pixel[c] * weight;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (row + r >= image.rows) break;
            u8* out = image.narrow + (long long)(row + r) * stride + (image.x + x) * 3;
#pragma unroll
            for (int c = 0; c < 3; c++) out[c] = clip8(sums[r][c]);
        }
    }
}

// Grid: [blocks of an image, images]. An image whose needed rows fit the dynamic shared memory is read into it, with coalesced loads.
extern "C" __global__ void horizontal(const Image* images, const int* tables, int stride, int shared_bytes) {
    extern __shared__ uint4 staged[];
    const Image image = images[blockIdx.y];
    int quads = (image.columns * 3 + 30) / 16;  // of 16 bytes, in a row that begins anywhere in the first
    bool fits = image.x_step == 3 && quads * 16 * ROWS <= shared_bytes;
    for (int row = blockIdx.x * ROWS; row < image.rows; row += gridDim.x * ROWS) {
        if (fits) {
            __syncthreads();  // the rows before are done
            for (int i = threadIdx.x; i < quads * ROWS; i += blockDim.x) {
                int r = i / quads, quad = i % quads;
                u64 start = (u64)needed_row(image, row + r);
                const uint4* from = (const uint4*)(start & ~15ull) + quad;
                if ((u64)from < start + image.columns * 3) staged[i] = *from;
            }
            __syncthreads();
            narrow_rows<true>(image, tables, row, stride, (const u8*)staged, quads * 16);
        } else {
            narrow_rows<false>(image, tables, row, stride, 0, 0);
        }
    }
}

// Grid: [blocks of a square, images]. A thread makes four bytes of the square [side, side, 3]; beside the image they are `fill`.
extern "C" __global__ void vertical(const Image* images, const int* tables, u8* out, int side, int stride, int fill) {
    int words = stride / 4, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= side * words) return;
    int y = at / words, byte = at % words * 4;
    const Image& image = images[blockIdx.y];
    int row = y - image.y, begin = image.x * 3, end = (image.x + image.width) * 3;
    u32 values[4] = {(u32)fill, (u32)fill, (u32)fill, (u32)fill};
    if (row >= 0 && row < image.height && byte + 4 > begin && byte < end) {
        Taps taps(tables + image.row_taps, image.height);
        int count = taps.counts[row];
        int sums[4] = {HALF, HALF, HALF, HALF};
        const u8* from = image.narrow + (long long)(taps.firsts[row] - image.top) * stride + byte;
        for (int k = 0; k < count; k++, from += stride) {
            int weight = taps.weights[k * image.height + row];
            u32 four = *(const u32*)from;
#pragma unroll
            for (int b = 0; b < 4; b++) sums[b] += (int)((four >> (8 * b)) & 255) * weight;
        }
#pragma unroll
        for (int b = 0; b < 4; b++) {
            if (byte + b >= begin && byte + b < end) values[b] = clip8(sums[b]);
        }
    }
    u8* to = out + ((long long)blockIdx.y * side + y) * side * 3 + byte;
    if (side % 4 == 0) {
        *(u32*)to = values[0] | values[1] << 8 | values[2] << 16 | values[3] << 24;
    } else {
#pragma unroll
        for (int b = 0; b < 4; b++) {
            if (byte + b < side * 3) to[b] = (u8)values[b];
        }
    }
}
