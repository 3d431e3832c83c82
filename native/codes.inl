// Codes made and read back, in plain C; included once per instruction set, after tiles.inl. They agree with the torch
// twins in farspan/cache/coding.py to the bit, for which products and sums must not be contracted (see codes.cpp).

static inline uint16_t float_to_half(float value) { // to nearest, ties to even
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) { // subnormal: a multiple of 2^-24; adding 2^23 of them rounds
        float size;
        __builtin_memcpy(&size, &rest, 4);
        size = size * 16777216.0f + 8388608.0f;
        __builtin_memcpy(&rest, &size, 4);
        return (uint16_t)(sign | (rest & 0x7fffff));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

static inline uint16_t half_below(uint16_t half) { // the next one towards -inf
    if (half == 0) return 0x8001;
    return half & 0x8000 ? half + 1 : half - 1;
}

// Scale and low of numbers between `least` and `most`: rounded away from what they have to hold, never zero.
static inline int scale_of(float least, float most, int bits, uint16_t *scale, uint16_t *low) {
    const float levels = (float)((1 << bits) - 1);
    uint16_t base = float_to_half(least);
    if (half_to_float(base) > least) base = half_below(base);
    float span = most - half_to_float(base);
    uint16_t step = float_to_half(span / levels);
    float reach = half_to_float(step) * levels;
    if (reach < span) step++;
    if (step == 0) step = 1;
    *scale = step, *low = base;
    return (base & 0x7c00) != 0x7c00 && (step & 0x7c00) != 0x7c00;
}

static inline void put_codes(int bits, const float *code, int size, uint8_t *to) {
    if (bits == 8)
        for (int d = 0; d < size; d++) to[d] = (uint8_t)((int)code[d] ^ 128);
    else if (bits == 4)
        for (int d = 0; d < size / 2; d++) to[d] = (uint8_t)((int)code[2 * d] | (int)code[2 * d + 1] << 4);
    else
        for (int d = 0; d < size / 4; d++)
            to[d] = (uint8_t)((int)code[4 * d] | (int)code[4 * d + 1] << 2 | (int)code[4 * d + 2] << 4 |
                              (int)code[4 * d + 3] << 6);
}

// What the numbers x stand for: x[d] becomes its code.
static inline void code(float *x, const float *factor, const float *base, int size, float levels) {
    for (int d = 0; d < size; d++) {
        float at = (x[d] - base[d]) / factor[d];
        at = __builtin_rintf(at);
        at = at < 0 ? 0 : at;
        x[d] = at > levels ? levels : at;
    }
}

static inline void bounds(const float *x, int size, float *least, float *most, float *wrong) {
    for (int d = 0; d < size; d++) {
        least[d] = x[d] < least[d] ? x[d] : least[d];
        most[d] = x[d] > most[d] ? x[d] : most[d];
        wrong[d] += x[d] - x[d]; // stays 0 unless x is infinite or no number
    }
}

// n entries that share a scale per channel. -> whether all is finite in float16.
static int encode_keys(int kind, const char *dense, int64_t stride, int n, int size, int bits, uint8_t *codes,
                       uint16_t *scale, uint16_t *low) {
    float x[FS_MAX_SIZE], least[FS_MAX_SIZE], most[FS_MAX_SIZE], wrong[FS_MAX_SIZE];
    float *factor = least, *base = most;
    int fine = 1;
    for (int d = 0; d < size; d++) least[d] = __builtin_inff(), most[d] = -__builtin_inff(), wrong[d] = 0;
    for (int i = 0; i < n; i++) {
        widen(kind, dense + i * stride, size, x);
        bounds(x, size, least, most, wrong);
    }
    for (int d = 0; d < size; d++) {
        fine &= wrong[d] == 0 && scale_of(least[d], most[d], bits, scale + d, low + d);
        factor[d] = half_to_float(scale[d]), base[d] = half_to_float(low[d]);
    }
    if (!fine) return 0;
    for (int i = 0; i < n; i++) {
        widen(kind, dense + i * stride, size, x);
        code(x, factor, base, size, (float)((1 << bits) - 1));
        put_codes(bits, x, size, codes + (int64_t)i * (size * bits / 8));
    }
    return 1;
}

// n entries of which every `group` channels share a scale.
static int encode_values(int kind, const char *dense, int64_t stride, int n, int size, int bits, int group,
                         uint8_t *codes, uint16_t *scale, uint16_t *low) {
    float x[FS_MAX_SIZE], factor[FS_MAX_SIZE], base[FS_MAX_SIZE];
    const int groups = (size + group - 1) / group;
    int fine = 1;
    for (int i = 0; i < n; i++, scale += groups, low += groups) {
        widen(kind, dense + i * stride, size, x);
        for (int g = 0; g < groups; g++) {
            int stop = (g + 1) * group < size ? (g + 1) * group : size;
            float least[16], most[16], wrong[16];
            for (int j = 0; j < 16; j++) least[j] = __builtin_inff(), most[j] = -__builtin_inff(), wrong[j] = 0;
            int d = g * group;
            for (; d + 16 <= stop; d += 16) bounds(x + d, 16, least, most, wrong);
            bounds(x + d, stop - d, least, most, wrong);
            for (int j = 1; j < 16; j++) {
                least[0] = least[j] < least[0] ? least[j] : least[0];
                most[0] = most[j] > most[0] ? most[j] : most[0];
                wrong[0] += wrong[j];
            }
            fine &= wrong[0] == 0 && scale_of(least[0], most[0], bits, scale + g, low + g);
            float f = half_to_float(scale[g]), b = half_to_float(low[g]);
            for (d = g * group; d < stop; d++) factor[d] = f, base[d] = b;
        }
        if (!fine) return 0;
        code(x, factor, base, size, (float)((1 << bits) - 1));
        put_codes(bits, x, size, codes + (int64_t)i * (size * bits / 8));
    }
    return 1;
}

static inline void narrow(int kind, const float *x, int size, char *to) {
    if (kind == FS_F32) {
        __builtin_memcpy(to, x, (size_t)size * 4);
        return;
    }
    uint16_t *out = (uint16_t *)to;
    if (kind == FS_F16) {
        for (int d = 0; d < size; d++) out[d] = float_to_half(x[d]);
        return;
    }
    for (int d = 0; d < size; d++) { // what codes stand for is finite
        uint32_t bits;
        __builtin_memcpy(&bits, x + d, 4);
        out[d] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

// n entries back to numbers. `group` channels share a scale; for keys every channel has its own, and the scales are those
// of the group that all n entries belong to.
static void decode(int kind, const uint8_t *codes, int n, int size, int bits, int keys, int group,
                   const uint16_t *scale, const uint16_t *low, char *dense, int64_t stride) {
    float x[FS_MAX_SIZE], factor[FS_MAX_SIZE], base[FS_MAX_SIZE];
    const int groups = (size + group - 1) / group;
    for (int d = 0; keys && d < size; d++) factor[d] = half_to_float(scale[d]), base[d] = half_to_float(low[d]);
    for (int i = 0; i < n; i++) {
        for (int g = 0; !keys && g < groups; g++) {
            float f = half_to_float(scale[i * groups + g]), b = half_to_float(low[i * groups + g]);
            int stop = (g + 1) * group < size ? (g + 1) * group : size;
            for (int d = g * group; d < stop; d++) factor[d] = f, base[d] = b;
        }
        spread(bits, codes + (int64_t)i * (size * bits / 8), size, x);
        for (int d = 0; d < size; d++) {
            float product = x[d] * factor[d];
            x[d] = product + base[d];
        }
        narrow(kind, x, size, dense + i * stride);
    }
}
