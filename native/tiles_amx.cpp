// Tiles for machines with AMX: products of codes are matrix products of int8, everything else is AVX-512's.
//
// A row of queries (scaled by its group's scales) or of weights is written in two int8 terms, 256 hi + lo steps, which
// leaves an error of 1/65,000 of its largest number, or of what the largest scales around would make of it (see `begin`);
// codes stay what they are. Four or eight rows are worked on together, their hi and lo terms as rows or columns of one
// matrix. Codes of 4 and 2 bits are spread out by planes: those of the lowest bits of every byte, then those of the next.
//
// What vectors do around the products is most of the time, so it is kept short: a query's step is found once for all entries
// of a work item, terms are cut by bytes, and the order that packing leaves numbers in is the order that matrices are laid
// out in.
#include "farspan.h"
#include "target.h"
#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
FS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,fma,f16c,amx-tile,amx-int8")
namespace {
#include "wide.inl"

// Bodies that are compiled once for whatever comes and again for the shapes that most models have.
#define ALWAYS __attribute__((always_inline)) inline

const int BLOCK = 8; // rows together

// Where the rows of lo terms begin among those of weights, and the bytes of a row of query columns.
inline int low_row(int rows) { return rows > 4 ? 8 : 4; }
inline int row_bytes(int rows) { return rows > 4 ? 64 : 32; }

// Tiles 0 to 3 serve scores: two of sums, the entries, the columns of queries. Tiles 4 to 7 serve values: two of sums, the
// weights, and one of columns, beside tile 2. Where four rows are all there are, matrices of queries, of weights and of
// scores are half as wide.
struct alignas(64) Shapes {
    uint8_t palette, start, none[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};
const Shapes few = {1, 0, {}, {32, 32, 64, 32, 64, 64, 64, 64}, {16, 16, 16, 16, 8, 8, 8, 16}};
const Shapes many = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

inline F half_floats(const uint16_t *at, __mmask16 mask) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at)); }

// The step that makes the largest number 32,512 steps.
inline float step_of(F most, F *inverse) {
    float high = _mm512_reduce_max_ps(most);
    if (!(high > 1e-30f)) high = 1e-30f;
    *inverse = _mm512_set1_ps(32512.0f / high);
    return high / 32512.0f;
}

// What a row of queries comes to where channels have these scales.
inline F products_with(const float *q, int size, const uint16_t *scales) {
    F most = _mm512_setzero_ps();
    for (int d = 0; d < size; d += 16) {
        F x = _mm512_maskz_loadu_ps(first(size - d), q + d);
        most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_mul_ps(x, half_floats(scales + d, first(size - d)))));
    }
    return most;
}

// Queries in steps: the largest scale that each channel has in any group bounds what they come to. Where groups differ so much
// that the smallest would lose more than four of sixteen bits by that, nothing is done.
bool begin(float *q, int rows, int size, const uint16_t *scale, int64_t groups, float *step) {
    _tile_loadconfig(rows > 4 ? &many : &few);
    alignas(64) uint16_t top[FS_MAX_SIZE], bottom[FS_MAX_SIZE];
    for (int d = 0; d < size; d += 32) { // float16 of one sign are in order as integers
        const __mmask32 some = size - d >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << (size - d)) - 1;
        I most = _mm512_setzero_si512(), least = _mm512_set1_epi16(-1);
        for (int64_t g = 0; g < groups; g++) {
            const I x = _mm512_maskz_loadu_epi16(some, scale + g * size + d);
            most = _mm512_max_epu16(most, x), least = _mm512_min_epu16(least, x);
        }
        _mm512_mask_storeu_epi16(top + d, some, most);
        _mm512_mask_storeu_epi16(bottom + d, some, least);
    }
    for (int r = 0; r < rows; r++) {
        const F high = products_with(q + r * size, size, top), low = products_with(q + r * size, size, bottom);
        if (_mm512_reduce_max_ps(high) > 16 * _mm512_reduce_max_ps(low)) return false;
    }
    for (int r = 0; r < rows; r++) {
        F inverse;
        step[r] = step_of(products_with(q + r * size, size, top), &inverse);
        for (int d = 0; d < size; d += 16) {
            F x = _mm512_maskz_loadu_ps(first(size - d), q + r * size + d);
            _mm512_mask_storeu_ps(q + r * size + d, first(size - d), _mm512_mul_ps(x, inverse));
        }
    }
    return true;
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

// 64 numbers of at most 32,512 steps each as two int8 terms. Packing works within lanes of 16 bytes: word j of lane l holds
// numbers 16 j + 4 l and on.
inline void two_terms(const I *wide, I *hi, I *lo) {
    const I half = _mm512_set1_epi16(128), byte = _mm512_set1_epi16(255);
    I a = _mm512_packs_epi32(wide[0], wide[1]), b = _mm512_packs_epi32(wide[2], wide[3]);
    *hi = _mm512_packs_epi16(_mm512_srai_epi16(_mm512_add_epi16(a, half), 8), _mm512_srai_epi16(_mm512_add_epi16(b, half), 8));
    *lo = _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
}

// Sums of four vectors.
inline __m128 four_sums(const F *x) {
    F ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    F cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    __m512d p = _mm512_castps_pd(ab), q = _mm512_castps_pd(cd);
    F all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)), _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Where each byte of a chunk of 64 channels comes from, so that word m of lane l becomes word 4 m + l of the chunk by planes
// (all of the lowest bits' channels first).
template <int bits> struct ByPlane {
    alignas(64) uint8_t from[64];
    constexpr ByPlane() : from() {
        const int per = 8 / bits, words = 16 / per; // of a plane
        for (int l = 0; l < 4; l++)
            for (int m = 0; m < 4; m++)
                for (int i = 0; i < 4; i++) {
                    const int word = 4 * m + l, channel = per * (4 * (word % words) + i) + word / words;
                    from[16 * l + 4 * m + i] = (uint8_t)(16 * (channel % 16 / 4) + 4 * (channel / 16) + channel % 4);
                }
    }
};
template <int bits> constexpr ByPlane<bits> by_plane = {};

// Words of four rows' hi and lo terms -> rows of columns, [hi of four, lo of four]. The last chunk may be filled up with words
// of no channel, whose place would be another plane's.
template <int bits> ALWAYS void store_columns(const I *hi, const I *lo, int chunk, int width, int bytes, int8_t *to) {
    const int per = 8 / bits, words = width / 4;
    const I low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    I of[2][4];
    for (int t = 0; t < 2; t++) {
        const I *row = t ? lo : hi;
        I ab = _mm512_unpacklo_epi32(row[0], row[1]), AB = _mm512_unpackhi_epi32(row[0], row[1]);
        I cd = _mm512_unpacklo_epi32(row[2], row[3]), CD = _mm512_unpackhi_epi32(row[2], row[3]);
        of[t][0] = _mm512_unpacklo_epi64(ab, cd), of[t][1] = _mm512_unpackhi_epi64(ab, cd);
        of[t][2] = _mm512_unpacklo_epi64(AB, CD), of[t][3] = _mm512_unpackhi_epi64(AB, CD);
    }
    for (int m = 0; m < 4; m++) {
        const int plane = m * per / 4, word = chunk * (16 / per) + 4 * (m % (4 / per));
        const I one = _mm512_permutex2var_epi64(of[0][m], low, of[1][m]), two = _mm512_permutex2var_epi64(of[0][m], high, of[1][m]);
        int8_t *at = to + (plane * words + word) * bytes;
        if (bytes == 32 && word + 4 <= words) {
            _mm512_storeu_si512(at, one);
            _mm512_storeu_si512(at + 64, two);
            continue;
        }
        if (word < words) _mm256_store_si256((__m256i *)at, _mm512_castsi512_si256(one));
        if (word + 1 < words) _mm256_store_si256((__m256i *)(at + bytes), _mm512_extracti64x4_epi64(one, 1));
        if (word + 2 < words) _mm256_store_si256((__m256i *)(at + 2 * bytes), _mm512_castsi512_si256(two));
        if (word + 3 < words) _mm256_store_si256((__m256i *)(at + 3 * bytes), _mm512_extracti64x4_epi64(two, 1));
    }
}

// At most four rows in steps times scales, as right-hand matrices of `scores`: [channels / 64] of 16 rows of `bytes`. `shift`
// is what the codes' zero points add.
template <int bits>
ALWAYS void query_columns(const float *q, int rows, int size, const float *scale, const float *low, int bytes, int8_t *to,
                          float *shift, Ahead &ahead) {
    const int chunks = (size + 63) / 64;
    const I order = _mm512_load_si512(by_plane<bits>.from);
    F base[4];
    for (int k = 0; k < 4; k++) base[k] = _mm512_setzero_ps();
    for (int c = 0; c < chunks; c++) {
        I hi[4], lo[4];
        for (int k = 0; k < 4; k++) {
            if (k >= rows) {
                hi[k] = hi[0], lo[k] = lo[0];
                continue;
            }
            I wide[4];
            for (int i = 0; i < 4; i++) {
                const int d = 64 * c + 16 * i;
                F x = _mm512_maskz_loadu_ps(size - d > 0 ? first(size - d) : (__mmask16)0, q + k * size + d);
                base[k] = _mm512_fmadd_ps(x, _mm512_load_ps(low + d), base[k]);
                wide[i] = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_load_ps(scale + d)));
            }
            ahead.ask();
            two_terms(wide, &hi[k], &lo[k]);
            hi[k] = _mm512_permutexvar_epi8(order, hi[k]), lo[k] = _mm512_permutexvar_epi8(order, lo[k]);
        }
        store_columns<bits>(hi, lo, c, size * bits / 8, bytes, to);
    }
    _mm_storeu_ps(shift, four_sums(base));
}

// n entries, spread out: a byte for every channel, planes one after the other, `room` bytes from entry to entry.
template <int bits> ALWAYS void spread_rows(const uint8_t *codes, int width, int n, int room, uint8_t *to, Ahead &ahead) {
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
            int c = 0;
            for (; c + 64 <= width; c += 64) {
                const I x = _mm512_loadu_si512(from + c);
                for (int p = 0; p < 8 / bits; p++)
                    _mm512_storeu_si512(entry + p * width + c, _mm512_and_si512(_mm512_srli_epi16(x, p * bits), mask));
            }
            for (; c < width; c += 64) {
                const __mmask64 some = bytes(width - c);
                const I x = _mm512_maskz_loadu_epi8(some, from + c);
                for (int p = 0; p < 8 / bits; p++)
                    _mm512_mask_storeu_epi8(entry + p * width + c, some,
                                            _mm512_and_si512(_mm512_srli_epi16(x, p * bits), mask));
            }
        }
    }
}

// Two entries' sums, [four hi, four lo] each, `row` numbers apart.
inline I two_entries(const int32_t *at, int row) {
    if (row == 8) return _mm512_load_si512(at);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_load_si256((const __m256i *)at)),
                              _mm256_load_si256((const __m256i *)(at + row)), 1);
}

// Sums of 16 entries -> scores of at most four rows.
ALWAYS void four_rows(const int32_t *sums, int row_size, int rows, const float *step, const float *shift, __mmask16 some,
                      float *s) {
    F f[4];
    for (int i = 0; i < 4; i++) {
        I a = two_entries(sums + 4 * i * row_size, row_size), b = two_entries(sums + (4 * i + 2) * row_size, row_size);
        I hi = _mm512_shuffle_i32x4(a, b, 0x88), lo = _mm512_shuffle_i32x4(a, b, 0xdd);
        f[i] = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(hi, 8), lo)); // below 2^31 for 512 channels
    }
    const I low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    const I high = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
    F a = _mm512_permutex2var_ps(f[0], low, f[1]), b = _mm512_permutex2var_ps(f[2], low, f[3]);
    F c = _mm512_permutex2var_ps(f[0], high, f[1]), d = _mm512_permutex2var_ps(f[2], high, f[3]);
    const F row[4] = {_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee),
                      _mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee)};
    for (int k = 0; k < rows; k++) {
        const F steps = _mm512_add_ps(row[k], _mm512_set1_ps(shift[k]));
        _mm512_mask_storeu_ps(s + k * FS_TILE, some, _mm512_mul_ps(steps, _mm512_set1_ps(step[k])));
    }
}

// Sums of 16 or of 32 entries, `stride` bytes apart, with the columns of `steps` matrices. Two take turns, since a product is
// waited for where the next one adds to it.
ALWAYS void products(const uint8_t *entries, int64_t stride, bool two, const int8_t *columns, int bytes, int steps,
                     int32_t *sums, Ahead &ahead) {
    _tile_zero(0);
    _tile_zero(1);
    for (int k = 0; k < steps; k++) {
        ahead.ask();
        _tile_loadd(3, columns + 16 * bytes * k, bytes);
        _tile_loadd(2, entries + 64 * k, stride);
        _tile_dpbssd(0, 2, 3);
        if (two) {
            _tile_loadd(2, entries + 16 * stride + 64 * k, stride);
            _tile_dpbssd(1, 2, 3);
        }
    }
    _tile_stored(0, sums, bytes);
    if (two) _tile_stored(1, sums + 4 * bytes, bytes);
}

ALWAYS void all_products(const uint8_t *entries, int64_t stride, int n, const int8_t *columns, int bytes, int steps,
                         int32_t *sums, Ahead &ahead) {
    for (int i = 0; i < n; i += 32)
        products(entries + i * stride, stride, n - i > 16, columns, bytes, steps, sums + bytes / 4 * i, ahead);
}

template <int bits>
ALWAYS void scores_in(const float *q, const float *step, int rows, int size, const uint8_t *codes, const uint16_t *scale,
               const uint16_t *low, int n, float *s) {
    alignas(64) int8_t columns[FS_MAX_SIZE * 16];
    alignas(64) int32_t sums[FS_TILE * 16];
    alignas(64) uint8_t entries[FS_TILE * FS_MAX_SIZE + 64];
    alignas(64) float scales[FS_MAX_SIZE], lows[FS_MAX_SIZE];
    const int width = size * bits / 8, steps = (size + 63) / 64, bytes = row_bytes(rows), row = bytes / 4;
    for (int d = 0; d < 64 * steps; d += 16) {
        const __mmask16 some = size - d > 0 ? first(size - d) : (__mmask16)0;
        F x = half_floats(scale + d, some), y = half_floats(low + d, some);
        if (bits == 8) y = _mm512_fmadd_ps(x, _mm512_set1_ps(128.0f), y); // codes of 8 bits lie as code - 128
        _mm512_store_ps(scales + d, x);
        _mm512_store_ps(lows + d, y);
    }
    if (size % 64) __builtin_memset(columns + 16 * bytes * (steps - 1), 0, 16 * bytes);
    const int direct = bits == 8 && size % 64 == 0 ? n / 16 * 16 : 0; // these can be taken from where they lie
    Ahead ahead(codes + (int64_t)n * width, (int64_t)n * width, rows * steps + (n + 31) / 32 * steps + n / 16 + (bits == 8 ? 0 : n / 8));
    ask_for(scale + size, 2 * size);
    ask_for(low + size, 2 * size);
    if (direct < n) spread_rows<bits>(codes + (int64_t)direct * width, width, n - direct, 64 * steps, entries, ahead);
    for (int r = 0; r < rows; r += BLOCK) {
        const int some = rows - r < BLOCK ? rows - r : BLOCK;
        float shift[BLOCK];
        for (int set = 0; set < some; set += 4)
            query_columns<bits>(q + (r + set) * size, some - set < 4 ? some - set : 4, size, scales, lows, bytes,
                                columns + 8 * set, shift + set, ahead);
        all_products(codes, width, direct, columns, bytes, steps, sums, ahead);
        if (direct < n) all_products(entries, 64 * steps, n - direct, columns, bytes, steps, sums + row * direct, ahead);
        for (int i = 0; i < n; i += 16) {
            ahead.ask();
            for (int set = 0; set < some; set += 4)
                four_rows(sums + row * i + 2 * set, row, some - set < 4 ? some - set : 4, step + r + set, shift + set,
                          first(n - i), s + (r + set) * FS_TILE + i);
        }
    }
}

// Whole groups of the usual size, of keys of `size` channels, for `rows` rows (0: however many).
template <int bits, int size, int rows>
__attribute__((noinline)) void scores_of(const float *q, const float *step, int given, const uint8_t *codes, const uint16_t *scale,
                                         const uint16_t *low, float *s) {
    scores_in<bits>(q, step, rows ? rows : given, size, codes, scale, low, bits == 8 ? 64 : 32, s);
}

template <int bits>
void scores_shaped(const float *q, const float *step, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                   const uint16_t *low, int n, float *s) {
    const bool usual = n == (bits == 8 ? 64 : 32);
    if (usual && size == 128 && rows == 4)
        scores_of<bits, 128, 4>(q, step, rows, codes, scale, low, s);
    else if (usual && size == 128)
        scores_of<bits, 128, 0>(q, step, rows, codes, scale, low, s);
    else if (usual && size == 64)
        scores_of<bits, 64, 0>(q, step, rows, codes, scale, low, s);
    else
        scores_in<bits>(q, step, rows, size, codes, scale, low, n, s);
}

void scores_codes(int bits, const float *q, const float *step, int rows, int size, const uint8_t *codes,
                  const uint16_t *scale, const uint16_t *low, int group, int n, float *s) {
    if (!step) {
        fs_tiles_avx512.quick_scores_codes(bits, q, step, rows, size, codes, scale, low, group, n, s);
        return;
    }
    for (int at = 0; at < n; at += group, codes += (int64_t)group * size * bits / 8, scale += size, low += size) {
        const int some = n - at < group ? n - at : group;
        if (size * bits % 32 || size % 16 || some < 8) { // channels that do not fill words, or too few entries to pay
            fs_tiles_avx512.quick_scores_codes(bits, q, step, rows, size, codes, scale, low, group, some, s + at);
            for (int r = 0; r < rows; r++)
                for (int i = at; i < at + some; i++) s[r * FS_TILE + i] *= step[r];
        } else if (bits == 8)
            scores_shaped<8>(q, step, rows, size, codes, scale, low, some, s + at);
        else if (bits == 4)
            scores_shaped<4>(q, step, rows, size, codes, scale, low, some, s + at);
        else
            scores_shaped<2>(q, step, rows, size, codes, scale, low, some, s + at);
    }
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
ALWAYS void by_group(const uint16_t *from, int groups, int n, float *to) {
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
ALWAYS float weight_rows(const float *s, int groups, int n, int steps, const float *scale, const float *low,
                         const float *largest, int8_t *to, int matrix, int low_terms, float *base, Ahead &ahead) {
    F weight[FS_TILE / 16], most = _mm512_setzero_ps(), inverse, lows[4];
    for (int i = 0; i < FS_TILE / 16; i++) {
        weight[i] = _mm512_maskz_loadu_ps(n - 16 * i > 0 ? first(n - 16 * i) : (__mmask16)0, s + 16 * i);
        if (i < 4 * steps) most = _mm512_max_ps(most, _mm512_mul_ps(weight[i], _mm512_load_ps(largest + 16 * i)));
    }
    const float step = step_of(most, &inverse);
    for (int i = 0; i < FS_TILE / 16; i++) weight[i] = _mm512_mul_ps(weight[i], inverse);
    for (int g = 0; g < groups; g++) {
        lows[g] = _mm512_setzero_ps();
        ahead.ask();
        for (int k = 0; k < 2; k++) {
            if (k >= steps) break;
            I wide[4], hi, lo;
            for (int i = 0; i < 4; i++) {
                const int at = g * FS_TILE + 64 * k + 16 * i;
                lows[g] = _mm512_fmadd_ps(weight[4 * k + i], _mm512_load_ps(low + at), lows[g]);
                wide[i] = _mm512_cvtps_epi32(_mm512_mul_ps(weight[4 * k + i], _mm512_load_ps(scale + at)));
            }
            two_terms(wide, &hi, &lo);
            _mm512_store_si512(to + (2 * g + k) * matrix, hi);
            _mm512_store_si512(to + (2 * g + k) * matrix + 64 * low_terms, lo);
        }
    }
    for (int g = groups; g < 4; g++) lows[g] = _mm512_setzero_ps();
    _mm_storeu_ps(base, _mm_mul_ps(four_sums(lows), _mm_set1_ps(step)));
    return step;
}

// 16 bytes of four entries -> a row of each of two right-hand matrices. A matrix is of 16 columns in one plane or, where only 8
// columns share weights (`paired`), of 8 columns in two planes. A plane is the bytes without the bits below it: a plane's
// codes are then differences of sums (they meet the same weights), and the first plane is the bytes as they are. Codes of
// 8 bits have one plane: their matrices are of two times 16 columns, if there are (`wide`).
template <int bits>
ALWAYS void lay_quad(const uint8_t *const *entry, int wide, int pair, bool paired, I *first, I *second) {
    const I x = quad(entry, 0);
    if (bits == 8) {
        *first = x;
        if (wide > 1) *second = quad(entry, 16);
    } else if (!paired) {
        const int p = 2 * pair; // planes p and p + 1
        *first = p ? _mm512_and_si512(x, _mm512_set1_epi8((char)(0xff << p * bits))) : x;
        *second = _mm512_and_si512(x, _mm512_set1_epi8((char)(0xff << (p + 1) * bits)));
    } else
        for (int i = 0; i < 2; i++) { // of four bits: a product for each group; of two bits: two of this pair's group
            const int plane = bits == 4 ? 0 : 2 * i, upper = bits == 4 ? i : pair;
            const I half = upper ? _mm512_shuffle_i64x2(x, x, 0xee) : _mm512_shuffle_i64x2(x, x, 0x44);
            const I mask = _mm512_inserti64x4(_mm512_set1_epi8((char)(0xff << plane * bits)),
                                              _mm256_set1_epi8((char)(0xff << (plane + 1) * bits)), 1);
            *(i ? second : first) = _mm512_and_si512(half, mask);
        }
}

// At most 64 entries from one column on -> two matrices, four entries a row, in the order that two_terms leaves weights in.
template <int bits>
ALWAYS void lay_columns(const uint8_t *codes, int columns, int wide, int pair, bool paired, int n, I (*tile)[16], Ahead &ahead) {
    const uint8_t *entry[4];
    if (n == 64) {
        for (int j = 0; j < 4; j++) {
#pragma GCC unroll 4
            for (int l = 0; l < 4; l++) {
                for (int i = 0; i < 4; i++) entry[i] = codes + (int64_t)(16 * j + 4 * l + i) * columns;
                lay_quad<bits>(entry, wide, pair, paired, &tile[0][4 * l + j], &tile[1][4 * l + j]);
                if (bits > 2 || l % 2) ahead.ask();
            }
        }
        return;
    }
    for (int k = 0; 4 * k < n; k++) {
        for (int i = 0; i < 4; i++) entry[i] = codes + (int64_t)(4 * k + i < n ? 4 * k + i : 4 * k) * columns;
        lay_quad<bits>(entry, wide, pair, paired, &tile[0][4 * (k % 4) + k / 4], &tile[1][4 * (k % 4) + k / 4]);
    }
}

// Adds products of the weights in tile 6. Codes of 8 bits are signed, what planes are cut from is not; tiles are named when
// compiled.
#define ADD_PRODUCT(sums, columns)              \
    if (bits == 8)                              \
        _tile_dpbssd(sums, 6, columns);         \
    else                                        \
        _tile_dpbsud(sums, 6, columns)

// Weights times the matrix in tile 2 and, if there is a `second`, times that in tile 7; the sums of the first rows are in tiles 4
// and 5, those of the others in 0 and 1.
template <int bits> ALWAYS void weighed(const int8_t *weights, const int8_t *second, bool others) {
    _tile_loadd(6, weights, 64);
    if (others) {
        ADD_PRODUCT(0, 2);
    } else {
        ADD_PRODUCT(4, 2);
    }
    if (!second) return;
    if (second != weights) _tile_loadd(6, second, 64);
    if (others) {
        ADD_PRODUCT(1, 7);
    } else {
        ADD_PRODUCT(5, 7);
    }
}

// Sums of one row in one product, from its hi and its lo terms; below 2^31 for 128 entries.
inline I row_sums(const int32_t *sums, int row, int low_terms) {
    I hi = _mm512_load_si512(sums + 16 * row), lo = _mm512_load_si512(sums + 16 * (row + low_terms));
    return _mm512_add_epi32(_mm512_slli_epi32(hi, 8), lo);
}

// Sums of all products of 16 columns -> acc, [plane][columns], of each row; base is what zero points add in their group, or in
// their two groups.
template <int bits>
ALWAYS void add_sums(const int32_t (*sums)[16 * 16], int rows, int low_terms, bool paired, const float *step,
                     const float (*base)[4], int group, int size, float *acc) {
    const int per = 8 / bits, columns = size / per;
    for (int r = 0; r < rows; r++) {
        float *to = acc + r * size;
        I whole = row_sums(sums[0], r, low_terms);
        for (int p = 0; p < per; p++) {
            I next = _mm512_setzero_si512();
            if (p + 1 < per) next = row_sums(sums[p + 1], r, low_terms);
            if (!paired) {
                const F unit = _mm512_set1_ps(step[r] / (float)(1 << p * bits));
                F sum = _mm512_add_ps(_mm512_loadu_ps(to + p * columns), _mm512_set1_ps(base[r][group]));
                _mm512_storeu_ps(to + p * columns, _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(whole, next)), unit, sum));
            } else {
                const int half = p / (per / 2), plane = p % (per / 2) * 2;
                const I rest = plane + 2 < per ? next : _mm512_setzero_si512();
                const I codes = _mm512_sub_epi32(whole, _mm512_shuffle_i64x2(whole, rest, 0x4e));
                const F unit = _mm512_insertf32x8(_mm512_set1_ps(step[r] / (float)(1 << plane * bits)),
                                                  _mm256_set1_ps(step[r] / (float)(1 << (plane + 1) * bits)), 1);
                const F sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), unit, _mm512_set1_ps(base[r][group + half]));
                float *low = to + plane * columns + 8 * half, *high = low + columns;
                _mm256_storeu_ps(low, _mm256_add_ps(_mm256_loadu_ps(low), _mm512_castps512_ps256(sum)));
                _mm256_storeu_ps(high, _mm256_add_ps(_mm256_loadu_ps(high), _mm512_extractf32x8_ps(sum, 1)));
            }
            whole = next;
        }
    }
}

// acc is kept by planes, [8 / bits][columns], until finish_codes. Columns come in small units (two matrices of 64 entries), and what
// is done to them goes in turns: while one unit is multiplied, the next is laid out and the last columns' sums are added.
template <int bits>
ALWAYS void values_in(const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale, const uint16_t *low,
               int groups, int group, int n, float *acc) {
    const int per = 8 / bits, columns = size / per, vectors = columns / 16, steps = (n + 63) / 64;
    const int V = bits == 8 ? 2 : 1, pairs = bits == 2 ? 2 : 1; // columns at once, pairs of products
    alignas(64) I tile[2][2][16];
    alignas(64) int8_t weights[FS_ROWS / BLOCK][4 * 2 * 1024]; // [group][step] of 16 x 64 bytes
    alignas(64) int32_t sums[2][FS_ROWS / BLOCK][2 * pairs][16 * 16];
    alignas(64) float scales[4 * FS_TILE], lows[4 * FS_TILE], largest[FS_TILE];
    float step[FS_ROWS], base[FS_ROWS][4];
    const int sets = (vectors + V - 1) / V, units = sets * pairs * steps;
    Ahead ahead(codes + (int64_t)n * columns, (int64_t)n * columns, rows * groups + units * (bits > 2 ? 16 : 8));
    ask_for(scale + n * groups, 2 * n * groups);
    ask_for(low + n * groups, 2 * n * groups);
    by_group(scale, groups, n, scales);
    by_group(low, groups, n, lows);
    for (int i = 0; i < 64 * steps; i += 16) {
        F most = _mm512_setzero_ps();
        for (int g = 0; i < n && g < groups; g++) {
            F x = _mm512_load_ps(scales + g * FS_TILE + i);
            most = _mm512_max_ps(most, _mm512_abs_ps(x));
            if (bits == 8) // codes of 8 bits lie as code - 128
                _mm512_store_ps(lows + g * FS_TILE + i,
                                _mm512_fmadd_ps(x, _mm512_set1_ps(128.0f), _mm512_load_ps(lows + g * FS_TILE + i)));
        }
        _mm512_store_ps(largest + i, most);
        for (int g = 0; i >= n && g < groups; g++) { // whatever lies there is multiplied by no weight
            _mm512_store_ps(scales + g * FS_TILE + i, most);
            _mm512_store_ps(lows + g * FS_TILE + i, most);
        }
    }
    const int low_terms = low_row(rows), matrix = 2 * low_terms * 64, blocks = (rows + BLOCK - 1) / BLOCK;
    for (int r = 0; r < rows; r++)
        step[r] = weight_rows(s + r * FS_TILE, groups, n, steps, scales, lows, largest, weights[r / BLOCK] + 64 * (r % BLOCK),
                              matrix, low_terms, base[r], ahead);
    const bool paired = per > 1 && group / per == 8;
    auto lay = [&](int unit) __attribute__((always_inline)) { // a set of columns, a pair of products, 64 entries
        const int half = unit % steps, pair = unit / steps % pairs, v = unit / (steps * pairs) * V;
        lay_columns<bits>(codes + (int64_t)64 * half * columns + 16 * v, columns, vectors - v, pair, paired,
                          n - 64 * half < 64 ? n - 64 * half : 64, tile[unit % 2], ahead);
    };
    auto add = [&](int set) __attribute__((always_inline)) {
        for (int block = 0; block < blocks; block++)
            for (int v = V * set; v < vectors && v < V * set + V; v++)
                add_sums<bits>(sums[set % 2][block] + (v - V * set), rows - block * BLOCK < BLOCK ? rows - block * BLOCK : BLOCK,
                               low_terms, paired, step + block * BLOCK, base + block * BLOCK, 16 * v * per / group, size,
                               acc + block * BLOCK * size + 16 * v);
    };
    lay(0);
    for (int unit = 0; unit < units; unit++) {
        const int half = unit % steps, pair = unit / steps % pairs, set = unit / (steps * pairs), v = set * V;
        if (unit + 1 < units) lay(unit + 1);
        const int g = 16 * v * per / group;
        const int a = g + (paired && bits == 2 ? pair : 0), b = bits == 8 ? 16 * (v + 1) / group : paired && bits == 4 ? g + 1 : a;
        const bool two = bits != 8 || v + 1 < vectors;
        if (half == 0) {
            _tile_zero(4);
            _tile_zero(5);
            if (blocks > 1) _tile_zero(0);
            if (blocks > 1) _tile_zero(1);
        }
        _tile_loadd(2, tile[unit % 2][0], 64);
        if (two) _tile_loadd(7, tile[unit % 2][1], 64);
        for (int block = 0; block < blocks; block++) {
            const int8_t *left = weights[block] + matrix * half;
            weighed<bits>(left + 2 * matrix * a, two ? left + 2 * matrix * b : nullptr, block > 0);
        }
        if (half < steps - 1) continue;
        _tile_stored(4, sums[set % 2][0][2 * pair], 64);
        if (two) _tile_stored(5, sums[set % 2][0][2 * pair + 1], 64);
        if (blocks > 1) _tile_stored(0, sums[set % 2][1][2 * pair], 64);
        if (blocks > 1 && two) _tile_stored(1, sums[set % 2][1][2 * pair + 1], 64);
        if (pair == pairs - 1 && set) add(set - 1);
    }
    add(sets - 1);
}

// A whole tile of values of `size` channels in groups of the usual size.
template <int bits, int size, int rows>
__attribute__((noinline)) void values_of(const float *s, int given, const uint8_t *codes, const uint16_t *scale,
                                         const uint16_t *low, float *acc) {
    values_in<bits>(s, rows ? rows : given, size, codes, scale, low, bits == 8 ? 1 : size / 32, bits == 8 ? size : 32, FS_TILE, acc);
}

template <int bits>
void values_shaped(const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale, const uint16_t *low,
                   int groups, int group, int n, float *acc) {
    const bool usual = n == FS_TILE && group == (bits == 8 ? size : 32) && groups * group == size;
    if (usual && size == 128 && rows == 4)
        values_of<bits, 128, 4>(s, rows, codes, scale, low, acc);
    else if (usual && size == 128)
        values_of<bits, 128, 0>(s, rows, codes, scale, low, acc);
    else if (usual && size == 64)
        values_of<bits, 64, 0>(s, rows, codes, scale, low, acc);
    else
        values_in<bits>(s, rows, size, codes, scale, low, groups, group, n, acc);
}

void values_codes(int bits, const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                  const uint16_t *low, int groups, int group, int n, float *acc) {
    if (!regular(bits, size, groups, group) || size * bits % 128 || (groups > 1 && group < 16))
        fs_tiles_avx512.quick_values_codes(bits, s, rows, size, codes, scale, low, groups, group, n, acc);
    else if (bits == 8)
        values_shaped<8>(s, rows, size, codes, scale, low, groups, group, n, acc);
    else if (bits == 4)
        values_shaped<4>(s, rows, size, codes, scale, low, groups, group, n, acc);
    else
        values_shaped<2>(s, rows, size, codes, scale, low, groups, group, n, acc);
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
