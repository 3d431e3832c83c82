// One softmax over parts: cut into work items, computed tile by tile, merged by log-sum-exp.
//
// How work is cut depends on shapes alone, so that results are the same for any number of threads.
#include "farspan.h"
#include "pool.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

const FsTiles *tiles = nullptr;

struct Item {
    int32_t part, head, row, rows; // rows of the part: token-major, `group` query heads to a token
    int64_t first, count;          // entries of the head (or of its gathered ones)
    size_t slot;                   // where its rows stand in the partial results
};

struct Job {
    const FsCall *call;
    const FsPart *parts;
    std::vector<Item> items;
    std::vector<size_t> head_items; // items sorted by head: where each head's begin
    float *best, *sum, *acc;        // partial results by slot
    float *merged;                  // [H][T*G][Dv + 2]
};

float to_float(int kind, const char *at) {
    if (kind == FS_F32) {
        float value;
        std::memcpy(&value, at, 4);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    if (kind == FS_BF16) {
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        return value;
    }
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
               : exponent       ? std::ldexp((float)(mantissa | 1024), exponent - 25)
                                : std::ldexp((float)mantissa, -24);
    return bits & 0x8000 ? -size : size;
}

uint16_t to_brain(float value) { // to nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t to_half(float value) { // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) // subnormal: a multiple of 2^-24
        return (uint16_t)(sign | (uint32_t)std::nearbyint(std::ldexp(std::fabs(value), 24)));
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

void from_float(int kind, float value, char *at) {
    if (kind == FS_F32) {
        std::memcpy(at, &value, 4);
        return;
    }
    uint16_t bits = kind == FS_BF16 ? to_brain(value) : to_half(value);
    std::memcpy(at, &bits, 2);
}

bool coded(int kind) { return kind == FS_INT8 || kind == FS_INT4 || kind == FS_INT2; }

int64_t entries(const FsPart &part, int head) {
    if (part.gather) return part.gather_offsets[head + 1] - part.gather_offsets[head];
    return part.offsets ? part.offsets[head + 1] - part.offsets[head] : part.count;
}

int32_t token_of(const FsPart &part, int row, int group) {
    return part.tokens ? part.tokens[row / group] : part.first_token + row / group;
}

const char *base(const void *start, const FsPart &part, int head, int64_t head_stride, int64_t stride) {
    return (const char *)start + (part.offsets ? part.offsets[head] * stride : head * head_stride);
}

// One work item on its way: pointers of its head, its queries, its running softmax.
struct Work {
    const Job &job;
    const FsPart &part;
    const Item &item;
    const char *keys, *values;
    const uint16_t *key_scale, *key_low, *value_scale, *value_low;
    const int32_t *gather;
    const float *log_weights;
    bool quick;
    float q[FS_ROWS * FS_MAX_SIZE];
    bool stepped = false; // whether q is in steps
    float step[FS_ROWS];
    float s[FS_ROWS * FS_TILE];
    // the running softmax; copied out at the end, since other threads' results lie in the same lines of memory
    float best[FS_ROWS], sum[FS_ROWS], acc[FS_ROWS * FS_MAX_SIZE];

    Work(const Job &the_job, const Item &the_item)
        : job(the_job), part(the_job.parts[the_item.part]), item(the_item),
          keys(base(part.keys, part, item.head, part.key_head_stride, part.key_stride)),
          values(base(part.values, part, item.head, part.value_head_stride, part.value_stride)), key_scale(nullptr),
          key_low(nullptr), value_scale(nullptr), value_low(nullptr), gather(nullptr), log_weights(nullptr),
          quick(!the_job.call->exact && tiles->quick_scores_codes) {
        const FsCall &call = *job.call;
        if (coded(part.kind)) {
            key_scale = part.key_scale + part.group_offsets[item.head] * call.key_size;
            key_low = part.key_low + part.group_offsets[item.head] * call.key_size;
            int64_t first = part.offsets ? part.offsets[item.head] : item.head * part.count;
            value_scale = part.value_scale + first * part.value_groups;
            value_low = part.value_low + first * part.value_groups;
        }
        if (part.gather) {
            gather = part.gather + part.gather_offsets[item.head];
            if (part.log_weights) log_weights = part.log_weights + part.gather_offsets[item.head];
        }
        int width = call.query_kind == FS_F32 ? 4 : 2;
        for (int r = 0; r < item.rows; r++) {
            int row = item.row + r, head = item.head * call.group + row % call.group;
            const char *from = (const char *)call.query + head * call.query_head_stride +
                               token_of(part, row, call.group) * call.query_token_stride;
            for (int d = 0; d < call.key_size; d++)
                q[r * call.key_size + d] = to_float(call.query_kind, from + d * width) * call.scaling;
        }
    }

    void run() {
        const FsCall &call = *job.call;
        for (int r = 0; r < item.rows; r++) best[r] = -INFINITY, sum[r] = 0;
        std::memset(acc, 0, sizeof(float) * item.rows * call.value_size);
        const bool whole = coded(part.kind) && !gather && quick;
        if (whole && tiles->begin)
            stepped = tiles->begin(q, item.rows, call.key_size, key_scale + item.first / part.group * call.key_size,
                                   (item.count + part.group - 1) / part.group, step);
        if (gather && !coded(part.kind)) ask_for_first_keys();
        for (int64_t at = item.first; at < item.first + item.count; at += FS_TILE) {
            int n = (int)std::min<int64_t>(FS_TILE, item.first + item.count - at);
            if (!visible(at)) break;
            scores(at, n);
            soften(at, n);
            hide(at, n);
            tiles->softmax(s, item.rows, n, best, sum, acc, call.value_size);
            weigh(at, n);
        }
        if (whole && tiles->end) tiles->end();
        if (whole)
            tiles->finish_codes(part.kind, acc, item.rows, call.value_size, part.value_groups, part.value_group);
        std::memcpy(job.best + item.slot, best, sizeof(float) * item.rows);
        std::memcpy(job.sum + item.slot, sum, sizeof(float) * item.rows);
        std::memcpy(job.acc + item.slot * (size_t)call.value_size, acc, sizeof(float) * item.rows * call.value_size);
    }

    // The newest entry that a row sees, plus one.
    int64_t end(int r) const {
        int tokens = part.token_count, token = (item.row + r) / job.call->group;
        return part.causal ? part.count - tokens + token + 1 : INT64_MAX;
    }
    bool visible(int64_t at) const { return at < end(item.rows - 1); }

    // Of the gathered entries from `at` on, a tile: values come while their keys are worked on, and the next tile's keys
    // while these values are.
    FsSoon soon(const char *from, int64_t stride, int size, int64_t at) const {
        const int64_t left = std::max<int64_t>(0, item.first + item.count - at);
        return {from, stride, gather + at, (int)std::min<int64_t>(FS_TILE, left), size * (part.kind == FS_F32 ? 4 : 2)};
    }
    FsSoon soon_keys(int64_t at) const { return soon(keys, part.key_stride, job.call->key_size, at); }
    FsSoon soon_values(int64_t at) const { return soon(values, part.value_stride, job.call->value_size, at); }
    __attribute__((always_inline)) void ask_for_first_keys() const { // see ask_for of tiles_avx512.cpp
        const FsSoon first = soon_keys(item.first);
        for (int i = 0; i < first.n; i++)
            for (int b = 0; b < first.bytes; b += 64) __builtin_prefetch(first.from + first.stride * first.index[i] + b);
    }

    void scores(int64_t at, int n) {
        int size = job.call->key_size;
        if (!coded(part.kind)) {
            const FsSoon next = gather ? soon_values(at) : FsSoon{};
            if (gather)
                tiles->scores_dense(part.kind, q, item.rows, size, keys, part.key_stride, gather + at, n, s, &next);
            else
                tiles->scores_dense(part.kind, q, item.rows, size, keys + at * part.key_stride, part.key_stride, nullptr,
                                    n, s, nullptr);
            return;
        }
        if (gather) {
            float key[FS_MAX_SIZE];
            for (int i = 0; i < n; i++) {
                int64_t entry = gather[at + i], g = entry / part.group;
                tiles->unpack(part.kind, (const uint8_t *)keys + entry * part.key_stride, size, key_scale + g * size,
                              key_low + g * size, 1, key);
                tiles->scores_dense(FS_F32, q, item.rows, size, (const char *)key, 0, nullptr, 1, s + i, nullptr);
            }
            return;
        }
        if (quick) { // a tile begins with a group
            int64_t g = at / part.group;
            tiles->quick_scores_codes(part.kind, q, stepped ? step : nullptr, item.rows, size,
                                      (const uint8_t *)keys + at * part.key_stride, key_scale + g * size,
                                      key_low + g * size, part.group, n, s);
            return;
        }
        for (int done = 0; done < n;) { // key scales change from group to group
            int64_t g = (at + done) / part.group;
            int many = (int)std::min<int64_t>(n - done, (g + 1) * part.group - (at + done));
            tiles->scores_codes(part.kind, q, item.rows, size, (const uint8_t *)keys + (at + done) * part.key_stride,
                                key_scale + g * size, key_low + g * size, many, s + done);
            done += many;
        }
    }

    void soften(int64_t at, int n) {
        float cap = job.call->softcap;
        if (cap > 0) tiles->cap_scores(s, item.rows, n, cap);
        for (int r = 0; log_weights && r < item.rows; r++)
            for (int i = 0; i < n; i++) s[r * FS_TILE + i] += log_weights[at + i];
    }

    void hide(int64_t at, int n) {
        for (int r = 0; part.causal && r < item.rows; r++) {
            int64_t stop = end(r) - at, start = part.window ? stop - part.window : 0;
            for (int64_t i = std::max<int64_t>(0, stop); i < n; i++) s[r * FS_TILE + i] = -INFINITY;
            for (int64_t i = 0; i < std::min<int64_t>(n, start); i++) s[r * FS_TILE + i] = -INFINITY;
        }
    }

    void weigh(int64_t at, int n) {
        int size = job.call->value_size;
        if (!coded(part.kind)) {
            const FsSoon next = gather ? soon_keys(at + FS_TILE) : FsSoon{};
            if (gather)
                tiles->values_dense(part.kind, s, item.rows, size, values, part.value_stride, gather + at, n, acc,
                                    &next);
            else
                tiles->values_dense(part.kind, s, item.rows, size, values + at * part.value_stride, part.value_stride,
                                    nullptr, n, acc, nullptr);
            return;
        }
        if (!gather) {
            auto weigh_codes = quick ? tiles->quick_values_codes : tiles->values_codes;
            weigh_codes(part.kind, s, item.rows, size, (const uint8_t *)values + at * part.value_stride,
                        value_scale + at * part.value_groups, value_low + at * part.value_groups, part.value_groups,
                        part.value_group, n, acc);
            return;
        }
        float value[FS_MAX_SIZE];
        for (int i = 0; i < n; i++) {
            int64_t entry = gather[at + i];
            tiles->unpack(part.kind, (const uint8_t *)values + entry * part.value_stride, size,
                          value_scale + entry * part.value_groups, value_low + entry * part.value_groups,
                          part.value_group, value);
            tiles->values_dense(FS_F32, s + i, item.rows, size, (const char *)value, 0, nullptr, 1, acc, nullptr);
        }
    }
};

void compute(void *context, int64_t index) {
    const Job &job = *(const Job *)context;
    Work(job, job.items[(size_t)index]).run();
}

// All partial results of one head, in the order of their items, then the learned sinks, then the division.
void merge(void *context, int64_t head) {
    const Job &job = *(const Job *)context;
    const FsCall &call = *job.call;
    size_t rows = (size_t)call.tokens * call.group, width = (size_t)call.value_size + 2;
    float *merged = job.merged + head * rows * width;
    for (size_t r = 0; r < rows; r++) {
        std::memset(merged + r * width, 0, width * sizeof(float));
        merged[r * width] = -INFINITY;
    }
    for (size_t i = job.head_items[head]; i < job.head_items[head + 1]; i++) {
        const Item &item = job.items[i];
        for (int r = 0; r < item.rows; r++) {
            float best = job.best[item.slot + r], sum = job.sum[item.slot + r];
            if (best == -INFINITY) continue;
            int row = item.row + r, token = token_of(job.parts[item.part], row, call.group);
            float *to = merged + ((size_t)token * call.group + row % call.group) * width;
            const float *from = job.acc + (item.slot + r) * (size_t)call.value_size;
            float high = std::max(best, to[0]), theirs = std::exp(best - high), mine = std::exp(to[0] - high);
            to[0] = high;
            to[1] = to[1] * mine + sum * theirs;
            for (int d = 0; d < call.value_size; d++) to[2 + d] = to[2 + d] * mine + from[d] * theirs;
        }
    }
    int width_out = call.out_kind == FS_F32 ? 4 : 2;
    for (int t = 0; t < call.tokens; t++)
        for (int g = 0; g < call.group; g++) {
            float *row = merged + ((size_t)t * call.group + g) * width;
            int query_head = (int)head * call.group + g;
            float high = row[0], total = row[1], keep = 1;
            if (call.sinks) { // a logit without a value: it takes weight, once
                float sink = call.sinks[query_head], top = std::max(high, sink);
                keep = high == -INFINITY ? 0 : std::exp(high - top);
                total = total * keep + std::exp(sink - top);
                high = top;
            }
            float factor = total > 0 ? keep / total : 0;
            char *out = (char *)call.out + ((size_t)t * call.heads * call.group + query_head) *
                                               (size_t)call.value_size * width_out;
            for (int d = 0; d < call.value_size; d++) from_float(call.out_kind, row[2 + d] * factor, out + d * width_out);
            if (call.lse) call.lse[(size_t)query_head * call.tokens + t] = total > 0 ? high + std::log(total) : -INFINITY;
        }
}

void cut(Job &job, int part_count) {
    const FsCall &call = *job.call;
    size_t slot = 0;
    for (int head = 0; head < call.heads; head++) {
        job.head_items.push_back(job.items.size());
        for (int p = 0; p < part_count; p++) {
            const FsPart &part = job.parts[p];
            int64_t count = entries(part, head), rows = (int64_t)part.token_count * call.group;
            // whole tiles and whole key groups (both divide FS_CHUNK), the same whoever else is in the batch
            const int64_t chunk = FS_CHUNK;
            for (int64_t row = 0; row < rows; row += FS_ROWS)
                for (int64_t first = 0; first < count; first += chunk) {
                    int32_t many = (int32_t)std::min<int64_t>(FS_ROWS, rows - row);
                    job.items.push_back({p, head, (int32_t)row, many, first, std::min(chunk, count - first), slot});
                    slot += (size_t)many;
                }
        }
    }
    job.head_items.push_back(job.items.size());
}

const FsTiles *known[] = {
#if defined(__x86_64__)
    &fs_tiles_amx, &fs_tiles_avx512, &fs_tiles_avx2,
#endif
    &fs_tiles_scalar};

// Whether there is a unit for int8 matrices and the system lets this process use it; Linux wants to be asked.
bool matrix_unit() {
#if defined(__x86_64__) && defined(__linux__)
    unsigned a, b, c, d;
    const unsigned unit = 1u << 24 | 1u << 25; // amx-tile, amx-int8
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & unit) != unit) return false;
    const int ask = 0x1023, tile_data = 18; // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
#else
    return false;
#endif
}

bool runs_here(const FsTiles *set) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (set == &fs_tiles_amx) return runs_here(&fs_tiles_avx512) && __builtin_cpu_supports("avx512vbmi") && matrix_unit();
    if (set == &fs_tiles_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
    if (set == &fs_tiles_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
    return set == &fs_tiles_scalar;
}

} // namespace

extern "C" int fs_version(void) { return 5; }

extern "C" void fs_borrow(void *team) { pool_borrow((Team)team); }

extern "C" int fs_force(const char *name) {
    for (const FsTiles *set : known)
        if ((name == nullptr || std::strcmp(name, set->name) == 0) && runs_here(set)) {
            tiles = set;
            return 0;
        }
    return 1;
}

extern "C" const char *fs_instruction_set(void) {
    if (!tiles) fs_force(nullptr);
    return tiles->name;
}

extern "C" const char *fs_instruction_sets(void) {
    static char names[64];
    names[0] = 0;
    for (const FsTiles *set : known)
        if (runs_here(set)) std::strcat(std::strcat(names, names[0] ? " " : ""), set->name);
    return names;
}

// 0, or 1 where memory does not suffice, or 2 for a size beyond FS_MAX_SIZE. Everything else is the caller's to check.
extern "C" int fs_attend(const FsCall *call, const FsPart *parts, int32_t part_count) {
    if (!tiles) fs_force(nullptr);
    if (call->key_size > FS_MAX_SIZE || call->value_size > FS_MAX_SIZE) return 2;
    try {
        Job job{call, parts, {}, {}, nullptr, nullptr, nullptr, nullptr};
        cut(job, part_count);
        size_t slots = job.items.empty() ? 0 : job.items.back().slot + (size_t)job.items.back().rows;
        size_t rows = (size_t)call->tokens * call->group * call->heads;
        // everything here is written before it is read
        std::unique_ptr<float[]> room(new float[(slots + rows) * (2 + (size_t)call->value_size)]);
        job.best = room.get();
        job.sum = job.best + slots;
        job.acc = job.sum + slots;
        job.merged = job.acc + slots * (size_t)call->value_size;
        pool_run(compute, &job, (int64_t)job.items.size(), call->threads);
        pool_run(merge, &job, call->heads, call->threads);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}
