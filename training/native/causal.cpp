// Causal attention and its gradients for training, on machines with AMX: heads of 32 channels, products of bfloat16 with
// sums in float32.
//
// Scores are made transposed, keys by queries: what belongs to a query (its sum, its delta) is then a vector, and the
// weights are at once the left-hand matrix of the values' gradient. 64 queries meet 64 keys at a time.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <memory>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {
using F = __m512;
using I = __m512i;
#include "../../native/squares.inl"

const int SIZE = 32, BLOCK = 64;  // channels of a head; queries, and keys, that meet together
const int MATRIX = 512;           // numbers of a matrix of AMX: 16 rows of 32, or of 16 pairs

// [B, T, heads, 32] in bfloat16: numbers from one to the next.
struct View {
    uint16_t *data;
    int64_t batch, token, head;
    uint16_t *at(int b, int h, int64_t t) const { return data + b * batch + h * head + t * token; }
};

struct Call {
    View q, k, v, out, d_out, d_q, d_k, d_v;
    float *sums; // [B, H, T], binary logarithms of the sums of weights
    int64_t batch, tokens, heads, kv_heads;
    float scale;
};

inline F power(F x) { // 2^x for x <= 0, off by less than bfloat16 can tell
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    const F n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    F p = _mm512_set1_ps(0.00967151266f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0555073374f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240222421f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693146978f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

inline void put(const I *x, uint16_t *to) {
    for (int i = 0; i < 16; i++) _mm512_store_si512(to + 32 * i, x[i]);
}

// 32 tokens -> their transpose as right-hand matrices (channels in pairs, 16 tokens each).
void turned(const uint16_t *from, int64_t stride, uint16_t *to) {
    for (int half = 0; half < 2; half++) {
        I x[16];
        for (int i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(from + (16 * half + i) * stride);
        turn(x);
        put(x, to + MATRIX * half);
    }
}

inline I interleaved(I low, I high) { // 32 numbers (16 of `low`, 16 of `high`) -> pairs
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// 32 tokens as right-hand matrices (tokens in pairs, 16 channels each), or, `across`, as left-hand ones of their
// transpose (16 channels by 32 tokens).
void paired(const uint16_t *from, int64_t stride, uint16_t *to, bool across) {
    for (int half = 0; half < 2; half++) {
        I x[16];
        for (int i = 0; i < 16; i++) {
            const uint16_t *at = from + 2 * i * stride + 16 * half;
            x[i] = interleaved(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at)),
                               _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(at + stride))));
        }
        if (across) turn(x);
        put(x, to + MATRIX * half);
    }
}

inline I both(F low, F high) { return (I)_mm512_cvtne2ps_pbh(high, low); } // 32 numbers, `low` first

// Two rows of 16 numbers -> one row of a right-hand matrix.
inline I zipped(F even, F odd) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), both(even, odd));
}

// Tiles 0 to 3 are a square of 32 by 32 sums; 4 to 7 what is multiplied.
inline void grow(const uint16_t *left, int64_t stride, const uint16_t *right) {
    _tile_loadd(4, left, 2 * stride);
    _tile_loadd(6, right, 64);
    _tile_loadd(7, right + MATRIX, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + 16 * stride, 2 * stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

inline void store(float *to) {
    _tile_stored(0, to, 128);
    _tile_stored(1, to + 16, 128);
    _tile_stored(2, to + 16 * 32, 128);
    _tile_stored(3, to + 16 * 32 + 16, 128);
}

// 32 by 32 products of the rows of `left` and the columns of two right-hand matrices.
inline void multiply(const uint16_t *left, int64_t stride, const uint16_t *right, float *to) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    grow(left, stride, right);
    store(to);
}

// 32 by 32 sums grow by two products: `left` has 32 rows of 32 numbers, the second of the pairs stands a step further.
inline void add(float *sums, const uint16_t *left, int left_step, const uint16_t *right, int right_step) {
    _tile_loadd(0, sums, 128);
    _tile_loadd(1, sums + 16, 128);
    _tile_loadd(2, sums + 16 * 32, 128);
    _tile_loadd(3, sums + 16 * 32 + 16, 128);
    grow(left, SIZE, right);
    grow(left + left_step, SIZE, right + right_step);
    store(sums);
}

template <typename T> struct Room {
    T *data = nullptr;
    ~Room() { free(data); }
    T *of(int64_t count) {
        if (!data) data = (T *)aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64);
        return data;
    }
};

// Of row `key` of a 32 by 32 square on the diagonal: which of 16 queries from `first` on see it.
inline __mmask16 later(int key, int first) {
    const int hidden = key - first;
    return hidden <= 0 ? 0xffff : hidden >= 16 ? 0 : (__mmask16)(0xffff << hidden);
}

struct Worker {
    const Call &call;
    const float factor; // scores -> powers of two
    Room<uint16_t> key_room, q_turned_room, g_turned_room, q_paired_room, g_paired_room;
    Room<float> delta_room, d_q_room;
    alignas(64) float scores[BLOCK * BLOCK], products[32 * 32], sums[2 * 32 * 32], d_k[2 * 32 * 32], d_v[2 * 32 * 32];
    alignas(64) uint16_t zip[4 * 2 * MATRIX], weights[4 * 2 * MATRIX], changes[4 * 2 * MATRIX];
    alignas(64) uint16_t query[2 * 2 * MATRIX];

    explicit Worker(const Call &its) : call(its), factor(its.scale * 1.44269504088896341f) { _tile_loadconfig(&squares); }
    ~Worker() { _tile_release(); }

    // Squares of a block: [key half][query half].
    static int square(int key, int query) { return (2 * key + query) * 2 * MATRIX; }

    void forward(int b, int shared) {
        const int64_t tokens = call.tokens;
        uint16_t *values = key_room.of(tokens * SIZE); // transposed
        for (int64_t t = 0; t < tokens; t += 32) paired(call.v.at(b, shared, t), call.v.token, values + t * SIZE, true);
        const int group = (int)(call.heads / call.kv_heads);
        for (int head = shared * group; head < (shared + 1) * group; head++)
            for (int64_t t = 0; t < tokens; t += BLOCK) {
                turned(call.q.at(b, head, t), call.q.token, query);
                turned(call.q.at(b, head, t + 32), call.q.token, query + 2 * MATRIX);
                attend(b, shared, head, t, values);
            }
    }

    void attend(int b, int shared, int head, int64_t t, const uint16_t *values) {
        F best[4], total[4];
        for (int i = 0; i < 4; i++) best[i] = _mm512_set1_ps(-__builtin_inff()), total[i] = _mm512_setzero_ps();
        memset(sums, 0, sizeof(sums)); // [query half][channel][32 queries]
        for (int64_t from = 0; from <= t; from += BLOCK) {
            for (int key = 0; key < 2; key++)
                for (int half = 0; half < 2; half++) {
                    float *to = scores + (2 * key + half) * 32 * 32;
                    multiply(call.k.at(b, shared, from + 32 * key), call.k.token, query + half * 2 * MATRIX, to);
                    if (from == t) hide(to, key, half);
                }
            for (int i = 0; i < 4; i++) soften(i, &best[i], &total[i]);
            for (int half = 0; half < 2; half++)
                add(sums + half * 32 * 32, values + from * SIZE, 2 * MATRIX, zip + square(0, half), 4 * MATRIX);
        }
        for (int i = 0; i < 4; i++) {
            const F inverse = _mm512_div_ps(_mm512_set1_ps(1), total[i]);
            alignas(64) float top[16], all[16];
            _mm512_store_ps(top, best[i]);
            _mm512_store_ps(all, total[i]);
            float *its_sums = call.sums + (b * call.heads + head) * call.tokens + t + 16 * i;
            for (int j = 0; j < 16; j++) its_sums[j] = top[j] + __builtin_log2f(all[j]);
            give(sums + (i / 2) * 32 * 32 + 16 * (i % 2), inverse, call.out.at(b, head, t + 16 * i), call.out.token);
        }
    }

    void hide(float *square, int key, int half) {
        if (key < half) return;
        const F nothing = _mm512_set1_ps(-__builtin_inff());
        for (int r = 0; r < 32; r++)
            for (int i = 0; i < 2; i++) {
                const __mmask16 seen = key > half ? 0 : later(r, 16 * i);
                _mm512_mask_store_ps(square + 32 * r + 16 * i, (__mmask16)~seen, nothing);
            }
    }

    // Scores of 16 queries and 64 keys -> weights in pairs of keys; the running softmax goes on.
    void soften(int i, F *best, F *total) {
        const int half = i / 2, side = 16 * (i % 2);
        const F times = _mm512_set1_ps(factor);
        F most = _mm512_set1_ps(-__builtin_inff());
        for (int key = 0; key < 2; key++)
            for (int r = 0; r < 32; r++)
                most = _mm512_max_ps(most, _mm512_load_ps(scores + (2 * key + half) * 32 * 32 + 32 * r + side));
        most = _mm512_max_ps(_mm512_mul_ps(most, times), *best);
        if (_mm512_cmpneq_ps_mask(most, *best)) {
            const F keep = power(_mm512_sub_ps(*best, most));
            for (int c = 0; c < SIZE; c++) {
                float *at = sums + half * 32 * 32 + 32 * c + side;
                _mm512_store_ps(at, _mm512_mul_ps(_mm512_load_ps(at), keep));
            }
            *total = _mm512_mul_ps(*total, keep);
            *best = most;
        }
        F added = _mm512_setzero_ps();
        for (int key = 0; key < 2; key++) {
            const float *from = scores + (2 * key + half) * 32 * 32 + side;
            uint16_t *to = zip + square(key, half) + (i % 2) * MATRIX;
            for (int r = 0; r < 32; r += 2) {
                const F even = power(_mm512_fmsub_ps(_mm512_load_ps(from + 32 * r), times, most));
                const F odd = power(_mm512_fmsub_ps(_mm512_load_ps(from + 32 * r + 32), times, most));
                added = _mm512_add_ps(added, _mm512_add_ps(even, odd));
                _mm512_store_si512(to + 16 * r, zipped(even, odd));
            }
        }
        *total = _mm512_add_ps(*total, added);
    }

    // Sums of 16 tokens, a channel every 32 numbers -> rows of bfloat16.
    static void give(const float *from, F factor, uint16_t *to, int64_t stride) {
        I x[16], y[16];
        for (int c = 0; c < 16; c++) {
            x[c] = (I)_mm512_mul_ps(_mm512_load_ps(from + 32 * c), factor);
            y[c] = (I)_mm512_mul_ps(_mm512_load_ps(from + 32 * (c + 16)), factor);
        }
        turn(x);
        turn(y);
        for (int r = 0; r < 16; r++) _mm512_storeu_si512(to + r * stride, both((F)x[r], (F)y[r]));
    }

    void backward(int b, int shared) {
        const int64_t tokens = call.tokens;
        const int group = (int)(call.heads / call.kv_heads);
        uint16_t *keys = key_room.of(tokens * SIZE); // transposed
        for (int64_t t = 0; t < tokens; t += 32) paired(call.k.at(b, shared, t), call.k.token, keys + t * SIZE, true);
        const int64_t all = group * tokens;
        float *deltas = delta_room.of(all), *d_q = d_q_room.of(all * SIZE); // [query block][half][channel][32 queries]
        uint16_t *q_turned = q_turned_room.of(all * SIZE), *g_turned = g_turned_room.of(all * SIZE);
        uint16_t *q_paired = q_paired_room.of(all * SIZE), *g_paired = g_paired_room.of(all * SIZE);
        memset(d_q, 0, sizeof(float) * all * SIZE);
        for (int g = 0; g < group; g++)
            for (int64_t t = 0; t < tokens; t += 32) {
                const int64_t to = (g * tokens + t) * SIZE;
                const int head = shared * group + g;
                turned(call.q.at(b, head, t), call.q.token, q_turned + to);
                paired(call.q.at(b, head, t), call.q.token, q_paired + to, false);
                turned(call.d_out.at(b, head, t), call.d_out.token, g_turned + to);
                paired(call.d_out.at(b, head, t), call.d_out.token, g_paired + to, false);
                for (int r = 0; r < 32; r++) deltas[g * tokens + t + r] = delta(b, head, t + r);
            }
        for (int64_t t = 0; t < tokens; t += BLOCK) {
            memset(d_k, 0, sizeof(d_k));
            memset(d_v, 0, sizeof(d_v));
            for (int g = 0; g < group; g++)
                for (int64_t s = t; s < tokens; s += BLOCK) {
                    const int64_t at = g * tokens + s;
                    const float *its_sums = call.sums + (b * call.heads + shared * group + g) * tokens + s;
                    for (int key = 0; key < 2; key++)
                        for (int half = 0; half < 2; half++) {
                            multiply(call.k.at(b, shared, t + 32 * key), call.k.token, q_turned + (at + 32 * half) * SIZE, scores);
                            multiply(call.v.at(b, shared, t + 32 * key), call.v.token, g_turned + (at + 32 * half) * SIZE, products);
                            if (s == t) hide(scores, key, half);
                            change(key, half, its_sums + 32 * half, deltas + at + 32 * half);
                        }
                    for (int key = 0; key < 2; key++) {
                        add(d_v + key * 32 * 32, weights + square(key, 0), 2 * MATRIX, g_paired + at * SIZE, 2 * MATRIX);
                        add(d_k + key * 32 * 32, changes + square(key, 0), 2 * MATRIX, q_paired + at * SIZE, 2 * MATRIX);
                    }
                    for (int half = 0; half < 2; half++)
                        add(d_q + (at + 32 * half) * SIZE, keys + t * SIZE, 2 * MATRIX, zip + square(0, half), 4 * MATRIX);
                }
            for (int r = 0; r < BLOCK; r++) {
                keep(d_k + 32 * r, call.scale, call.d_k.at(b, shared, t + r));
                keep(d_v + 32 * r, 1, call.d_v.at(b, shared, t + r));
            }
        }
        const F scale = _mm512_set1_ps(call.scale);
        for (int g = 0; g < group; g++)
            for (int64_t t = 0; t < tokens; t += 16) {
                const float *from = d_q + (g * tokens + t / 32 * 32) * SIZE + t % 32;
                give(from, scale, call.d_q.at(b, shared * group + g, t), call.d_q.token);
            }
    }

    float delta(int b, int head, int64_t t) const {
        const I x = _mm512_loadu_si512(call.out.at(b, head, t)), y = _mm512_loadu_si512(call.d_out.at(b, head, t));
        return _mm512_reduce_add_ps(_mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)x, (__m512bh)y));
    }

    static void keep(const float *from, float factor, uint16_t *to) {
        const F times = _mm512_set1_ps(factor);
        _mm512_storeu_si512(to, both(_mm512_mul_ps(_mm512_load_ps(from), times), _mm512_mul_ps(_mm512_load_ps(from + 16), times)));
    }

    // A square of scores, and of products of gradients and values -> weights, changes of the scores, these also in pairs.
    void change(int key, int half, const float *its_sums, const float *deltas) {
        const F times = _mm512_set1_ps(factor);
        uint16_t *to_weights = weights + square(key, half), *to_changes = changes + square(key, half);
        uint16_t *to_zip = zip + square(key, half);
        const F sum[2] = {_mm512_loadu_ps(its_sums), _mm512_loadu_ps(its_sums + 16)};
        const F delta[2] = {_mm512_loadu_ps(deltas), _mm512_loadu_ps(deltas + 16)};
        for (int r = 0; r < 32; r += 2) {
            F w[2][2], d[2][2];
            for (int odd = 0; odd < 2; odd++)
                for (int i = 0; i < 2; i++) {
                    const int at = 32 * (r + odd) + 16 * i;
                    w[odd][i] = power(_mm512_fmsub_ps(_mm512_load_ps(scores + at), times, sum[i]));
                    d[odd][i] = _mm512_mul_ps(w[odd][i], _mm512_sub_ps(_mm512_load_ps(products + at), delta[i]));
                }
            for (int odd = 0; odd < 2; odd++) {
                _mm512_store_si512(to_weights + 32 * (r + odd), both(w[odd][0], w[odd][1]));
                _mm512_store_si512(to_changes + 32 * (r + odd), both(d[odd][0], d[odd][1]));
            }
            for (int i = 0; i < 2; i++) _mm512_store_si512(to_zip + i * MATRIX + 16 * r, zipped(d[0][i], d[1][i]));
        }
    }
};

template <typename Item> void spread(const Call &call, int threads, const Item &item) {
    const int64_t items = call.batch * call.kv_heads;
    std::atomic<int64_t> next{0};
    auto work = [&] {
        std::unique_ptr<Worker> worker(new Worker(call));
        for (int64_t i; (i = next++) < items;) item(*worker, (int)(i / call.kv_heads), (int)(i % call.kv_heads));
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads && i < items; i++) others.emplace_back(work);
    work();
    for (auto &other : others) other.join();
}
} // namespace

// 0 when the system lets this process use AMX.
extern "C" int causal_begin() {
#if defined(__linux__)
    return (int)syscall(SYS_arch_prctl, 0x1023, 18);
#else
    return -1;
#endif
}

extern "C" void causal_forward(const Call *call, int threads) {
    spread(*call, threads, [](Worker &worker, int b, int shared) { worker.forward(b, shared); });
}

extern "C" void causal_backward(const Call *call, int threads) {
    spread(*call, threads, [](Worker &worker, int b, int shared) { worker.backward(b, shared); });
}
