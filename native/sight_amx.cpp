// Rows of one head under a sight, for machines with AMX: products of bfloat16 with sums in float32.
//
// Keys are laid out as right-hand matrices, 32 at a time, as far as some of the rows see them; 64 rows then meet at most four
// such tiles together, of those that some of these rows see. What of a tile a row does not see is hidden afterwards, where
// there is such a thing. The running softmax is kept in powers of two.
#include "sight.h"
#include "target.h"
#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
FS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,amx-tile,amx-bf16")
namespace {
#include "wide.inl"
#include "squares.inl"
#include "decode.inl"

const int KEYS = 32, ROWS = 64;      // of a tile, and rows that meet it together
const int TOGETHER = 4, WIDTH = 128; // tiles that weights are found for together, and their keys
const int LAID = 16;                 // tiles that are laid out before all rows meet them
const int SQUARE = 512;              // numbers of a right-hand matrix, 16 rows of 16 pairs
const int32_t NOWHERE = INT32_MAX;   // the position of what fills up a tile: after every query

inline int padded(int size) { return (size + 31) / 32 * 32; }
inline int64_t padded_rows(int rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

// Keys side by side in a tile.
struct Tile {
    int32_t low, high, count; // positions of the first and the last, and how many there are
    bool some, all;           // seen from everywhere after them
};

enum Seen { HIDDEN, PARTLY, WHOLLY };

// What queries at positions from..to see of a tile.
Seen seen(const FsSight &call, const Tile &tile, int32_t from, int32_t to) {
    if (tile.low > to) return HIDDEN;
    const int32_t near = from - tile.high, far = to - tile.low; // the least and the largest distance
    const bool older = near >= 0 && tile.count == KEYS;
    if (older && tile.all) return WHOLLY;
    bool some = tile.some;
    for (int b = 0; b < call.bands; b++) {
        const int32_t *band = call.band + 2 * b;
        if (older && near >= band[0] && far < band[1]) return WHOLLY;
        some |= far >= band[0] && near < band[1];
    }
    return some ? PARTLY : HIDDEN;
}

// How many columns stand before a position.
int32_t columns_before(const FsSight &call, int32_t position) {
    int32_t low = 0, high = call.columns;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (call.column[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const int32_t BEFORE = -1; // the position of what is older than every query and seen by all

Tile described(const FsSight &call, const int32_t *positions, int64_t left) {
    const int32_t count = (int32_t)(left < KEYS ? left : KEYS);
    if (!positions) return {BEFORE, BEFORE, count, true, true};
    Tile tile{positions[0], 0, count, false, false};
    tile.high = positions[tile.count - 1];
    tile.some = tile.low < call.before;
    tile.all = tile.high < call.before;
    if (call.columns && !tile.all) {
        const int32_t columns = columns_before(call, tile.high + 1) - columns_before(call, tile.low);
        tile.some |= columns > 0;
        tile.all |= columns == tile.count;
    }
    return tile;
}

// Which keys of a tile are seen from everywhere after them.
uint32_t always(const FsSight &call, const int32_t *positions, const Tile &tile) {
    if (tile.all) return 0xffffffff;
    uint32_t found = 0;
    for (int i = 0; tile.some && i < tile.count; i++) {
        bool its = positions[i] < call.before;
        if (!its && call.columns) {
            const int32_t at = columns_before(call, positions[i]);
            its = at < call.columns && call.column[at] == positions[i];
        }
        found |= (uint32_t)its << i;
    }
    return found;
}

// 2^x for x <= 0, and next to nothing for what is below -126 (hidden entries among it); off by 2e-7.
inline F power(F x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x); // in this order NaN stays
    const F n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    F p = _mm512_set1_ps(0.00132647269f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00967151266f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0555073374f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240222421f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693146978f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

inline float power_of(float x) { return _mm512_cvtss_f32(power(_mm512_set1_ps(x))); }

inline __mmask32 words(int n) { return n >= 32 ? ~(__mmask32)0 : n <= 0 ? 0 : ((__mmask32)1 << n) - 1; }

// At most 32 keys -> for every 32 channels two matrices of 16 keys, channels in pairs.
void lay_keys(const char *keys, int64_t stride, int count, int size, uint16_t *to) {
    for (int d = 0; d < size; d += 32)
        for (int half = 0; half < KEYS; half += 16, to += SQUARE) {
            I x[16];
            for (int i = 0; i < 16; i++)
                x[i] = half + i < count ? _mm512_maskz_loadu_epi16(words(size - d), keys + (half + i) * stride + 2 * d)
                                        : _mm512_setzero_si512();
            turn(x);
            for (int i = 0; i < 16; i++) _mm512_store_si512(to + 32 * i, x[i]);
        }
}

// At most 32 values -> for every 16 channels one matrix, entries in pairs; what fills up is zero.
void lay_values(const char *values, int64_t stride, int count, int size, uint16_t *to) {
    for (int d = 0; d < padded(size); d += 16)
        for (int i = 0; i < KEYS; i += 2, to += 32) {
            const __mmask16 some = first(size - d > 0 ? size - d : 0);
            const __m256i one = _mm256_maskz_loadu_epi16(i < count ? some : 0, values + i * stride + 2 * d);
            const __m256i two = _mm256_maskz_loadu_epi16(i + 1 < count ? some : 0, values + (i + 1) * stride + 2 * d);
            _mm512_store_si512(to, _mm512_or_si512(_mm512_cvtepu16_epi32(one), _mm512_slli_epi32(_mm512_cvtepu16_epi32(two), 16)));
        }
}

// What one item works in.
struct Desk {
    const FsSight &call;
    const int head, row, rows;
    const int key_size, value_size, stride; // padded; a row of sums, which ends with 16 sums of weights
    uint16_t *query, *keys, *values, *weights, *decoded;
    float *sums, *scores, *best;
    int32_t *positions;
    uint32_t always[LAID];
    Tile tiles[LAID];
    int laid = 0;

    Desk(const FsSight &its, int its_head, int its_row, int its_rows, char *room)
        : call(its), head(its_head), row(its_row), rows(its_rows), key_size(padded(its.key_size)),
          value_size(padded(its.value_size)), stride(value_size + 16) {
        take(&room, &query, padded_rows(rows) * key_size);
        take(&room, &sums, padded_rows(rows) * stride);
        take(&room, &keys, LAID * KEYS * key_size);
        take(&room, &values, LAID * KEYS * value_size);
        take(&room, &scores, ROWS * WIDTH);
        take(&room, &weights, ROWS * WIDTH);
        take(&room, &best, padded_rows(rows));
        take(&room, &positions, LAID * KEYS);
        take(&room, &decoded, LAID * KEYS * (its.key_size + its.value_size));
    }

    template <typename T> static void take(char **room, T **part, int64_t count) {
        *part = (T *)*room;
        *room += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
    }

    static size_t bytes(const FsSight &call, int64_t rows) {
        const int64_t key_size = padded(call.key_size), value_size = padded(call.value_size);
        return (size_t)(padded_rows((int)rows) * (2 * key_size + 4 * (value_size + 16) + 4) +
                        LAID * KEYS * (4 * key_size + 4 * value_size + 4) + ROWS * WIDTH * 6 + 9 * 64);
    }

    int32_t position(int r) const { return call.first + (row + r) / call.group; } // of a row

    void begin() {
        for (int r = 0; r < padded_rows(rows); r++) {
            const char *from = (const char *)call.query + (int64_t)(head * call.group + (row + r) % call.group) * call.query_head_stride +
                               (int64_t)((row + r) / call.group) * call.query_token_stride;
            for (int d = 0; d < key_size; d += 32) {
                const __mmask32 some = r < rows ? words(call.key_size - d) : 0;
                _mm512_store_si512(query + (int64_t)r * key_size + d, _mm512_maskz_loadu_epi16(some, from + 2 * d));
            }
            best[r] = -__builtin_inff();
        }
        __builtin_memset(sums, 0, sizeof(float) * padded_rows(rows) * stride);
    }

    // All rows meet what is seen of a run of this head.
    void meet(const char *its_keys, const char *its_values, const FsRun &run) {
        for (int64_t at = 0; at < run.count; at += KEYS) {
            const int32_t *its_positions = run.positions ? run.positions + at : nullptr;
            const Tile tile = described(call, its_positions, run.count - at);
            if (seen(call, tile, position(0), position(rows - 1)) == HIDDEN) continue;
            lay_keys(its_keys + at * run.key_stride, run.key_stride, tile.count, call.key_size, keys + laid * KEYS * key_size);
            lay_values(its_values + at * run.value_stride, run.value_stride, tile.count, call.value_size,
                       values + laid * KEYS * value_size);
            for (int i = 0; i < KEYS; i++) positions[laid * KEYS + i] = i >= tile.count ? NOWHERE : its_positions ? its_positions[i] : BEFORE;
            always[laid] = ::always(call, its_positions, tile);
            tiles[laid] = tile;
            if (++laid == LAID) flush();
        }
    }

    void meet(const FsRun &run) {
        meet((const char *)run.keys + head * run.key_head_stride, (const char *)run.values + head * run.value_head_stride, run);
    }

    // Codes are read back a piece at a time, as far as they are laid out together.
    void meet(const FsPart &part) {
        const int64_t begin = part.offsets ? part.offsets[head] : head * part.count;
        const int64_t count = part.offsets ? part.offsets[head + 1] - begin : part.count;
        const char *its_keys = (const char *)part.keys + (part.offsets ? begin * part.key_stride : head * part.key_head_stride);
        const char *its_values =
            (const char *)part.values + (part.offsets ? begin * part.value_stride : head * part.value_head_stride);
        if (part.kind == FS_BF16) {
            meet(its_keys, its_values, {nullptr, nullptr, 0, part.key_stride, 0, part.value_stride, nullptr, count});
            return;
        }
        const int key_bytes = 2 * call.key_size, value_bytes = 2 * call.value_size, most = LAID * KEYS;
        uint16_t *to_keys = decoded, *to_values = to_keys + most * call.key_size;
        for (int64_t at = 0; at < count; at += most) {
            const int n = (int)(count - at < most ? count - at : most);
            read_back(part, (const uint8_t *)its_keys, at, n, to_keys);
            const int64_t scales = (begin + at) * part.value_groups;
            const uint8_t *codes = (const uint8_t *)its_values + at * part.value_stride;
            const uint16_t *scale = part.value_scale + scales, *low = part.value_low + scales;
            if (part.value_groups == 1 || part.value_group % 16 == 0)
                decode_values(part.kind, codes, n, call.value_size, part.value_groups, part.value_group, scale, low, to_values);
            else
                fs_decode(FS_BF16, codes, n, call.value_size, part.kind, 0, part.value_group, scale, low, to_values, value_bytes);
            meet((const char *)to_keys, (const char *)to_values, {nullptr, nullptr, 0, key_bytes, 0, value_bytes, nullptr, n});
        }
    }

    void read_back(const FsPart &part, const uint8_t *codes, int64_t at, int n, uint16_t *to) {
        for (int done = 0; done < n;) { // scales change from group to group
            const int64_t entry = at + done, group = entry / part.group, left = (group + 1) * part.group - entry;
            const int many = n - done < left ? n - done : (int)left;
            const int64_t scales = (part.group_offsets[head] + group) * call.key_size;
            decode_keys(part.kind, codes + entry * part.key_stride, many, call.key_size, part.key_scale + scales,
                        part.key_low + scales, to + done * call.key_size);
            done += many;
        }
    }

    void flush() {
        for (int from = 0; from < rows; from += ROWS) {
            const int many = rows - from < ROWS ? rows - from : ROWS;
            int which[TOGETHER], together = 0;
            bool whole[TOGETHER];
            for (int t = 0; t < laid; t++) {
                const Seen how = seen(call, tiles[t], position(from), position(from + many - 1));
                if (how == HIDDEN) continue;
                which[together] = t;
                whole[together++] = how == WHOLLY;
                if (together == TOGETHER) attend(from, many, which, whole, together), together = 0;
            }
            if (together) attend(from, many, which, whole, together);
        }
        laid = 0;
    }

    void attend(int from, int many, const int *which, const bool *whole, int together) {
        const int pairs = (many + 31) / 32;
        for (int j = 0; j < together; j++) multiply_keys(from, pairs, which[j], scores + 32 * j);
        if (call.softcap > 0) cap(32 * pairs, together);
        for (int j = 0; j < together; j++)
            if (!whole[j]) hide(from, many, which[j], scores + 32 * j);
        switch (together) {
        case 1: soften<1>(from, 32 * pairs); break;
        case 2: soften<2>(from, 32 * pairs); break;
        case 3: soften<3>(from, 32 * pairs); break;
        default: soften<4>(from, 32 * pairs);
        }
        multiply_values(from, pairs, which, together);
    }

    void multiply_keys(int from, int pairs, int tile, float *to) {
        const uint16_t *right = keys + tile * KEYS * key_size;
        for (int p = 0; p < pairs; p++) {
            const uint16_t *left = query + (int64_t)(from + 32 * p) * key_size;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int d = 0; d < key_size; d += 32) {
                _tile_loadd(4, left + d, 2 * key_size);
                _tile_loadd(6, right + d * 32, 64);
                _tile_loadd(7, right + d * 32 + SQUARE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(5, left + d + 16 * key_size, 2 * key_size);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            float *at = to + 32 * p * WIDTH;
            _tile_stored(0, at, 4 * WIDTH);
            _tile_stored(1, at + 16, 4 * WIDTH);
            _tile_stored(2, at + 16 * WIDTH, 4 * WIDTH);
            _tile_stored(3, at + 16 * WIDTH + 16, 4 * WIDTH);
        }
    }

    void multiply_values(int from, int pairs, const int *which, int together) {
        for (int d = 0; d < value_size; d += 32)
            for (int p = 0; p < pairs; p++) {
                float *at = sums + (int64_t)(from + 32 * p) * stride + d;
                const uint16_t *left = weights + 32 * p * WIDTH;
                _tile_loadd(0, at, 4 * stride);
                _tile_loadd(1, at + 16, 4 * stride);
                _tile_loadd(2, at + 16 * stride, 4 * stride);
                _tile_loadd(3, at + 16 * stride + 16, 4 * stride);
                for (int j = 0; j < together; j++) {
                    const uint16_t *right = values + which[j] * KEYS * value_size + d * 32;
                    _tile_loadd(4, left + 32 * j, 2 * WIDTH);
                    _tile_loadd(6, right, 64);
                    _tile_loadd(7, right + SQUARE, 64);
                    _tile_dpbf16ps(0, 4, 6);
                    _tile_dpbf16ps(1, 4, 7);
                    _tile_loadd(5, left + 32 * j + 16 * WIDTH, 2 * WIDTH);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_dpbf16ps(3, 5, 7);
                }
                _tile_stored(0, at, 4 * stride);
                _tile_stored(1, at + 16, 4 * stride);
                _tile_stored(2, at + 16 * stride, 4 * stride);
                _tile_stored(3, at + 16 * stride + 16, 4 * stride);
            }
    }

    // Products -> cap tanh(product * scaling / cap) / scaling, by tanh x = (1 - e^-2x) / (1 + e^-2x) for x >= 0.
    void cap(int many, int together) {
        const F in = _mm512_set1_ps(call.scaling / call.softcap), out = _mm512_set1_ps(call.softcap / call.scaling);
        const F twice = _mm512_set1_ps(-2.88539008177792681f), one = _mm512_set1_ps(1.0f);
        for (int r = 0; r < many; r++)
            for (int i = 0; i < 32 * together; i += 16) {
                float *at = scores + r * WIDTH + i;
                const F x = _mm512_mul_ps(_mm512_load_ps(at), in), e = power(_mm512_mul_ps(_mm512_abs_ps(x), twice));
                const F y = _mm512_mul_ps(out, _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e)));
                const I sign = _mm512_set1_epi32((int)0x80000000);
                const I signed_y = _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(x), _mm512_castps_si512(y), 0xca);
                _mm512_store_ps(at, _mm512_castsi512_ps(signed_y));
            }
    }

    void hide(int from, int many, int tile, float *to) {
        const F nothing = _mm512_set1_ps(-__builtin_inff());
        for (int half = 0; half < KEYS; half += 16) {
            const I at = _mm512_loadu_si512(positions + tile * KEYS + half);
            const __mmask16 everywhere = (__mmask16)(always[tile] >> half);
            __mmask16 visible = 0;
            for (int r = 0, last = -1; r < many; r++) {
                const int32_t query_at = position(from + r);
                if (query_at != last) {
                    const I distance = _mm512_sub_epi32(_mm512_set1_epi32(query_at), at);
                    visible = everywhere;
                    for (int b = 0; b < call.bands; b++)
                        visible |= _mm512_cmpge_epi32_mask(distance, _mm512_set1_epi32(call.band[2 * b])) &
                                   _mm512_cmplt_epi32_mask(distance, _mm512_set1_epi32(call.band[2 * b + 1]));
                    visible &= _mm512_cmpge_epi32_mask(distance, _mm512_setzero_si512());
                    last = query_at;
                }
                _mm512_mask_store_ps(to + r * WIDTH + half, (__mmask16)~visible, nothing);
            }
        }
    }

    // Scores -> weights, and the running softmax goes on.
    template <int together> void soften(int from, int many) {
        const float log2e = 1.44269504088896341f;
        const float factor = call.scaling * log2e;
        const F times = _mm512_set1_ps(factor);
        for (int r = 0; r < many; r++) {
            const float *row = scores + r * WIDTH;
            uint16_t *to = weights + r * WIDTH;
            float *sum = sums + (int64_t)(from + r) * stride;
            F x[2 * together];
            for (int i = 0; i < 2 * together; i++) x[i] = _mm512_load_ps(row + 16 * i);
            F most = _mm512_max_ps(x[0], x[1]);
            for (int i = 2; i < 2 * together; i++) most = _mm512_max_ps(most, x[i]);
            const float high = _mm512_reduce_max_ps(most) * factor;
            if (!(high <= best[from + r])) {
                const F keep = _mm512_set1_ps(power_of(best[from + r] - high));
                for (int d = 0; d < stride; d += 16) _mm512_store_ps(sum + d, _mm512_mul_ps(_mm512_load_ps(sum + d), keep));
                best[from + r] = high;
            }
            const float top = best[from + r];
            if (top == -__builtin_inff()) { // nothing seen yet: no weight to anything
                for (int i = 0; i < together; i++) _mm512_store_si512(to + 32 * i, _mm512_setzero_si512());
                continue;
            }
            const F base = _mm512_set1_ps(top);
            for (int i = 0; i < 2 * together; i++) x[i] = power(_mm512_fmsub_ps(x[i], times, base));
            F total = _mm512_load_ps(sum + value_size);
            for (int i = 0; i < together; i++) {
                total = _mm512_add_ps(total, _mm512_add_ps(x[2 * i], x[2 * i + 1]));
                _mm512_store_si512(to + 32 * i, (I)_mm512_cvtne2ps_pbh(x[2 * i + 1], x[2 * i]));
            }
            _mm512_store_ps(sum + value_size, total);
        }
    }

    void finish() {
        for (int r = 0; r < rows; r++) {
            const int query_head = head * call.group + (row + r) % call.group;
            const float *sum = sums + (int64_t)r * stride;
            float total = _mm512_reduce_add_ps(_mm512_load_ps(sum + value_size)), keep = 1, high = best[r];
            if (call.sinks) { // a logit without a value: it takes weight, once
                const float sink = call.sinks[query_head] * 1.44269504088896341f;
                const float top = best[r] > sink ? best[r] : sink;
                keep = power_of(best[r] - top);
                total = total * keep + power_of(sink - top);
                high = top;
            }
            if (call.lse)
                call.lse[(int64_t)query_head * call.tokens + (row + r) / call.group] =
                    total == 0 ? -__builtin_inff() : high * 0.693147180559945309f + __builtin_logf(total);
            const F factor = _mm512_set1_ps(total > 0 ? keep / total : 0);
            char *out = (char *)call.out + (int64_t)((row + r) / call.group) * call.out_token_stride + query_head * call.out_head_stride;
            for (int d = 0; d < call.value_size; d += 16) {
                const F x = _mm512_mul_ps(_mm512_load_ps(sum + d), factor);
                _mm256_mask_storeu_epi16(out + 2 * d, first(call.value_size - d), (__m256i)_mm512_cvtneps_pbh(x));
            }
        }
    }
};

} // namespace

extern "C" size_t fs_sight_room(const FsSight *call, int rows) { return Desk::bytes(*call, rows); }

extern "C" void fs_sight_rows(const FsSight *call, const FsSeen *seen, int head, int row, int rows, char *room) {
    _tile_loadconfig(&squares);
    Desk desk(*call, head, row, rows, room);
    desk.begin();
    for (int i = 0; i < seen->part_count; i++) desk.meet(seen->parts[i]);
    for (int i = 0; i < seen->run_count; i++) desk.meet(seen->runs[i]);
    if (desk.laid) desk.flush();
    _tile_release();
    desk.finish();
}
FS_TARGET_END
#endif
