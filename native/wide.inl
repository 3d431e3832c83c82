// What the files for AVX-512 share.

typedef __m512 F;
typedef __m512i I;

inline __mmask16 first(int n) { return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1); }
inline __mmask64 bytes(int n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

// Bytes from what is read to what is asked of memory meanwhile: entries come one after the other, tile after tile, and
// without it the first lines of each tile are waited for.
const int AHEAD = 4096;

// Whether columns of 16 belong to one group, or to two in halves, and groups are few enough.
inline bool regular(int bits, int size, int groups, int group) {
    int columns = group * bits / 8;
    return (groups == 1 || groups == 2 || groups == 4) && size * bits % 8 == 0 &&
           (groups == 1 || columns % 16 == 0 || columns == 8);
}

