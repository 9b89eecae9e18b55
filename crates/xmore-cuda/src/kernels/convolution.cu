// Convolutions of channels-last images [n, height, width, channels] by way of the matrix product, depthwise ones, and average pooling.

// The pixels under each output position side by side: [n * to_height * to_width, columns], taps in row order, channels innermost, zeros outside the image
// and behind the last tap.
extern "C" __global__ void windows(const element* x, element* out, int count, int height, int width, int channels, int kernel, int stride, int pad_top,
                                   int pad_left, int to_height, int to_width, int columns) {
    long long total = (long long)count * to_height * to_width * columns;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += (long long)gridDim.x * blockDim.x) {
        int column = (int)(at % columns), c = column % channels, tap = column / channels;
        long long row = at / columns;
        int ox = (int)(row % to_width), oy = (int)(row / to_width % to_height);
        long long image = row / ((long long)to_width * to_height);
        int y = oy * stride - pad_top + tap / kernel, ix = ox * stride - pad_left + tap % kernel;
        bool inside = tap < kernel * kernel && y >= 0 && y < height && ix >= 0 && ix < width;
        store1(out + at, inside ? load1(x + ((image * height + y) * width + ix) * channels + c) : 0.0f);
    }
}

// Depthwise: weight [kernel * kernel, channels] and bias [channels] in f32, activation by number.
extern "C" __global__ void depthwise(const element* x, const float* weight, const float* bias, element* out, int count, int height, int width,
                                     int channels, int kernel, int stride, int pad_top, int pad_left, int to_height, int to_width, int kind) {
    long long total = (long long)count * to_height * to_width * channels;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += (long long)gridDim.x * blockDim.x) {
        int c = (int)(at % channels);
        long long pixel = at / channels;
        int ox = (int)(pixel % to_width), oy = (int)(pixel / to_width % to_height);
        long long image = pixel / ((long long)to_width * to_height);
        float sum = bias[c];
        for (int ky = 0; ky < kernel; ky++) {
            int y = oy * stride - pad_top + ky;
            if (y < 0 || y >= height) continue;
            for (int kx = 0; kx < kernel; kx++) {
                int ix = ox * stride - pad_left + kx;
                if (ix < 0 || ix >= width) continue;
                sum += load1(x + ((image * height + y) * width + ix) * channels + c) * weight[(ky * kernel + kx) * channels + c];
            }
        }
        store1(out + at, activate(sum, kind));
    }
}

// Means over squares of `side` pixels.
extern "C" __global__ void average_pool(const element* x, element* out, int count, int height, int width, int channels, int side) {
    int to_height = height / side, to_width = width / side;
    long long total = (long long)count * to_height * to_width * channels;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += (long long)gridDim.x * blockDim.x) {
        int c = (int)(at % channels);
        long long pixel = at / channels;
        int ox = (int)(pixel % to_width), oy = (int)(pixel / to_width % to_height);
        long long image = pixel / ((long long)to_width * to_height);
        float sum = 0.0f;
        for (int dy = 0; dy < side; dy++)
            for (int dx = 0; dx < side; dx++) sum += load1(x + ((image * height + oy * side + dy) * width + ox * side + dx) * channels + c);
        store1(out + at, sum / (side * side));
    }
}

// The mean of each image's positions before them, learned positions added: [n, 1 + positions, channels] from [n, positions, channels].
extern "C" __global__ void prepend_mean(const element* x, const float* learned, element* out, int positions, int channels) {
    long long image = blockIdx.x;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        float sum = 0.0f;
        for (int p = 0; p < positions; p++) {
            float v = load1(x + (image * positions + p) * channels + c);
            sum += v;
            store1(out + (image * (positions + 1) + p + 1) * channels + c, v + learned[(long long)(p + 1) * channels + c]);
        }
        store1(out + image * (positions + 1) * channels + c, sum / positions + learned[c]);
    }
}

// x = activation(x + y).
extern "C" __global__ void add_activate(element* x, const element* y, long long count, int kind) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) store1(x + at, activate(load1(x + at) + load1(y + at), kind));
}
