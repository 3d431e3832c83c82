// Attention of many query rows that see alike, as matrix products of bfloat16: between sight.cpp, which shares the work out,
// and sight_amx.cpp, which does it.
#ifndef FARSPAN_SIGHT_H
#define FARSPAN_SIGHT_H
#include "farspan.h"
// All that is seen.
typedef struct {
    const FsRun *runs;
    const FsPart *parts;
    int32_t run_count, part_count;
} FsSeen;
#ifdef __cplusplus
extern "C" {
#endif
// Bytes that `fs_sight_rows` works in, for at most this many rows; they begin at a multiple of 64.
size_t fs_sight_room(const FsSight *call, int rows);
// Rows row .. row + rows of one head (token-major, `group` query heads to a token).
void fs_sight_rows(const FsSight *call, const FsSeen *seen, int head, int row, int rows, char *room);
#ifdef __cplusplus
}
#endif
#endif
