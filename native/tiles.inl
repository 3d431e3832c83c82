// The tile functions in plain C, written so that compilers vectorise them; included once per instruction set. Nothing
// of the C++ library may be used here: its inline functions would be compiled for this instruction set and could be
// picked by the linker for machines that lack it.

static inline float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023, bits;
    if (exponent == 31)
        bits = sign | 0x7f800000 | mantissa << 13;
    else if (exponent)
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else { // zero or subnormal: mantissa * 2^-24, exact in float
        float value = (float)mantissa * 5.9604644775390625e-08f;
        __builtin_memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float out;
    __builtin_memcpy(&out, &bits, 4);
    return out;
}

static inline float brain_to_float(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float out;
    __builtin_memcpy(&out, &bits, 4);
    return out;
}

static void widen(int kind, const char *from, int size, float *to) {
    if (kind == FS_F32)
        __builtin_memcpy(to, from, (size_t)size * 4);
    else if (kind == FS_BF16)
        for (int d = 0; d < size; d++) to[d] = brain_to_float(((const uint16_t *)from)[d]);
    else
        for (int d = 0; d < size; d++) to[d] = half_to_float(((const uint16_t *)from)[d]);
}

// One entry's codes as numbers 0 .. 2^bits - 1; 8-bit codes lie as code - 128.
static void spread(int bits, const uint8_t *codes, int size, float *to) {
    if (bits == 8)
        for (int d = 0; d < size; d++) to[d] = (float)((int)(int8_t)codes[d] + 128);
    else if (bits == 4)
        for (int d = 0; d < size / 2; d++) {
            to[2 * d] = (float)(codes[d] & 15);
            to[2 * d + 1] = (float)(codes[d] >> 4);
        }
    else
        for (int d = 0; d < size / 4; d++)
            for (int lane = 0; lane < 4; lane++) to[4 * d + lane] = (float)(codes[d] >> 2 * lane & 3);
}

// exp for x <= 0 (and the -inf of hidden entries), to 2 units in the last place: 2^n times a polynomial on [-.5, .5].
static inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = __builtin_rintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    __builtin_memcpy(&scale, &bits, 4);
    return p * scale;
}

// Sixteen lanes of maxima and of sums, so that compilers may work on them together: sums of floats keep their order.
__attribute__((unused)) static void softmax(float *s, int rows, int n, float *best, float *sum, float *acc, int size) {
    const float nothing = -__builtin_inff();
    for (int r = 0; r < rows; r++) {
        float *row = s + r * FS_TILE, most[16], total[16] = {0}, high = best[r];
        for (int j = 0; j < 16; j++) most[j] = high;
        for (int i = n; i < (n + 15) / 16 * 16; i++) row[i] = nothing;
        for (int i = 0; i < n; i += 16)
            for (int j = 0; j < 16; j++) most[j] = row[i + j] > most[j] ? row[i + j] : most[j];
        for (int j = 0; j < 16; j++) high = most[j] > high ? most[j] : high;
        if (high == nothing) { // nothing seen yet: no weight to anything
            for (int i = 0; i < n; i++) row[i] = 0;
            continue;
        }
        for (int i = 0; i < n; i += 16)
            for (int j = 0; j < 16; j++) {
                float weight = exp_negative(row[i + j] - high);
                weight = row[i + j] == nothing ? 0.0f : weight;
                row[i + j] = weight;
                total[j] += weight;
            }
        float keep = best[r] == nothing ? 0.0f : exp_negative(best[r] - high);
        if (keep != 1.0f)
            for (int d = 0; d < size; d++) acc[r * size + d] *= keep;
        for (int j = 1; j < 16; j++) total[0] += total[j];
        sum[r] = sum[r] * keep + total[0];
        best[r] = high;
    }
}

// s = cap tanh(s / cap), by tanh x = (1 - e^-2x) / (1 + e^-2x) for x >= 0; off by a few 1e-8 of cap.
static void cap_scores(float *s, int rows, int n, float cap) {
    for (int r = 0; r < rows; r++) {
        float *row = s + r * FS_TILE;
        for (int i = 0; i < n; i += 16)
            for (int j = 0; j < 16; j++) {
                float x = row[i + j] / cap, e = exp_negative(-2 * __builtin_fabsf(x));
                row[i + j] = cap * __builtin_copysignf((1 - e) / (1 + e), x);
            }
    }
}

static void dot_rows(const float *q, int rows, int size, const float *key, float *s, int i) {
    for (int r = 0; r < rows; r++) {
        float lanes[16] = {0}, total = 0;
        const float *row = q + r * size;
        int d = 0;
        for (; d + 16 <= size; d += 16)
            for (int j = 0; j < 16; j++) lanes[j] += row[d + j] * key[d + j];
        for (; d < size; d++) total += row[d] * key[d];
        for (int j = 0; j < 16; j++) total += lanes[j];
        s[r * FS_TILE + i] = total;
    }
}

static void add_rows(const float *s, int rows, int size, const float *value, float *acc, int i) {
    for (int r = 0; r < rows; r++) {
        float weight = s[r * FS_TILE + i];
        for (int d = 0; d < size; d++) acc[r * size + d] += weight * value[d];
    }
}

static void plain_scores_dense(int kind, const float *q, int rows, int size, const char *keys, int64_t stride,
                               const int32_t *index, int n, float *s, const FsSoon *) {
    float key[FS_MAX_SIZE];
    for (int i = 0; i < n; i++) {
        widen(kind, keys + stride * (index ? index[i] : i), size, key);
        dot_rows(q, rows, size, key, s, i);
    }
}

static void plain_values_dense(int kind, const float *s, int rows, int size, const char *values, int64_t stride,
                               const int32_t *index, int n, float *acc, const FsSoon *) {
    float value[FS_MAX_SIZE];
    for (int i = 0; i < n; i++) {
        widen(kind, values + stride * (index ? index[i] : i), size, value);
        add_rows(s, rows, size, value, acc, i);
    }
}

// Entries are brought to floating point before the product: taking scales and lows out of the sum would be cheaper, and
// lose digits where they cancel.
static void plain_scores_codes(int bits, const float *q, int rows, int size, const uint8_t *codes,
                               const uint16_t *scale, const uint16_t *low, int n, float *s) {
    float factor[FS_MAX_SIZE], base[FS_MAX_SIZE], key[FS_MAX_SIZE];
    for (int d = 0; d < size; d++) {
        factor[d] = half_to_float(scale[d]);
        base[d] = half_to_float(low[d]);
    }
    for (int i = 0; i < n; i++) {
        spread(bits, codes + (int64_t)i * size * bits / 8, size, key);
        for (int d = 0; d < size; d++) key[d] = key[d] * factor[d] + base[d];
        dot_rows(q, rows, size, key, s, i);
    }
}

static void plain_values_codes(int bits, const float *s, int rows, int size, const uint8_t *codes,
                               const uint16_t *scale, const uint16_t *low, int groups, int group, int n, float *acc) {
    float value[FS_MAX_SIZE];
    for (int i = 0; i < n; i++) {
        spread(bits, codes + (int64_t)i * size * bits / 8, size, value);
        for (int g = 0; g < groups; g++) {
            float factor = half_to_float(scale[i * groups + g]), base = half_to_float(low[i * groups + g]);
            int stop = (g + 1) * group < size ? (g + 1) * group : size;
            for (int d = g * group; d < stop; d++) value[d] = value[d] * factor + base;
        }
        add_rows(s, rows, size, value, acc, i);
    }
}

// One entry in floating point; `group` channels share a scale.
static void plain_unpack(int bits, const uint8_t *codes, int size, const uint16_t *scale, const uint16_t *low,
                         int group, float *to) {
    spread(bits, codes, size, to);
    for (int d = 0; d < size; d++) to[d] = to[d] * half_to_float(scale[d / group]) + half_to_float(low[d / group]);
}
