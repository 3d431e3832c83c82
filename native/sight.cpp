// Attention of many query rows under a sight: cut into work items, each some rows of one head.
//
// How work is cut depends on shapes alone, so that results are the same for any number of threads.
#include "pool.h"
#include "sight.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#endif

namespace {

// Rows of a work item: keys are laid out anew for every item that sees them, and what it works in stays in a core's cache.
const int MOST_ROWS = 1024, LEAST_ROWS = 256, ITEMS = 16;

struct Job {
    const FsSight *call;
    const FsSeen *seen;
    int64_t rows, of_item, spans;
    char *room;
    size_t room_size;
    std::atomic<int64_t> next{0};
};

void work(void *context, int64_t worker) {
    Job &job = *(Job *)context;
    for (int64_t item; (item = job.next.fetch_add(1)) < job.call->heads * job.spans;) {
        const int64_t row = item % job.spans * job.of_item;
        fs_sight_rows(job.call, job.seen, (int)(item / job.spans), (int)row, (int)std::min(job.of_item, job.rows - row),
                      job.room + worker * job.room_size);
    }
}

// Whether there are products of bfloat16: those of matrices, and what makes numbers of these.
bool brain_matrices() {
#if defined(__x86_64__) && defined(__linux__)
    unsigned a, b, c, d;
    const unsigned amx_bf16 = 1u << 22, avx512_bf16 = 1u << 5;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_bf16)) return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & avx512_bf16);
#else
    return false;
#endif
}

} // namespace

extern "C" int fs_sees(void) {
    static const bool brain = brain_matrices(); // asking takes long in a virtual machine
    return brain && std::strcmp(fs_instruction_set(), "amx") == 0;
}

// 0, or 1 where memory does not suffice, or 2 where sizes or the machine are others than `fs_sees` and FS_MAX_SIZE allow.
extern "C" int fs_attend_sight(const FsSight *call, const FsRun *runs, int32_t run_count, const FsPart *parts, int32_t part_count) {
#if defined(__x86_64__) && defined(__linux__)
    if (call->key_size > FS_MAX_SIZE || call->value_size > FS_MAX_SIZE || !fs_sees()) return 2;
    const FsSeen seen{runs, parts, run_count, part_count};
    Job job{call, &seen, (int64_t)call->tokens * call->group, MOST_ROWS, 0, nullptr, 0};
    while (job.of_item > LEAST_ROWS && call->heads * ((job.rows + job.of_item - 1) / job.of_item) < ITEMS) job.of_item /= 2;
    job.spans = (job.rows + job.of_item - 1) / job.of_item;
    const int64_t workers = std::min<int64_t>(std::max(call->threads, 1), call->heads * job.spans);
    job.room_size = (fs_sight_room(call, (int)std::min(job.of_item, job.rows)) + 4095) / 4096 * 4096;
    job.room = (char *)std::aligned_alloc(4096, job.room_size * workers);
    if (!job.room) return 1;
    pool_run(work, &job, workers, (int)workers);
    std::free(job.room);
    return 0;
#else
    return 2;
#endif
}
