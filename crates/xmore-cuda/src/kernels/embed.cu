// From images and token ids to rows of tokens.

// Pixels of each patch side by side: images [n, side, side, 3] in f32 to [n * patches, columns], columns >= patch * patch * 3 with zeros behind: a block for
// each patch. BYTES: pixels are bytes and become (v / 255 - mean) / std by a table [3][256].
extern "C" __global__ void patches(const void* images, const float* table, element* out, int side, int patch, int columns, int bytes) {
    int grid = side / patch, image = blockIdx.x / (grid * grid), place = blockIdx.x % (grid * grid);
    int line = patch * 3, corner = ((place / grid) * patch * side + (place % grid) * patch) * 3;
    long long base = (long long)image * side * side * 3 + corner;
    element* to = out + (long long)blockIdx.x * columns;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        float v = 0.0f;
        int dy = column / line, rest = column - dy * line;
        if (dy < patch) {
            long long from = base + (long long)dy * side * 3 + rest;
            v = bytes ? table[rest % 3 * 256 + ((const u8*)images)[from]] : ((const float*)images)[from];
        }
        store1(to + column, v);
    }
}

// Class token (where there is one) before each image's patches, positions added: [n, tokens, width]; width is a multiple of 8.
extern "C" __global__ void assemble(const element* patches, const float* class_token, const float* positions, element* out, int count, int tokens,
                                    int width) {
    int groups = width / 8, with_class = class_token != 0;
    long long total = (long long)count * tokens * groups;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += (long long)gridDim.x * blockDim.x) {
        int column = (int)(at % groups) * 8;
        long long row = at / groups;
        int token = (int)(row % tokens);
        long long image = row / tokens;
        float v[8];
        if (with_class && token == 0) {
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] = class_token[column + j];
        } else {
            load8(patches + (image * (tokens - with_class) + token - with_class) * width + column, v);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] += positions[(long long)token * width + column + j];
        store8(out + row * width + column, v);
    }
}

// Embeddings of tokens: table row, plus position, plus the first row of a table of types where there is one. A negative id -1 - n takes row n of
// `context` instead of the table. `places` are the tokens' positions.
extern "C" __global__ void embed_tokens(const int* ids, const int* places, const element* table, const float* positions, const float* types,
                                        const float* context, element* out, int width) {
    long long row = blockIdx.x;
    int id = ids[row], place = places[row];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float v = id < 0 ? context[(long long)(-1 - id) * width + i] : load1(table + (long long)id * width + i);
        v += positions[(long long)place * width + i];
        if (types) v += types[i];
        store1(out + row * width + i, v);
    }
}
