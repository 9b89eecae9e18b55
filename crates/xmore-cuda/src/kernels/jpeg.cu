// Whether a decoder wrote an image: it may say so and have left it out. Grid: images.

// Must be `Place` of nvjpeg/mod.rs.
struct Decoded {
    u8* pixels;  // RGB, row after row
    int width, height;
};

// What an image's first and last row are filled with before it is decoded.
#define MARK 0xa5

extern "C" __global__ void mark(const Decoded* images) {
    Decoded image = images[blockIdx.x];
    int bytes = image.width * 3;
    u8* last = image.pixels + (long long)(image.height - 1) * bytes;
    for (int i = threadIdx.x; i < bytes; i += blockDim.x) image.pixels[i] = last[i] = MARK;
}

// 1 where the first or the last row still is as `mark` left it, else 0.
extern "C" __global__ void unwritten(const Decoded* images, int* flags) {
    Decoded image = images[blockIdx.x];
    int bytes = image.width * 3;
    const u8* last = image.pixels + (long long)(image.height - 1) * bytes;
    int first_marked = 1, last_marked = 1;
    for (int i = threadIdx.x; i < bytes; i += blockDim.x) {
        first_marked &= image.pixels[i] == MARK;
        last_marked &= last[i] == MARK;
    }
    first_marked = __syncthreads_and(first_marked);
    last_marked = __syncthreads_and(last_marked);
    if (threadIdx.x == 0) flags[blockIdx.x] = first_marked || last_marked;
}
