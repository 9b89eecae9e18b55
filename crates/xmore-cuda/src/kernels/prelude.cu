// Element types and conversions, without the toolkit's headers. ELEMENT: 0 is f32, 1 is f16, 2 is bf16.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef ELEMENT
#define ELEMENT 1
#endif

__device__ __forceinline__ float f16_to_f32(u16 v) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
    return f;
}

__device__ __forceinline__ u16 f32_to_f16(float f) {
    u16 v;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(f));
    return v;
}

#if ELEMENT == 0
typedef float element;
__device__ __forceinline__ float load1(const element* p) { return *p; }
__device__ __forceinline__ void store1(element* p, float v) { *p = v; }
__device__ __forceinline__ void load8(const element* p, float* v) {
    float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
__device__ __forceinline__ void store8(element* p, const float* v) {
    ((float4*)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    ((float4*)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
#else
typedef u16 element;
#if ELEMENT == 1
__device__ __forceinline__ float to_f32(u16 v) { return f16_to_f32(v); }
__device__ __forceinline__ u16 from_f32(float f) { return f32_to_f16(f); }
__device__ __forceinline__ u32 pack2(float low, float high) {
    u32 v;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}
#else
__device__ __forceinline__ float to_f32(u16 v) { return __uint_as_float((u32)v << 16); }
__device__ __forceinline__ u32 pack2(float low, float high) {
    u32 v;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}
__device__ __forceinline__ u16 from_f32(float f) { return (u16)(pack2(f, 0.0f) & 0xffffu); }
#endif
__device__ __forceinline__ float load1(const element* p) { return to_f32(*p); }
__device__ __forceinline__ void store1(element* p, float v) { *p = from_f32(v); }
__device__ __forceinline__ void load8(const element* p, float* v) {
    uint4 a = *(const uint4*)p;
    u32 words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = to_f32((u16)(words[i] & 0xffffu));
        v[2 * i + 1] = to_f32((u16)(words[i] >> 16));
    }
}
__device__ __forceinline__ void store8(element* p, const float* v) {
    *(uint4*)p = make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}
#endif

// Sum and largest of a warp, in all of its threads.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

// Activations by number, as `Activation` of the encoders has them: 0 none, 1 ReLU, 2 ReLU6, 3 GELU by the error function, 4 QuickGELU.
__device__ __forceinline__ float activate(float x, int activation) {
    switch (activation) {
        case 1: return fmaxf(x, 0.0f);
        case 2: return fminf(fmaxf(x, 0.0f), 6.0f);
        case 3: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
        case 4:
#if ELEMENT == 0
            return x / (1.0f + expf(-1.702f * x));
#else
            return __fdividef(x, 1.0f + __expf(-1.702f * x));
#endif
        default: return x;
    }
}

// Four floats, scaled, to four e4m3 in a word, beyond the largest cut.
__device__ __forceinline__ u32 pack_e4m3(float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 890
    u16 low, high;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
    return (u32)low | ((u32)high << 16);
#else
    return 0;
#endif
}
