// Tiles for machines with AMX: products of codes are matrix products of int8, everything else is AVX-512's.
//
// A row of queries (scaled by its group's scales) or of weights is written in two int8 terms, 256 hi + lo steps, which
// leaves an error of 1/65,000 of its largest number; codes stay what they are. Eight rows are worked on together: a
// matrix holds their hi terms in its first eight rows or columns and their lo terms in the others. Codes of 4 and 2 bits
// are spread out by planes: those of the lowest bits of every byte, then those of the next.
#include "farspan.h"
#include "target.h"
#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
FS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,fma,f16c,amx-tile,amx-int8")
namespace {
#include "wide.inl"

const int BLOCK = 8; // rows together

// Where the rows of lo terms begin among those of weights.
inline int low_row(int rows) { return rows > 4 ? 8 : 4; }

// Tiles 0 to 3 serve scores: two of sums, the entries, the columns. The others serve values: two of sums and the weights,
// with half the rows where four rows are all there are, and another one of columns.
struct alignas(64) Shapes {
    uint8_t palette, start, none[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};
const Shapes few = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 8, 8, 8, 16}};
const Shapes many = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

void begin(int rows) {
    if (rows > 4)
        _tile_loadconfig(&many);
    else
        _tile_loadconfig(&few);
}

void end() { _tile_release(); }

// What comes after the entries at hand is asked of memory little by little while they are worked on: asked for at once it
// would be waited for, and nothing would be under way meanwhile.
struct Ahead {
    const char *at, *end;
    int some;
    Ahead(const void *from, int64_t bytes, int turns) : at((const char *)from), end(at + bytes), some((int)(bytes / 64 / turns) + 1) {}
    void ask() {
        for (int k = 0; k < some && at < end; k++, at += 64) _mm_prefetch(at, _MM_HINT_T0);
    }
    ~Ahead() {
        for (; at < end; at += 64) _mm_prefetch(at, _MM_HINT_T0);
    }
};

inline void ask_for(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) _mm_prefetch((const char *)from + at, _MM_HINT_T0);
}

inline F half_floats(const uint16_t *at, __mmask16 mask) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at)); }

// 64 numbers of at most 32,512 steps each as two int8 terms, in order.
inline void two_terms(const float *x, F inverse, I *hi, I *lo) {
    I wide[4];
    for (int i = 0; i < 4; i++) wide[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), inverse));
    const I half = _mm512_set1_epi16(128), order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    I a = _mm512_packs_epi32(wide[0], wide[1]), b = _mm512_packs_epi32(wide[2], wide[3]);
    I a_hi = _mm512_srai_epi16(_mm512_add_epi16(a, half), 8), b_hi = _mm512_srai_epi16(_mm512_add_epi16(b, half), 8);
    I a_lo = _mm512_sub_epi16(a, _mm512_slli_epi16(a_hi, 8)), b_lo = _mm512_sub_epi16(b, _mm512_slli_epi16(b_hi, 8));
    *hi = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(a_hi, b_hi));
    *lo = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(a_lo, b_lo));
}

// The step that makes the largest number 32,512 steps.
inline float step_of(F most, F *inverse) {
    float high = _mm512_reduce_max_ps(most);
    if (!(high > 0)) high = 1e-30f;
    *inverse = _mm512_set1_ps(32512.0f / high);
    return high / 32512.0f;
}

// Channels in the order of planes: within every 4 * per channels, first those of the lowest bits.
template <int bits> inline I by_plane(I x) {
    if (bits == 8) return x;
    const __m128i order = bits == 4 ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                    : _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(order));
}

// Word w of lane l, of four rows each -> the rows' words side by side at to + 16 * (their column by planes).
// The last chunk may be filled up with words of no channel, whose place would be another plane's.
template <int bits> inline void store_columns(const I *row, int chunk, int width, int8_t *to) {
    const int per = 8 / bits;
    I ab = _mm512_unpacklo_epi32(row[0], row[1]), AB = _mm512_unpackhi_epi32(row[0], row[1]);
    I cd = _mm512_unpacklo_epi32(row[2], row[3]), CD = _mm512_unpackhi_epi32(row[2], row[3]);
    const I word[4] = {_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd), _mm512_unpacklo_epi64(AB, CD),
                       _mm512_unpackhi_epi64(AB, CD)}; // word[m], lane l: word 4 l + m of the chunk
    for (int m = 0; m < 4; m++) {
        const __m128i lane[4] = {_mm512_castsi512_si128(word[m]), _mm512_extracti32x4_epi32(word[m], 1),
                                 _mm512_extracti32x4_epi32(word[m], 2), _mm512_extracti32x4_epi32(word[m], 3)};
        for (int l = 0; l < 4; l++) {
            const int w = 4 * l + m, byte = 4 * (chunk * (16 / per) + w / per);
            if (byte < width) _mm_store_si128((__m128i *)(to + 16 * (w % per * width + byte)), lane[l]);
        }
    }
}

// Rows (at most BLOCK) times scales, as the right-hand matrices of `scores`: [channels / 64] of 16 x 64 bytes.
template <int bits>
inline void query_columns(const float *q, int rows, int size, const float *scale, const float *low, int8_t *to,
                          float *step, float *shift, Ahead &ahead) {
    alignas(64) float scaled[FS_MAX_SIZE + 64];
    const int width = size * bits / 8, chunks = (size + 63) / 64;
    I hi[FS_MAX_SIZE / 64][4], lo[FS_MAX_SIZE / 64][4];
    for (int d = size; d < 64 * chunks; d += 16) _mm512_store_ps(scaled + d, _mm512_setzero_ps());
    for (int set = 0; set < rows; set += 4) {
        for (int k = 0; k < 4; k++) {
            const int r = set + k < rows ? set + k : rows - 1;
            ahead.ask();
            F most = _mm512_setzero_ps(), base = most, whole = most;
            for (int d = 0; d < size; d += 16) {
                F x = _mm512_loadu_ps(q + r * size + d), y = _mm512_mul_ps(x, _mm512_loadu_ps(scale + d));
                base = _mm512_fmadd_ps(x, _mm512_loadu_ps(low + d), base);
                whole = _mm512_add_ps(whole, y);
                most = _mm512_max_ps(most, _mm512_abs_ps(y));
                _mm512_store_ps(scaled + d, y);
            }
            F inverse;
            step[r] = step_of(most, &inverse);
            // codes of 8 bits lie as code - 128
            if (bits == 8) base = _mm512_fmadd_ps(whole, _mm512_set1_ps(128.0f), base);
            shift[r] = _mm512_reduce_add_ps(base);
            ahead.ask();
            for (int c = 0; c < chunks; c++) {
                two_terms(scaled + 64 * c, inverse, &hi[c][k], &lo[c][k]);
                hi[c][k] = by_plane<bits>(hi[c][k]), lo[c][k] = by_plane<bits>(lo[c][k]);
            }
        }
        for (int c = 0; c < chunks; c++) {
            store_columns<bits>(hi[c], c, width, to + 4 * set);
            store_columns<bits>(lo[c], c, width, to + 4 * set + 32);
        }
    }
}

// n entries, spread out: a byte for every channel, planes one after the other, `room` bytes from entry to entry.
template <int bits> inline void spread_rows(const uint8_t *codes, int width, int n, int room, uint8_t *to, Ahead &ahead) {
    for (int i = 0; i < n; i++) {
        if (i % 8 == 0) ahead.ask();
        const uint8_t *from = codes + (int64_t)i * width;
        uint8_t *entry = to + i * room;
        if (bits == 8) {
            for (int c = 0; c < width; c += 64)
                _mm512_storeu_si512(entry + c, _mm512_maskz_loadu_epi8(bytes(width - c), from + c));
        } else if (bits == 2 && width == 32) {
            const I mask = _mm512_set1_epi8(3);
            I x = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)from));
            const I one = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
            x = _mm512_srlv_epi16(x, one);
            _mm512_storeu_si512(entry, _mm512_and_si512(x, mask));
            _mm512_storeu_si512(entry + 64, _mm512_and_si512(_mm512_srli_epi16(x, 4), mask));
        } else {
            const I mask = _mm512_set1_epi8((1 << bits) - 1);
            for (int c = 0; c < width; c += 64) {
                const __mmask64 some = bytes(width - c);
                const I x = _mm512_maskz_loadu_epi8(some, from + c);
                for (int p = 0; p < 8 / bits; p++)
                    _mm512_mask_storeu_epi8(entry + p * width + c, some,
                                            _mm512_and_si512(_mm512_srli_epi16(x, p * bits), mask));
            }
        }
    }
}

// Sums of 16 entries x (8 hi, 8 lo) -> scores of four rows.
inline void four_rows(const int32_t *sums, int set, int rows, const float *step, const float *shift, __mmask16 some,
                      float *s) {
    F f[4];
    for (int i = 0; i < 4; i++) {
        const int32_t *at = sums + 64 * i + set;
        I hi = _mm512_castsi128_si512(_mm_load_si128((const __m128i *)at));
        I lo = _mm512_castsi128_si512(_mm_load_si128((const __m128i *)(at + 8)));
        hi = _mm512_mask_broadcast_i32x4(hi, 0x00f0, _mm_load_si128((const __m128i *)(at + 16)));
        lo = _mm512_mask_broadcast_i32x4(lo, 0x00f0, _mm_load_si128((const __m128i *)(at + 24)));
        hi = _mm512_mask_broadcast_i32x4(hi, 0x0f00, _mm_load_si128((const __m128i *)(at + 32)));
        lo = _mm512_mask_broadcast_i32x4(lo, 0x0f00, _mm_load_si128((const __m128i *)(at + 40)));
        hi = _mm512_mask_broadcast_i32x4(hi, 0xf000, _mm_load_si128((const __m128i *)(at + 48)));
        lo = _mm512_mask_broadcast_i32x4(lo, 0xf000, _mm_load_si128((const __m128i *)(at + 56)));
        f[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(hi), _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(lo));
    }
    const I low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    const I high = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
    F a = _mm512_permutex2var_ps(f[0], low, f[1]), b = _mm512_permutex2var_ps(f[2], low, f[3]);
    F c = _mm512_permutex2var_ps(f[0], high, f[1]), d = _mm512_permutex2var_ps(f[2], high, f[3]);
    const F row[4] = {_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee),
                      _mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee)};
    for (int k = 0; k < 4; k++)
        if (set + k < rows)
            _mm512_mask_storeu_ps(s + (set + k) * FS_TILE, some,
                                  _mm512_fmadd_ps(row[k], _mm512_set1_ps(step[set + k]), _mm512_set1_ps(shift[set + k])));
}

// Sums [16][16] of 16 or of 32 entries, `stride` bytes apart, with the columns of `steps` matrices. Two take turns, since a
// product is waited for where the next one adds to it.
inline void products(const uint8_t *entries, int64_t stride, bool two, const int8_t *columns, int steps,
                     int32_t *sums) {
    _tile_zero(0);
    _tile_zero(1);
    for (int k = 0; k < steps; k++) {
        _tile_loadd(3, columns + 1024 * k, 64);
        _tile_loadd(2, entries + 64 * k, stride);
        _tile_dpbssd(0, 2, 3);
        if (two) {
            _tile_loadd(2, entries + 16 * stride + 64 * k, stride);
            _tile_dpbssd(1, 2, 3);
        }
    }
    _tile_stored(0, sums, 64);
    if (two) _tile_stored(1, sums + 256, 64);
}

inline void all_products(const uint8_t *entries, int64_t stride, int n, const int8_t *columns, int steps,
                         int32_t *sums, Ahead &ahead) {
    for (int i = 0; i < n; i += 32) {
        ahead.ask();
        products(entries + i * stride, stride, n - i > 16, columns, steps, sums + 16 * i);
    }
}

template <int bits>
void scores_in(const float *q, int rows, int size, const uint8_t *codes, const uint16_t *scale, const uint16_t *low,
               int n, float *s) {
    alignas(64) int8_t columns[FS_MAX_SIZE * 16];
    alignas(64) int32_t sums[FS_TILE / 16][16 * 16];
    alignas(64) uint8_t entries[FS_TILE * FS_MAX_SIZE + 64];
    alignas(64) float scales[FS_MAX_SIZE], lows[FS_MAX_SIZE];
    float step[BLOCK], shift[BLOCK];
    const int width = size * bits / 8, steps = (size + 63) / 64;
    for (int d = 0; d < size; d += 16) {
        _mm512_store_ps(scales + d, half_floats(scale + d, 0xffff));
        _mm512_store_ps(lows + d, half_floats(low + d, 0xffff));
    }
    if (size % 64) __builtin_memset(columns + 1024 * (steps - 1), 0, 1024);
    const int direct = bits == 8 && size % 64 == 0 ? n / 16 * 16 : 0; // these can be taken from where they lie
    Ahead ahead(codes + (int64_t)n * width, (int64_t)n * width, 8 + 2 * n / 16 + (bits == 8 ? 0 : n / 8));
    ask_for(scale + size, 2 * size);
    ask_for(low + size, 2 * size);
    if (direct < n) spread_rows<bits>(codes + (int64_t)direct * width, width, n - direct, 64 * steps, entries, ahead);
    for (int r = 0; r < rows; r += BLOCK) {
        const int some = rows - r < BLOCK ? rows - r : BLOCK;
        query_columns<bits>(q + r * size, some, size, scales, lows, columns, step, shift, ahead);
        all_products(codes, width, direct, columns, steps, sums[0], ahead);
        if (direct < n) all_products(entries, 64 * steps, n - direct, columns, steps, sums[direct / 16], ahead);
        for (int i = 0; i < n; i += 16) {
            ahead.ask();
            for (int set = 0; set < some; set += 4)
                four_rows(sums[i / 16], set, some, step, shift, first(n - i), s + r * FS_TILE + i);
        }
    }
}

void scores_codes(int bits, const float *q, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                  const uint16_t *low, int n, float *s) {
    if (size * bits % 32 || size % 16 || n < 8)
        fs_tiles_avx512.quick_scores_codes(bits, q, rows, size, codes, scale, low, n, s);
    else if (bits == 8)
        scores_in<8>(q, rows, size, codes, scale, low, n, s);
    else if (bits == 4)
        scores_in<4>(q, rows, size, codes, scale, low, n, s);
    else
        scores_in<2>(q, rows, size, codes, scale, low, n, s);
}

// 16 bytes of four entries, the entries' bytes of a column side by side.
inline I quad(const uint8_t *const *entry, int at) {
    const I order = _mm512_set_epi8(63, 47, 31, 15, 62, 46, 30, 14, 61, 45, 29, 13, 60, 44, 28, 12, 59, 43, 27, 11, 58,
                                    42, 26, 10, 57, 41, 25, 9, 56, 40, 24, 8, 55, 39, 23, 7, 54, 38, 22, 6, 53, 37, 21,
                                    5, 52, 36, 20, 4, 51, 35, 19, 3, 50, 34, 18, 2, 49, 33, 17, 1, 48, 32, 16, 0);
    I x = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(entry[0] + at)));
    x = _mm512_mask_broadcast_i32x4(x, 0x00f0, _mm_loadu_si128((const __m128i *)(entry[1] + at)));
    x = _mm512_mask_broadcast_i32x4(x, 0x0f00, _mm_loadu_si128((const __m128i *)(entry[2] + at)));
    x = _mm512_mask_broadcast_i32x4(x, 0xf000, _mm_loadu_si128((const __m128i *)(entry[3] + at)));
    return _mm512_permutexvar_epi8(order, x);
}

// n entries of `groups` numbers each -> to[g]: the numbers of group g, FS_TILE apart.
inline void by_group(const uint16_t *from, int groups, int n, float *to) {
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const I odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    for (int i = 0; i < n; i += 16) {
        F x[4];
        for (int k = 0; k < groups; k++) {
            const int left = (n - i) * groups - 16 * k;
            x[k] = half_floats(from + i * groups + 16 * k, left > 0 ? first(left) : (__mmask16)0);
        }
        if (groups == 1) {
            _mm512_store_ps(to + i, x[0]);
            continue;
        }
        F e = _mm512_permutex2var_ps(x[0], even, x[1]), o = _mm512_permutex2var_ps(x[0], odd, x[1]);
        if (groups == 2) {
            _mm512_store_ps(to + i, e);
            _mm512_store_ps(to + FS_TILE + i, o);
            continue;
        }
        F E = _mm512_permutex2var_ps(x[2], even, x[3]), O = _mm512_permutex2var_ps(x[2], odd, x[3]);
        _mm512_store_ps(to + i, _mm512_permutex2var_ps(e, even, E));
        _mm512_store_ps(to + FS_TILE + i, _mm512_permutex2var_ps(o, even, O));
        _mm512_store_ps(to + 2 * FS_TILE + i, _mm512_permutex2var_ps(e, odd, E));
        _mm512_store_ps(to + 3 * FS_TILE + i, _mm512_permutex2var_ps(o, odd, O));
    }
}

// One row of weights times scales as the left-hand matrices of `values`, [groups][2] of `matrix` bytes each: its hi terms,
// and its lo terms `low_terms` rows on. Returns the step; base[g] is what the codes' zero points add.
inline float weight_rows(int bits, const float *s, int groups, int n, int steps, const float *scale, const float *low,
                         const float *largest, int8_t *to, int matrix, int low_terms, float *base, Ahead &ahead) {
    alignas(64) float weight[FS_TILE], scaled[64];
    F most = _mm512_setzero_ps(), inverse;
    for (int i = 0; i < 64 * steps; i += 16) {
        F x = _mm512_maskz_loadu_ps(n - i > 0 ? first(n - i) : (__mmask16)0, s + i);
        most = _mm512_max_ps(most, _mm512_mul_ps(x, _mm512_load_ps(largest + i)));
        _mm512_store_ps(weight + i, x);
    }
    float step = step_of(most, &inverse);
    for (int g = 0; g < groups; g++) {
        F lows = _mm512_setzero_ps(), whole = lows;
        ahead.ask();
        for (int k = 0; k < steps; k++) {
            for (int i = 0; i < 64; i += 16) {
                const int at = g * FS_TILE + 64 * k + i;
                F w = _mm512_load_ps(weight + 64 * k + i), x = _mm512_mul_ps(w, _mm512_load_ps(scale + at));
                lows = _mm512_fmadd_ps(w, _mm512_load_ps(low + at), lows);
                if (bits == 8) whole = _mm512_add_ps(whole, x);
                _mm512_store_ps(scaled + i, x);
            }
            I hi, lo;
            two_terms(scaled, inverse, &hi, &lo);
            _mm512_store_si512(to + (2 * g + k) * matrix, hi);
            _mm512_store_si512(to + (2 * g + k) * matrix + 64 * low_terms, lo);
        }
        if (bits == 8) lows = _mm512_fmadd_ps(whole, _mm512_set1_ps(128.0f), lows);
        base[g] = _mm512_reduce_add_ps(lows);
    }
    return step;
}

// Sums [.][16] of two products, or of one: the rows of `steps` matrices with 16 columns of four entries a row.
inline void weighed(const int8_t *const *left, int64_t left_step, const I *const *columns, bool two, int steps,
                    int32_t *const *sums) {
    _tile_zero(4);
    _tile_zero(5);
    for (int k = 0; k < steps; k++) {
        _tile_loadd(6, left[0] + left_step * k, 64);
        _tile_loadd(3, columns[0] + 16 * k, 64);
        _tile_dpbssd(4, 6, 3);
        if (two) {
            _tile_loadd(6, left[1] + left_step * k, 64);
            _tile_loadd(7, columns[1] + 16 * k, 64);
            _tile_dpbssd(5, 6, 7);
        }
    }
    _tile_stored(4, sums[0], 64);
    if (two) _tile_stored(5, sums[1], 64);
}

// acc is kept by planes, [8 / bits][columns], until finish_codes.
template <int bits>
void values_in(const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale, const uint16_t *low,
               int groups, int group, int n, float *acc) {
    const int per = 8 / bits, columns = size / per, vectors = columns / 16, steps = (n + 63) / 64;
    alignas(64) I tile[FS_MAX_SIZE / 16][FS_TILE / 4]; // [plane, vector][four entries]
    alignas(64) int8_t weights[4 * 2 * 1024];          // [group][step] of 16 x 64 bytes
    alignas(64) int32_t sums[2 * FS_MAX_SIZE / 16][16 * 16]; // [plane, vector][half]
    alignas(64) float scales[4 * FS_TILE], lows[4 * FS_TILE], largest[FS_TILE];
    float step[BLOCK], base[BLOCK][4];
    const I mask = _mm512_set1_epi8((1 << bits) - 1);
    Ahead ahead(codes + (int64_t)n * columns, (int64_t)n * columns, n / 16 + 4 * groups + per * vectors);
    ask_for(scale + n * groups, 2 * n * groups);
    ask_for(low + n * groups, 2 * n * groups);
    for (int k = 0; 4 * k < n; k++) {
        const uint8_t *at = codes + (int64_t)4 * k * columns, *entry[4];
        for (int i = 0; i < 4; i++) entry[i] = 4 * k + i < n ? at + i * columns : at;
        if (k % 4 == 0) ahead.ask();
        for (int v = 0; v < vectors; v++) {
            I x = quad(entry, 16 * v);
            for (int p = 0; p < per; p++)
                tile[p * vectors + v][k] = bits == 8 ? x : _mm512_and_si512(p ? _mm512_srli_epi16(x, p * bits) : x, mask);
        }
    }
    by_group(scale, groups, n, scales);
    by_group(low, groups, n, lows);
    for (int i = 0; i < 64 * steps; i += 16) {
        F most = _mm512_setzero_ps();
        for (int g = 0; i < n && g < groups; g++)
            most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_load_ps(scales + g * FS_TILE + i)));
        _mm512_store_ps(largest + i, most);
        for (int g = 0; i >= n && g < groups; g++) { // whatever lies there is multiplied by no weight
            _mm512_store_ps(scales + g * FS_TILE + i, most);
            _mm512_store_ps(lows + g * FS_TILE + i, most);
        }
    }
    const int low_terms = low_row(rows), matrix = 2 * low_terms * 64;
    const bool halves = group / per == 8 && groups > 1; // 16 columns are of two groups
    int products = 0, first_group[FS_MAX_SIZE / 16], group_at[2 * FS_MAX_SIZE / 16];
    const I *column_at[2 * FS_MAX_SIZE / 16];
    int32_t *sum_at[2 * FS_MAX_SIZE / 16];
    for (int v = 0; v < per * vectors; v++) {
        first_group[v] = v < vectors ? 16 * v * per / group : first_group[v - vectors];
        for (int h = 0; h < (halves ? 2 : 1) && first_group[v] + h < groups; h++) {
            group_at[products] = first_group[v] + h, column_at[products] = tile[v];
            sum_at[products++] = sums[2 * v + h];
        }
    }
    for (int first_row = 0; first_row < rows; first_row += BLOCK) {
        const int some = rows - first_row < BLOCK ? rows - first_row : BLOCK;
        for (int r = 0; r < some; r++)
            step[r] = weight_rows(bits, s + (first_row + r) * FS_TILE, groups, n, steps, scales, lows, largest,
                                  weights + 64 * r, matrix, low_terms, base[r], ahead);
        for (int done = 0; done < products; done += 2) {
            const int8_t *left[2] = {weights + 2 * matrix * group_at[done], nullptr};
            if (done + 1 < products) left[1] = weights + 2 * matrix * group_at[done + 1];
            ahead.ask();
            weighed(left, matrix, column_at + done, left[1] != nullptr, steps, sum_at + done);
        }
        for (int v = 0; v < per * vectors; v++) {
            const int g = first_group[v % vectors];
            const bool two = halves && g + 1 < groups;
            for (int r = 0; r < some; r++) {
                float *to = acc + (first_row + r) * size + 16 * v;
                const int32_t *from = sums[2 * v] + 16 * r;
                I hi = _mm512_load_si512(from), lo = _mm512_load_si512(from + 16 * low_terms);
                F sum = _mm512_set1_ps(base[r][g]);
                if (two) {
                    hi = _mm512_mask_mov_epi32(hi, 0xff00, _mm512_load_si512(from + 256));
                    lo = _mm512_mask_mov_epi32(lo, 0xff00, _mm512_load_si512(from + 256 + 16 * low_terms));
                    sum = _mm512_mask_mov_ps(sum, 0xff00, _mm512_set1_ps(base[r][g + 1]));
                }
                F x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(hi), _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(lo));
                sum = _mm512_fmadd_ps(x, _mm512_set1_ps(step[r]), sum);
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sum));
            }
        }
    }
}

void values_codes(int bits, const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                  const uint16_t *low, int groups, int group, int n, float *acc) {
    if (!regular(bits, size, groups, group) || size * bits % 128)
        fs_tiles_avx512.quick_values_codes(bits, s, rows, size, codes, scale, low, groups, group, n, acc);
    else if (bits == 8)
        values_in<8>(s, rows, size, codes, scale, low, groups, group, n, acc);
    else if (bits == 4)
        values_in<4>(s, rows, size, codes, scale, low, groups, group, n, acc);
    else
        values_in<2>(s, rows, size, codes, scale, low, groups, group, n, acc);
}

} // namespace
FS_TARGET_END

static FsTiles made() {
    FsTiles set = fs_tiles_avx512;
    set.name = "amx";
    set.quick_scores_codes = scores_codes;
    set.quick_values_codes = values_codes;
    set.begin = begin;
    set.end = end;
    return set;
}
extern "C" const FsTiles fs_tiles_amx = made();
#else
extern "C" const FsTiles fs_tiles_amx = {};
#endif
