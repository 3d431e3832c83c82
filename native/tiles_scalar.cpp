// Tiles for any machine: baseline instructions only.
#include "farspan.h"
namespace {
#include "tiles.inl"
}
extern "C" const FsTiles fs_tiles_scalar = {"scalar", plain_scores_dense, plain_values_dense, plain_scores_codes, plain_values_codes,
                                     plain_unpack, cap_scores, softmax, 0, 0, 0};
