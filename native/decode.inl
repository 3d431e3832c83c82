// Codes read back to bfloat16, 16 channels at a time, to the bit as `decode` in codes.inl does; after wide.inl.

// Channels d .. d + 15 of one entry's codes, as far as there are, as numbers 0 .. 2^bits - 1.
inline F spread(int bits, const uint8_t *codes, int d, int many) {
    const __mmask16 some = first((many * bits + 7) / 8);
    const __m128i its = _mm_maskz_loadu_epi8(some, codes + d * bits / 8);
    const I three = _mm512_set1_epi32(3), nibble = _mm512_set1_epi32(15);
    if (bits == 8) return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_cvtepi8_epi32(its), _mm512_set1_epi32(128)));
    if (bits == 4) { // a byte to every 64 bits: its low half stays, its high half goes to the upper 32
        const I x = _mm512_cvtepu8_epi64(its);
        return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_or_si512(x, _mm512_slli_epi64(x, 28)), nibble));
    }
    const I shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srlv_epi32(_mm512_broadcastd_epi32(its), shifts), three));
}

// Neither operation may be contracted with the other: codes stand for the same numbers on every machine.
inline void put(F code, F factor, F base, int many, uint16_t *to) {
    const F product = _mm512_mul_round_ps(code, factor, _MM_FROUND_CUR_DIRECTION);
    const F x = _mm512_add_round_ps(product, base, _MM_FROUND_CUR_DIRECTION);
    _mm256_mask_storeu_epi16(to, first(many), (__m256i)_mm512_cvtneps_pbh(x));
}

inline F halves(const uint16_t *from, int many) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(many), from)); }
inline F half(uint16_t value) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)value)); }

// n keys that share a scale per channel.
void decode_keys(int bits, const uint8_t *codes, int n, int size, const uint16_t *scale, const uint16_t *low, uint16_t *to) {
    const int64_t bytes = size * bits / 8;
    for (int d = 0; d < size; d += 16) {
        const F factor = halves(scale + d, size - d), base = halves(low + d, size - d);
        for (int i = 0; i < n; i++)
            put(spread(bits, codes + i * bytes, d, size - d), factor, base, size - d, to + (int64_t)i * size + d);
    }
}

// n values of which every `group` channels share a scale, whole columns of 16 if not all of them.
void decode_values(int bits, const uint8_t *codes, int n, int size, int groups, int group, const uint16_t *scale,
                   const uint16_t *low, uint16_t *to) {
    const int64_t bytes = size * bits / 8;
    for (int i = 0; i < n; i++, scale += groups, low += groups)
        for (int d = 0; d < size; d += 16) {
            const int g = groups == 1 ? 0 : d / group;
            put(spread(bits, codes + i * bytes, d, size - d), half(scale[g]), half(low[g]), size - d, to + (int64_t)i * size + d);
        }
}
