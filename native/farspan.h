// Attention over held entries: what is passed across the C boundary, and what each instruction set provides.
//
// Shapes: H key-value heads, G query heads per key-value head, T tokens of a packed batch, R = rows (token x group
// member) that are worked on together, N entries, D key size, Dv value size.
#ifndef FARSPAN_H
#define FARSPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FS_F32 = 32, FS_BF16 = 17, FS_F16 = 16, FS_INT8 = 8, FS_INT4 = 4, FS_INT2 = 2 };
enum { FS_TILE = 128, FS_ROWS = 16, FS_CHUNK = 2048, FS_MAX_SIZE = 512 };

// Entries of all heads, and who sees them. Strides are in bytes. `offsets` (H + 1 entry indices) says which entries
// belong to which head, one head after the other; without it every head holds `count` entries, `head_stride` apart.
typedef struct {
    int32_t kind;         // FS_F32 .. FS_INT2
    int32_t group;        // codes: entries of a head that share key scales
    int32_t value_group;  // codes: channels of a value that share a scale
    int32_t value_groups; // codes: how many such groups an entry has
    const void *keys, *values;
    int64_t key_head_stride, key_stride, value_head_stride, value_stride;
    const uint16_t *key_scale, *key_low;     // codes: float16 [Q, D]
    const uint16_t *value_scale, *value_low; // codes: float16 [E, value_groups]
    const int64_t *offsets;                  // [H + 1] or NULL
    const int64_t *group_offsets;            // codes: [H + 1], the first key group of each head
    int64_t count;
    const int32_t *gather;         // entries to attend to, head-local, or NULL for all
    const int64_t *gather_offsets; // [H + 1] into gather
    const float *log_weights;      // added to the scores of gathered entries, or NULL
    const int32_t *tokens;         // rows of the batch that see this part, or NULL for first_token ..
    int32_t first_token, token_count;
    int32_t causal; // the token_count tokens are the part's last entries: each sees those up to itself
    int32_t window; // with causal: and only the newest `window` of them; 0 for all
} FsPart;

typedef struct {
    const void *query; // [Hq, T, D] at query_kind
    int64_t query_head_stride, query_token_stride; // bytes
    int32_t query_kind;
    int32_t heads, group, tokens, key_size, value_size;
    float scaling, softcap; // softcap 0: none
    const float *sinks;     // [Hq] learned sink logits, or NULL
    void *out;              // [T, Hq, Dv] at out_kind, contiguous
    int32_t out_kind;
    float *lse; // [Hq, T] or NULL
    int32_t exact; // codes in float arithmetic, however long it takes
    int32_t threads;
} FsCall;

// Gathered entries lie anywhere, and are long on their way: those that come next are asked for while others are worked on.
typedef struct {
    const char *from;
    int64_t stride;
    const int32_t *index;
    int n, bytes; // entries, and how long each is
} FsSoon;

// What an instruction set does with one tile of at most FS_TILE entries and FS_ROWS rows.
// s is [FS_ROWS, FS_TILE]: scores, later weights. acc is [rows, value_size] and added to. soon may be NULL.
typedef struct {
    const char *name;
    void (*scores_dense)(int kind, const float *q, int rows, int size, const char *keys, int64_t stride,
                         const int32_t *index, int n, float *s, const FsSoon *soon);
    void (*values_dense)(int kind, const float *s, int rows, int size, const char *values, int64_t stride,
                         const int32_t *index, int n, float *acc, const FsSoon *soon);
    void (*scores_codes)(int bits, const float *q, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                         const uint16_t *low, int n, float *s);
    void (*values_codes)(int bits, const float *s, int rows, int size, const uint8_t *codes, const uint16_t *scale,
                         const uint16_t *low, int groups, int group, int n, float *acc);
    void (*unpack)(int bits, const uint8_t *codes, int size, const uint16_t *scale, const uint16_t *low, int group,
                   float *to);
    void (*cap_scores)(float *s, int rows, int n, float cap);
    void (*softmax)(float *s, int rows, int n, float *best, float *sum, float *acc, int size);
    // In integers where that is faster, to 1/65,000 of the largest number in a row; NULL where it is not to be had. Sums
    // of values then stand in an order of their own until finish_codes. q is what `begin` made of it (step: NULL where it
    // made nothing of it), and the entries are those of whole groups and of the beginning of another.
    void (*quick_scores_codes)(int bits, const float *q, const float *step, int rows, int size, const uint8_t *codes,
                               const uint16_t *scale, const uint16_t *low, int group, int n, float *s);
    void (*quick_values_codes)(int bits, const float *s, int rows, int size, const uint8_t *codes,
                               const uint16_t *scale, const uint16_t *low, int groups, int group, int n, float *acc);
    void (*finish_codes)(int bits, float *acc, int rows, int size, int groups, int group);
    // Around the quick functions of a work item, whose keys have these groups of scales; NULL where there is nothing to do.
    // If true comes back, each row of q has become a multiple of step[row].
    bool (*begin)(float *q, int rows, int size, const uint16_t *scale, int64_t groups, float *step);
    void (*end)(void);
} FsTiles;

// Entries of one head, dense on one side and as codes on the other.
typedef struct {
    int32_t kind;   // of the dense ones: FS_F32, FS_BF16, FS_F16
    int32_t bits;   // of a code
    int32_t keys;   // `group` entries share a scale per channel; else `group` channels of an entry share one
    int32_t group;
    int32_t size;   // channels
    int32_t skip;   // unpacking keys: entries of the first group that come before the first one wanted
    int32_t threads;
    int64_t count;  // entries
    void *dense;
    int64_t stride; // of dense entries, in bytes
    uint8_t *codes;
    uint16_t *scale, *low; // float16, those of the first group and on
} FsCodes;

// Keys and values of the heads of one call, in bfloat16, which stand at the same ascending positions. Strides are in bytes.
typedef struct {
    const void *keys, *values;
    int64_t key_head_stride, key_stride, value_head_stride, value_stride;
    const int32_t *positions; // [count]
    int64_t count;
} FsRun;

// Queries of tokens at positions first .. first + tokens, and what they see, themselves and older: what stands before
// position `before`, the positions in `column`, and those at a distance of band[0] .. band[1] - 1, of band[2] .. and so on.
typedef struct {
    const void *query; // [H * group, tokens, key_size]
    void *out;         // [tokens, H * group, value_size]
    int64_t query_head_stride, query_token_stride, out_head_stride, out_token_stride; // bytes
    int32_t heads, group, tokens, key_size, value_size, first;
    float scaling, softcap; // scaling > 0; softcap 0: none
    const float *sinks;     // [H * group] learned sink logits, or NULL
    int32_t before, columns, bands, threads;
    const int32_t *column, *band; // ascending; pairs
    float *lse;                   // [H * group, tokens], sinks included where they are given, or NULL
} FsSight;

#ifdef __cplusplus
extern "C" {
#endif
extern const FsTiles fs_tiles_scalar, fs_tiles_avx2, fs_tiles_avx512, fs_tiles_amx;
int fs_attend(const FsCall *call, const FsPart *parts, int32_t part_count);
// Parts here are of bfloat16 or codes, none of them gathered; their entries are older than every query, and all see them.
int fs_attend_sight(const FsSight *call, const FsRun *runs, int32_t run_count, const FsPart *parts, int32_t part_count);
int fs_sees(void); // whether fs_attend_sight can be had here
const char *fs_instruction_set(void);
const char *fs_instruction_sets(void);
int fs_pack(const FsCodes *call);
int fs_unpack(const FsCodes *call);
// n entries back to numbers; for keys all of one group, whose scales these are (see FsCodes).
void fs_decode(int kind, const uint8_t *codes, int n, int size, int bits, int keys, int group, const uint16_t *scale,
               const uint16_t *low, void *dense, int64_t stride);
int fs_force(const char *name);
void fs_borrow(void *team); // OpenMP's GOMP_parallel, where its threads are to work for us, or NULL: our own
int fs_version(void);
#ifdef __cplusplus
}
#endif
#endif
