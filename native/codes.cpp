// Entries packed to codes of 8, 4 or 2 bits and read back, group by group.
#include "farspan.h"
#include "pool.h"
#include "target.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off") // codes are the same on every machine
#endif

namespace {

struct Coder {
    int (*encode_keys)(int kind, const char *dense, int64_t stride, int n, int size, int bits, uint8_t *codes,
                       uint16_t *scale, uint16_t *low);
    int (*encode_values)(int kind, const char *dense, int64_t stride, int n, int size, int bits, int group,
                         uint8_t *codes, uint16_t *scale, uint16_t *low);
    void (*decode)(int kind, const uint8_t *codes, int n, int size, int bits, int keys, int group,
                   const uint16_t *scale, const uint16_t *low, char *dense, int64_t stride);
};

namespace scalar {
#include "tiles.inl"
#include "codes.inl"
const Coder coder = {encode_keys, encode_values, decode};
} // namespace scalar

#if defined(__x86_64__)
FS_TARGET_BEGIN("avx2,f16c")
namespace avx2 {
#include "tiles.inl"
#include "codes.inl"
const Coder coder = {encode_keys, encode_values, decode};
} // namespace avx2
FS_TARGET_END
FS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")
namespace avx512 {
#include "tiles.inl"
#include "codes.inl"
const Coder coder = {encode_keys, encode_values, decode};
} // namespace avx512
FS_TARGET_END
#endif

const Coder &chosen() {
#if defined(__x86_64__)
    const char *set = fs_instruction_set();
    if (!std::strcmp(set, "avx2")) return avx2::coder;
    if (std::strcmp(set, "scalar")) return avx512::coder;
#endif
    return scalar::coder;
}

struct Job {
    const FsCodes *call;
    const Coder *coder;
    std::atomic<int> wrong;
};

const int RUN = 64; // entries of values that are worked on together

// Entries of piece `index`: of keys a group (the first may be joined late), of values a run.
struct Piece {
    int64_t first, count;
};
Piece piece(const FsCodes &call, int64_t index) {
    const int64_t length = call.keys ? call.group : RUN, skip = call.keys ? call.skip : 0;
    const int64_t from = std::max<int64_t>(0, index * length - skip);
    return {from, std::min(call.count, (index + 1) * length - skip) - from};
}
int64_t pieces(const FsCodes &call) {
    const int64_t length = call.keys ? call.group : RUN, skip = call.keys ? call.skip : 0;
    return (call.count + skip + length - 1) / length;
}

struct At {
    char *dense;
    uint8_t *codes;
    uint16_t *scale, *low;
};
At at(const FsCodes &call, int64_t index, int64_t entry) {
    const int64_t scales = call.keys ? index * call.size : entry * ((call.size + call.group - 1) / call.group);
    return {(char *)call.dense + entry * call.stride, call.codes + entry * (call.size * call.bits / 8),
            call.scale + scales, call.low + scales};
}

void pack(void *context, int64_t index) {
    Job &job = *(Job *)context;
    const FsCodes &call = *job.call;
    const Piece part = piece(call, index);
    const At to = at(call, index, part.first);
    const int n = (int)part.count;
    const int fine = call.keys ? job.coder->encode_keys(call.kind, to.dense, call.stride, n, call.size, call.bits,
                                                        to.codes, to.scale, to.low)
                               : job.coder->encode_values(call.kind, to.dense, call.stride, n, call.size, call.bits,
                                                          call.group, to.codes, to.scale, to.low);
    if (!fine) job.wrong = 1;
}

void unpack(void *context, int64_t index) {
    Job &job = *(Job *)context;
    const FsCodes &call = *job.call;
    const Piece part = piece(call, index);
    const At from = at(call, index, part.first);
    job.coder->decode(call.kind, from.codes, (int)part.count, call.size, call.bits, call.keys, call.group, from.scale,
                      from.low, from.dense, call.stride);
}

int run(const FsCodes *call, void (*work)(void *, int64_t)) {
    if (call->size > FS_MAX_SIZE) return 2;
    Job job{call, &chosen(), {0}};
    pool_run(work, &job, pieces(*call), call->threads);
    return job.wrong;
}

} // namespace

// 0, or 1 where a number is infinite, none, or beyond what float16 scales can say, or 2 for a size beyond FS_MAX_SIZE.
extern "C" int fs_pack(const FsCodes *call) { return run(call, pack); }
extern "C" int fs_unpack(const FsCodes *call) { return run(call, unpack); }

extern "C" void fs_decode(int kind, const uint8_t *codes, int n, int size, int bits, int keys, int group, const uint16_t *scale,
                          const uint16_t *low, void *dense, int64_t stride) {
    chosen().decode(kind, codes, n, size, bits, keys, group, scale, low, (char *)dense, stride);
}
