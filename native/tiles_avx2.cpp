// Tiles for machines with AVX2 and FMA: the plain ones, compiled for wider registers.
#include "farspan.h"
#include "target.h"
#if defined(__x86_64__)
FS_TARGET_BEGIN("avx2,fma,f16c")
namespace {
#include "tiles.inl"
}
FS_TARGET_END
extern "C" const FsTiles fs_tiles_avx2 = {"avx2", plain_scores_dense, plain_values_dense, plain_scores_codes, plain_values_codes,
                                     plain_unpack, cap_scores, softmax, 0, 0, 0};
#else
extern "C" const FsTiles fs_tiles_avx2 = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
#endif
