// Tiles for machines with AVX-512 VNNI.
//
// Dense entries: sixteen dot products at a time, reduced together. Codes: integer dot products. A query row (scaled by
// its group's scales) or a row of weights is written as two int8 terms, hi + lo / 254 of one step, which leaves an error
// of 1/65,000 of its largest number; codes stay what they are.
#include "farspan.h"
#include "target.h"
#if defined(__x86_64__)
#include <immintrin.h>
FS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
namespace {
#include "tiles.inl"
#include "wide.inl"

inline F load_wide(int kind, const char *at, __mmask16 mask) {
    if (kind == FS_F32) return _mm512_maskz_loadu_ps(mask, (const float *)at);
    __m256i half = _mm256_maskz_loadu_epi16(mask, at);
    if (kind == FS_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline int width_of(int kind) { return kind == FS_F32 ? 4 : 2; }

// All lines of entry i of those that come next. Inlined by force: the compiler takes a call that does nothing but this for
// one that does nothing.
__attribute__((always_inline)) inline void ask_for(const FsSoon *soon, int i) {
    if (!soon || i >= soon->n) return;
    const char *entry = soon->from + soon->stride * soon->index[i];
    for (int at = 0; at < soon->bytes; at += 64) _mm_prefetch(entry + at, _MM_HINT_T1);
}

// 2^n times a polynomial for 2^r on [-.5, .5] (relative error 1e-7 in float), sixteen at a time; x from -87 to 0.
inline F exp_negative(F x) {
    const F log2e = _mm512_set1_ps(1.44269504088896341f);
    F n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), 0);
    F r = _mm512_fmadd_ps(x, _mm512_set1_ps(1.925963033e-8f), _mm512_fmsub_ps(x, log2e, n)); // what log2e lacks as a float
    F p = _mm512_set1_ps(1.534706535e-04f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339994371e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618484415e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550328642e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264625e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931471825e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.000000000e+00f));
    return _mm512_scalef_ps(p, n);
}

void softmax_wide(float *s, int rows, int n, float *best, float *sum, float *acc, int size) {
    const F nothing = _mm512_set1_ps(-__builtin_inff());
    for (int r = 0; r < rows; r++) {
        float *row = s + r * FS_TILE;
        F most = _mm512_set1_ps(best[r]);
        for (int i = 0; i < n; i += 16) most = _mm512_max_ps(most, _mm512_mask_loadu_ps(nothing, first(n - i), row + i));
        const float high = _mm512_reduce_max_ps(most);
        const bool some = high > -__builtin_inff();
        F total = _mm512_setzero_ps();
        for (int i = 0; i < n; i += 16) {
            // what is 1e-30 of the largest or less counts for nothing: it would come to be denormal, which is slow
            F x = _mm512_sub_ps(_mm512_mask_loadu_ps(nothing, first(n - i), row + i), _mm512_set1_ps(high));
            __mmask16 seen = some ? _mm512_cmp_ps_mask(x, _mm512_set1_ps(-69.0f), _CMP_NLT_UQ) : (__mmask16)0;
            F weight = _mm512_maskz_mov_ps(seen, exp_negative(x));
            _mm512_mask_storeu_ps(row + i, first(n - i), weight);
            total = _mm512_add_ps(total, weight);
        }
        if (!some) continue; // nothing seen yet: no weight to anything
        float keep = best[r] > -__builtin_inff() ? exp_negative(best[r] - high) : 0.0f;
        if (keep != 1.0f)
            for (int d = 0; d < size; d++) acc[r * size + d] *= keep;
        sum[r] = sum[r] * keep + _mm512_reduce_add_ps(total);
        best[r] = high;
    }
}

// Lane l, element j of the result is the sum of v[4 j + l].
inline F sums(const F *v) {
    F w[8], x[4];
    for (int i = 0; i < 8; i++)
        w[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    for (int i = 0; i < 4; i++)
        x[i] = _mm512_add_ps(_mm512_shuffle_f32x4(w[2 * i], w[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(w[2 * i], w[2 * i + 1], 0xdd));
    F low = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    F high = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    __m512d a = _mm512_castps_pd(low), b = _mm512_castps_pd(high);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}

// Dot products of `rows` (1, 2 or 4) rows with as many entries as make sixteen sums: every sum is added up alike, so that
// results do not depend on how many rows come together.
template <int kind, int rows>
void dot_products(const float *q, int have, int size, const char *keys, int64_t stride, const int32_t *index, int n,
                  float *s, const FsSoon *soon) {
    const int width = width_of(kind), entries = 16 / rows;
    const float *row[rows];
    for (int k = 0; k < rows; k++) row[k] = q + (k < have ? k : have - 1) * size;
    for (int i = 0; i < n; i += entries) {
        const char *entry[entries];
        for (int e = 0; e < entries; e++) {
            int at = i + e < n ? i + e : n - 1;
            entry[e] = keys + stride * (index ? index[at] : at);
            ask_for(soon, i + e);
        }
        F sum[16];
        for (int k = 0; k < 16; k++) sum[k] = _mm512_setzero_ps();
        for (int d = 0; d < size; d += 16) {
            __mmask16 mask = first(size - d);
            F x[rows];
            for (int k = 0; k < rows; k++) x[k] = _mm512_maskz_loadu_ps(mask, row[k] + d);
            for (int e = 0; e < entries; e++) {
                F key = load_wide(kind, entry[e] + d * width, mask);
                if (!index && d * width % 64 == 0) _mm_prefetch(entry[e] + d * width + AHEAD, _MM_HINT_T0);
                for (int k = 0; k < rows; k++) {
                    const int at = 4 * (e % 4) + entries / 4 * k + e / 4; // where `sums` leaves a row's entries in order
                    sum[at] = _mm512_fmadd_ps(x[k], key, sum[at]);
                }
            }
        }
        F total = sums(sum);
        __mmask16 some = first(n - i);
        float *to = s + i;
        if (rows == 1) {
            _mm512_mask_storeu_ps(to, some, total);
        } else if (rows == 2) {
            _mm256_mask_storeu_ps(to, (__mmask8)some, _mm512_castps512_ps256(total));
            _mm256_mask_storeu_ps(to + FS_TILE, (__mmask8)some, _mm512_extractf32x8_ps(total, 1));
        } else {
            some &= 15;
            _mm_mask_storeu_ps(to, (__mmask8)some, _mm512_castps512_ps128(total));
            _mm_mask_storeu_ps(to + FS_TILE, (__mmask8)some, _mm512_extractf32x4_ps(total, 1));
            _mm_mask_storeu_ps(to + 2 * FS_TILE, (__mmask8)some, _mm512_extractf32x4_ps(total, 2));
            if (have > 3) _mm_mask_storeu_ps(to + 3 * FS_TILE, (__mmask8)some, _mm512_extractf32x4_ps(total, 3));
        }
    }
}

template <int kind>
void scores_of(const float *q, int rows, int size, const char *keys, int64_t stride, const int32_t *index, int n,
               float *s, const FsSoon *soon) {
    for (int r = 0; r < rows; r += 4) {
        const float *from = q + r * size;
        float *to = s + r * FS_TILE;
        const FsSoon *its = r ? nullptr : soon; // once is enough
        switch (rows - r) {
        case 1: dot_products<kind, 1>(from, 1, size, keys, stride, index, n, to, its); break;
        case 2: dot_products<kind, 2>(from, 2, size, keys, stride, index, n, to, its); break;
        case 3: dot_products<kind, 4>(from, 3, size, keys, stride, index, n, to, its); break;
        default: dot_products<kind, 4>(from, 4, size, keys, stride, index, n, to, its);
        }
    }
}

void scores_dense(int kind, const float *q, int rows, int size, const char *keys, int64_t stride, const int32_t *index,
                  int n, float *s, const FsSoon *soon) {
    if (kind == FS_F32)
        scores_of<FS_F32>(q, rows, size, keys, stride, index, n, s, soon);
    else if (kind == FS_BF16)
        scores_of<FS_BF16>(q, rows, size, keys, stride, index, n, s, soon);
    else
        scores_of<FS_F16>(q, rows, size, keys, stride, index, n, s, soon);
}

// `rows` rows x 16 `vectors` channels of sums in registers while the entries go by.
template <int kind, int rows, int vectors>
void add_values(const float *s, int size, int d, const char *values, int64_t stride, const int32_t *index, int n,
                float *acc, const FsSoon *soon) {
    const int width = width_of(kind);
    __mmask16 mask[vectors];
    F sum[rows][vectors];
    for (int c = 0; c < vectors; c++) {
        mask[c] = first(size - d - 16 * c);
        for (int r = 0; r < rows; r++) sum[r][c] = _mm512_maskz_loadu_ps(mask[c], acc + r * size + d + 16 * c);
    }
    for (int i = 0; i < n; i++) {
        const char *entry = values + stride * (index ? index[i] : i) + d * width;
        if (d == 0) ask_for(soon, i);
        for (int c = 0; c < vectors; c++) {
            F value = load_wide(kind, entry + 16 * c * width, mask[c]);
            if (!index && 16 * c * width % 64 == 0) _mm_prefetch(entry + 16 * c * width + AHEAD, _MM_HINT_T0);
            for (int r = 0; r < rows; r++)
                sum[r][c] = _mm512_fmadd_ps(_mm512_set1_ps(s[r * FS_TILE + i]), value, sum[r][c]);
        }
    }
    for (int c = 0; c < vectors; c++)
        for (int r = 0; r < rows; r++) _mm512_mask_storeu_ps(acc + r * size + d + 16 * c, mask[c], sum[r][c]);
}

template <int kind, int rows>
void add_rows_of_values(const float *s, int size, const char *values, int64_t stride, const int32_t *index, int n,
                        float *acc, const FsSoon *soon) {
    for (int d = 0; d < size; d += 64) switch ((size - d + 15) / 16) {
        case 1: add_values<kind, rows, 1>(s, size, d, values, stride, index, n, acc, soon); break;
        case 2: add_values<kind, rows, 2>(s, size, d, values, stride, index, n, acc, soon); break;
        case 3: add_values<kind, rows, 3>(s, size, d, values, stride, index, n, acc, soon); break;
        default: add_values<kind, rows, 4>(s, size, d, values, stride, index, n, acc, soon);
        }
}

template <int kind>
void values_of(const float *s, int rows, int size, const char *values, int64_t stride, const int32_t *index, int n,
               float *acc, const FsSoon *soon) {
    for (int r = 0; r < rows; r += 4) {
        const float *weights = s + r * FS_TILE;
        float *to = acc + r * size;
        const FsSoon *its = r ? nullptr : soon; // once is enough
        switch (rows - r) {
        case 1: add_rows_of_values<kind, 1>(weights, size, values, stride, index, n, to, its); break;
        case 2: add_rows_of_values<kind, 2>(weights, size, values, stride, index, n, to, its); break;
        case 3: add_rows_of_values<kind, 3>(weights, size, values, stride, index, n, to, its); break;
        default: add_rows_of_values<kind, 4>(weights, size, values, stride, index, n, to, its);
        }
    }
}

void values_dense(int kind, const float *s, int rows, int size, const char *values, int64_t stride,
                  const int32_t *index, int n, float *acc, const FsSoon *soon) {
    if (kind == FS_F32)
        values_of<FS_F32>(s, rows, size, values, stride, index, n, acc, soon);
    else if (kind == FS_BF16)
        values_of<FS_BF16>(s, rows, size, values, stride, index, n, acc, soon);
    else
        values_of<FS_F16>(s, rows, size, values, stride, index, n, acc, soon);
}

// --- codes ---------------------------------------------------------------------------------------------------------

// One row in two int8 terms: x = step (254 hi + lo) up to rounding. Returns step; `lost` is the sum of what rounding lost.
inline float two_terms(const float *x, int size, int8_t *hi, int8_t *lo, float *lost) {
    F most = _mm512_setzero_ps();
    for (int d = 0; d < size; d += 16)
        most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_maskz_loadu_ps(first(size - d), x + d)));
    float high = _mm512_reduce_max_ps(most);
    if (!(high > 0)) high = 1e-30f;
    F inverse = _mm512_set1_ps(127.0f / high), step = _mm512_set1_ps(high / 127.0f);
    F fine = _mm512_set1_ps(254.0f * 127.0f / high), fine_step = _mm512_set1_ps(high / (254.0f * 127.0f));
    F left = _mm512_setzero_ps();
    I least = _mm512_set1_epi32(-127), top = _mm512_set1_epi32(127);
    for (int d = 0; d < size; d += 16) {
        __mmask16 mask = first(size - d);
        F v = _mm512_maskz_loadu_ps(mask, x + d);
        I coarse = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
        F rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(coarse), step, v);
        I small = _mm512_max_epi32(least, _mm512_min_epi32(top, _mm512_cvtps_epi32(_mm512_mul_ps(rest, fine))));
        left = _mm512_add_ps(left, _mm512_fnmadd_ps(_mm512_cvtepi32_ps(small), fine_step, rest));
        _mm_mask_storeu_epi8(hi + d, mask, _mm512_cvtepi32_epi8(coarse));
        _mm_mask_storeu_epi8(lo + d, mask, _mm512_cvtepi32_epi8(small));
    }
    *lost = _mm512_reduce_add_ps(left);
    return high / (127.0f * 254.0f);
}

// Channels as the codes' planes want them: within every 4 * per channels, first those of the lowest bits.
template <int bits> inline void by_plane(int8_t *x, int size) {
    if (bits == 8) return;
    const __m128i order = bits == 4 ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                    : _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int d = 0; d < size; d += 16) {
        __m128i *at = (__m128i *)(x + d);
        _mm_storeu_si128(at, _mm_shuffle_epi8(_mm_loadu_si128(at), order));
    }
}

// 16 entries x 64 bytes -> to[j]: bytes 4 j .. 4 j + 3 of each entry, an entry to a lane.
inline void transposed(const uint8_t *codes, int64_t stride, int n, __mmask64 mask, I flip, I *to) {
    I a[16], b[16];
    for (int i = 0; i < 16; i++)
        a[i] = i < n ? _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, codes + i * stride), flip) : _mm512_setzero_si512();
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            a[i + 2 * k] = _mm512_unpacklo_epi64(b[i + k], b[i + k + 2]);
            a[i + 2 * k + 1] = _mm512_unpackhi_epi64(b[i + k], b[i + k + 2]);
        }
    // a[4 e + c]: lane l holds column 4 l + c of entries 4 e .. 4 e + 3
    for (int c = 0; c < 4; c++) {
        I p = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x44), q = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x44);
        I r = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xee), t = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xee);
        to[c] = _mm512_shuffle_i32x4(p, q, 0x88);
        to[4 + c] = _mm512_shuffle_i32x4(p, q, 0xdd);
        to[8 + c] = _mm512_shuffle_i32x4(r, t, 0x88);
        to[12 + c] = _mm512_shuffle_i32x4(r, t, 0xdd);
    }
}

template <int bits> inline I plane(I codes, int p) {
    if (bits == 8) return codes;
    const I mask = _mm512_set1_epi8((1 << bits) - 1);
    return _mm512_and_si512(p ? _mm512_srli_epi16(codes, p * bits) : codes, mask);
}

template <int bits, int rows>
inline void dot_codes(const I *columns, int words, const int8_t *hi, const int8_t *lo, int size, const float *step,
                      const float *shift, __mmask16 some, float *s) {
    const int per = 8 / bits;
    I high[rows], low[rows];
    for (int r = 0; r < rows; r++) high[r] = low[r] = _mm512_setzero_si512();
    for (int j = 0; j < words; j++)
        for (int p = 0; p < per; p++) {
            I codes = plane<bits>(columns[j], p);
            int word = j * per + p;
            for (int r = 0; r < rows; r++) {
                int32_t a, b;
                __builtin_memcpy(&a, hi + r * size + 4 * word, 4);
                __builtin_memcpy(&b, lo + r * size + 4 * word, 4);
                high[r] = _mm512_dpbusd_epi32(high[r], codes, _mm512_set1_epi32(a));
                low[r] = _mm512_dpbusd_epi32(low[r], codes, _mm512_set1_epi32(b));
            }
        }
    for (int r = 0; r < rows; r++) {
        F sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r]), _mm512_set1_ps(254.0f), _mm512_cvtepi32_ps(low[r]));
        _mm512_mask_storeu_ps(s + r * FS_TILE, some, _mm512_fmadd_ps(sum, _mm512_set1_ps(step[r]), _mm512_set1_ps(shift[r])));
    }
}

template <int bits>
void scores_in(const float *q, int rows, int size, const uint8_t *codes, const uint16_t *scale, const uint16_t *low,
               int n, float *s) {
    alignas(64) int8_t hi[FS_ROWS * FS_MAX_SIZE + 64], lo[FS_ROWS * FS_MAX_SIZE + 64];
    float scaled[FS_MAX_SIZE], step[FS_ROWS], shift[FS_ROWS];
    const int width = size * bits / 8, words = width / 4;
    for (int r = 0; r < rows; r++) {
        F sum = _mm512_setzero_ps();
        for (int d = 0; d < size; d += 16) {
            __mmask16 mask = first(size - d);
            F x = _mm512_maskz_loadu_ps(mask, q + r * size + d);
            sum = _mm512_fmadd_ps(x, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, low + d)), sum);
            _mm512_mask_storeu_ps(scaled + d, mask, _mm512_mul_ps(x, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, scale + d))));
        }
        float lost;
        step[r] = two_terms(scaled, size, hi + r * size, lo + r * size, &lost);
        // codes lie around their middle: with that part of the error put back, what is left counts only their spread
        shift[r] = _mm512_reduce_add_ps(sum) + lost * (float)((1 << bits) - 1) / 2;
    }
    by_plane<bits>(hi, rows * size);
    by_plane<bits>(lo, rows * size);
    const I flip = bits == 8 ? _mm512_set1_epi8((char)0x80) : _mm512_setzero_si512();
    alignas(64) I columns[FS_MAX_SIZE / 4 + 16];
    for (int i = 0; i < n; i += 16) {
        const uint8_t *from = codes + (int64_t)i * width;
        for (int c = 0; c < 16 * width; c += 64) _mm_prefetch(from + c + AHEAD, _MM_HINT_T0);
        for (int c = 0; c < width; c += 64) transposed(from + c, width, n - i, bytes(width - c), flip, columns + c / 4);
        for (int r = 0; r < rows; r += 4) {
            const int8_t *h = hi + r * size, *l = lo + r * size;
            float *to = s + r * FS_TILE + i;
            __mmask16 some = first(n - i);
            switch (rows - r) {
            case 1: dot_codes<bits, 1>(columns, words, h, l, size, step + r, shift + r, some, to); break;
            case 2: dot_codes<bits, 2>(columns, words, h, l, size, step + r, shift + r, some, to); break;
            case 3: dot_codes<bits, 3>(columns, words, h, l, size, step + r, shift + r, some, to); break;
            default: dot_codes<bits, 4>(columns, words, h, l, size, step + r, shift + r, some, to);
            }
        }
    }
}

void scores_of_group(int bits, const float *q, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                     const uint16_t *low, int n, float *s) {
    if (size * bits % 32 || size % 16 || n < 8) // channels that do not fill words, or too few entries to pay
        plain_scores_codes(bits, q, rows, size, codes, scale, low, n, s);
    else if (bits == 8)
        scores_in<8>(q, rows, size, codes, scale, low, n, s);
    else if (bits == 4)
        scores_in<4>(q, rows, size, codes, scale, low, n, s);
    else
        scores_in<2>(q, rows, size, codes, scale, low, n, s);
}

void scores_codes(int bits, const float *q, const float *, int rows, int size, const uint8_t *codes,
                  const uint16_t *scale, const uint16_t *low, int group, int n, float *s) {
    for (int i = 0; i < n; i += group) {
        const int64_t g = i / group * size;
        scores_of_group(bits, q, rows, size, codes + (int64_t)i * size * bits / 8, scale + g, low + g,
                        n - i < group ? n - i : group, s + i);
    }
}

// 4 entries x 64 bytes -> to[k]: columns 16 k .. 16 k + 15, the 4 entries' bytes of a column side by side.
inline void interleaved(const uint8_t *codes, int64_t stride, int n, __mmask64 mask, I flip, I *to) {
    I a[4];
    for (int i = 0; i < 4; i++)
        a[i] = i < n ? _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, codes + i * stride), flip) : _mm512_setzero_si512();
    I ab = _mm512_unpacklo_epi8(a[0], a[1]), AB = _mm512_unpackhi_epi8(a[0], a[1]);
    I cd = _mm512_unpacklo_epi8(a[2], a[3]), CD = _mm512_unpackhi_epi8(a[2], a[3]);
    I v0 = _mm512_unpacklo_epi16(ab, cd), v1 = _mm512_unpackhi_epi16(ab, cd);
    I v2 = _mm512_unpacklo_epi16(AB, CD), v3 = _mm512_unpackhi_epi16(AB, CD);
    // lane l of v[c] holds columns 16 l + 4 c ..: a 4 x 4 transposition of lanes puts columns in order
    I p = _mm512_shuffle_i32x4(v0, v1, 0x44), q = _mm512_shuffle_i32x4(v2, v3, 0x44);
    I r = _mm512_shuffle_i32x4(v0, v1, 0xee), t = _mm512_shuffle_i32x4(v2, v3, 0xee);
    to[0] = _mm512_shuffle_i32x4(p, q, 0x88);
    to[1] = _mm512_shuffle_i32x4(p, q, 0xdd);
    to[2] = _mm512_shuffle_i32x4(r, t, 0x88);
    to[3] = _mm512_shuffle_i32x4(r, t, 0xdd);
}

// Weights times scales of `groups` (1, 2 or 4) groups a value, in two int8 terms: words [quad][group] of 4 entries each.
// Also sums weight * low per group. Returns the step.
inline float weigh_codes(const float *s, const uint16_t *scale, const uint16_t *low, int groups, int n, int32_t *hi,
                         int32_t *lo, float *lows) {
    alignas(64) float scaled[FS_TILE * 4 + 16];
    alignas(64) int8_t h[FS_TILE * 4 + 64], l[FS_TILE * 4 + 64];
    alignas(64) float sums_of[16];
    const int padded = (n + 3) / 4 * 4 * groups, shift = groups == 1 ? 0 : groups == 2 ? 1 : 2;
    I lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    I owner = _mm512_srli_epi32(lane, (unsigned)shift);
    F sum = _mm512_setzero_ps();
    for (int i = 0; i < padded; i += 16) {
        __mmask16 mask = n * groups - i > 0 ? first(n * groups - i) : (__mmask16)0;
        int entry = i >> shift;
        F weights = _mm512_maskz_loadu_ps(n - entry > 0 ? first(n - entry) : (__mmask16)0, s + entry);
        weights = _mm512_permutexvar_ps(owner, weights);
        sum = _mm512_fmadd_ps(weights, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, low + i)), sum);
        F x = _mm512_mul_ps(weights, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, scale + i)));
        _mm512_storeu_ps(scaled + i, x);
    }
    float lost, step = two_terms(scaled, padded, h, l, &lost);
    const __m128i order = groups == 1   ? _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
                          : groups == 2 ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                        : _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int i = 0; i < padded; i += 16) {
        _mm_storeu_si128((__m128i *)((int8_t *)hi + i), _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(h + i)), order));
        _mm_storeu_si128((__m128i *)((int8_t *)lo + i), _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(l + i)), order));
    }
    _mm512_store_ps(sums_of, sum);
    for (int g = 0; g < groups; g++) {
        lows[g] = 0;
        for (int k = g; k < 16; k += groups) lows[g] += sums_of[k];
    }
    return step;
}

// Which weight words the 16 columns of a vector take: all the same group, or the first half one and the rest the next.
struct Columns {
    int group;
    bool halves;
};

template <int bits, int rows>
inline void add_codes(const I *tile, int quads, int vectors, int v, Columns which, int groups, const int32_t *hi,
                      const int32_t *lo, const float *step, int size, int columns, float *acc) {
    const int per = 8 / bits, row = FS_TILE / 4 * groups;
    const __mmask16 second = 0xff00;
    for (int p = 0; p < per; p++) {
        I high[rows], low[rows];
        for (int r = 0; r < rows; r++) high[r] = low[r] = _mm512_setzero_si512();
        for (int k = 0; k < quads; k++) {
            I codes = plane<bits>(tile[k * vectors + v], p);
            for (int r = 0; r < rows; r++) {
                const int32_t *a = hi + r * row + k * groups + which.group, *b = lo + r * row + k * groups + which.group;
                I x = _mm512_set1_epi32(*a), y = _mm512_set1_epi32(*b);
                if (which.halves) {
                    x = _mm512_mask_set1_epi32(x, second, a[1]);
                    y = _mm512_mask_set1_epi32(y, second, b[1]);
                }
                high[r] = _mm512_dpbusd_epi32(high[r], codes, x);
                low[r] = _mm512_dpbusd_epi32(low[r], codes, y);
            }
        }
        __mmask16 some = first(columns - 16 * v);
        for (int r = 0; r < rows; r++) {
            float *to = acc + r * size + p * columns + 16 * v;
            F sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r]), _mm512_set1_ps(254.0f), _mm512_cvtepi32_ps(low[r]));
            _mm512_mask_storeu_ps(to, some, _mm512_fmadd_ps(sum, _mm512_set1_ps(step[r]), _mm512_maskz_loadu_ps(some, to)));
        }
    }
}

// acc is kept by planes, [8 / bits][columns], until finish_codes.
template <int bits>
void values_in(const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale, const uint16_t *low,
               int groups, int group, int n, float *acc) {
    const int per = 8 / bits, columns = size / per, vectors = (columns + 15) / 16, quads = (n + 3) / 4;
    alignas(64) I tile[FS_TILE / 4 * (FS_MAX_SIZE / 16 + 4)];
    alignas(64) int32_t hi[FS_ROWS * FS_TILE + 16], lo[FS_ROWS * FS_TILE + 16];
    float step[FS_ROWS], lows[4];
    const I flip = bits == 8 ? _mm512_set1_epi8((char)0x80) : _mm512_setzero_si512();
    const int room = (columns + 63) / 64 * 4; // vectors of a quad, whole loads of 64 bytes
    for (int k = 0; k < quads; k++) {
        for (int c = 0; c < 4 * columns; c += 64) _mm_prefetch(codes + (int64_t)4 * k * columns + c + AHEAD, _MM_HINT_T0);
        for (int c = 0; c < columns; c += 64)
            interleaved(codes + (int64_t)4 * k * columns + c, columns, n - 4 * k, bytes(columns - c), flip,
                        tile + k * room + c / 16);
    }
    for (int r = 0; r < rows; r++) {
        step[r] = weigh_codes(s + r * FS_TILE, scale, low, groups, n, hi + r * (FS_TILE / 4 * groups),
                              lo + r * (FS_TILE / 4 * groups), lows);
        for (int p = 0; p < per; p++)
            for (int c = 0; c < columns; c += 16) {
                float *to = acc + r * size + p * columns + c;
                int g = c * per / group, next = group / per - (c - g * group / per); // columns left of this group
                F base = _mm512_set1_ps(lows[g]);
                if (next < 16 && g + 1 < groups)
                    base = _mm512_mask_mov_ps(base, (__mmask16)~first(next), _mm512_set1_ps(lows[g + 1]));
                __mmask16 some = first(columns - c);
                _mm512_mask_storeu_ps(to, some, _mm512_add_ps(_mm512_maskz_loadu_ps(some, to), base));
            }
    }
    for (int r = 0; r < rows; r += 4)
        for (int v = 0; v < vectors; v++) {
            int g = 16 * v * per / group;
            Columns which = {g, group / per == 8 && g + 1 < groups};
            const int32_t *h = hi + r * (FS_TILE / 4 * groups), *l = lo + r * (FS_TILE / 4 * groups);
            float *to = acc + r * size;
            switch (rows - r) {
            case 1: add_codes<bits, 1>(tile, quads, room, v, which, groups, h, l, step + r, size, columns, to); break;
            case 2: add_codes<bits, 2>(tile, quads, room, v, which, groups, h, l, step + r, size, columns, to); break;
            case 3: add_codes<bits, 3>(tile, quads, room, v, which, groups, h, l, step + r, size, columns, to); break;
            default: add_codes<bits, 4>(tile, quads, room, v, which, groups, h, l, step + r, size, columns, to);
            }
        }
}

void values_codes(int bits, const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                  const uint16_t *low, int groups, int group, int n, float *acc) {
    if (!regular(bits, size, groups, group)) {
        plain_values_codes(bits, s, rows, size, codes, scale, low, groups, group, n, acc);
        return;
    }
    if (bits == 8)
        values_in<8>(s, rows, size, codes, scale, low, groups, group, n, acc);
    else if (bits == 4)
        values_in<4>(s, rows, size, codes, scale, low, groups, group, n, acc);
    else
        values_in<2>(s, rows, size, codes, scale, low, groups, group, n, acc);
}

void finish_codes(int bits, float *acc, int rows, int size, int groups, int group) {
    const int per = 8 / bits, columns = size / per;
    float natural[FS_MAX_SIZE];
    if (per == 1 || !regular(bits, size, groups, group)) return;
    for (int r = 0; r < rows; r++) {
        for (int p = 0; p < per; p++)
            for (int c = 0; c < columns; c++) natural[c * per + p] = acc[r * size + p * columns + c];
        __builtin_memcpy(acc + r * size, natural, sizeof(float) * (size_t)size);
    }
}

} // namespace
FS_TARGET_END
extern "C" const FsTiles fs_tiles_avx512 = {"avx512", scores_dense, values_dense, plain_scores_codes, plain_values_codes,
                                     plain_unpack, cap_scores, softmax_wide, scores_codes,       values_codes,       finish_codes, 0, 0};
#else
extern "C" const FsTiles fs_tiles_avx512 = {};
#endif
