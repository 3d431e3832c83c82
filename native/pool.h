// Threads to share work among: those of the OpenMP runtime that the process computes with anyway, once they are lent, else a
// few of our own that wait without spinning; one call at a time gets these, others run alone.
//
// Threads of OpenMP spin for a while after they worked. Between two products of matrices they are there at once, while a
// thread of our own would have to be woken, and to wait for the core that one of theirs spins on.
#ifndef FARSPAN_POOL_H
#define FARSPAN_POOL_H
#include <cstdint>
typedef void (*Team)(void (*work)(void *), void *context, unsigned threads, unsigned flags); // GOMP_parallel
void pool_borrow(Team team);
void pool_run(void (*work)(void *context, int64_t index), void *context, int64_t count, int threads);
#endif
