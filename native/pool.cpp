#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <pthread.h>
#include <thread>

namespace {

// What threads do together, each taking the next piece until none is left.
struct Shared {
    void (*work)(void *, int64_t);
    void *context;
    int64_t count;
    std::atomic<int64_t> next{0};

    static void drain(void *shared) {
        Shared &self = *(Shared *)shared;
        for (int64_t i; (i = self.next.fetch_add(1)) < self.count;) self.work(self.context, i);
    }
};

struct Pool {
    std::mutex lock, busy;
    std::condition_variable begin, end;
    Shared *shared = nullptr;
    int started = 0, wanted = 0, running = 0;
    uint64_t turn = 0;

    void serve(int number) {
        uint64_t done = 0;
        std::unique_lock<std::mutex> hold(lock);
        for (;;) {
            begin.wait(hold, [&] { return turn != done; });
            done = turn;
            if (number >= wanted) continue;
            hold.unlock();
            Shared::drain(shared);
            hold.lock();
            if (--running == 0) end.notify_one();
        }
    }

    void run(Shared *with, int helpers) {
        {
            std::unique_lock<std::mutex> hold(lock);
            while (started < helpers) std::thread(&Pool::serve, this, started++).detach();
            wanted = running = helpers;
            shared = with;
            turn++;
        }
        begin.notify_all();
        Shared::drain(with);
        std::unique_lock<std::mutex> hold(lock);
        end.wait(hold, [&] { return running == 0; });
    }
};

Pool *pool = nullptr; // never destroyed: its threads end with the process
std::atomic<Team> team{nullptr};
std::once_flag once;

void forget() { // a forked child has none of the threads
    pool = new Pool;
    team = nullptr;
}

void make() {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, forget);
}

} // namespace

void pool_borrow(Team from) {
    std::call_once(once, make);
    team = from;
}

void pool_run(void (*work)(void *, int64_t), void *context, int64_t count, int threads) {
    Shared shared{work, context, count};
    if (threads > 1 && count > 1) {
        std::call_once(once, make);
        if (Team lent = team) { // always asked for as many: to change that would end threads and start others
            lent(Shared::drain, &shared, (unsigned)threads, 0);
            return;
        }
        std::unique_lock<std::mutex> mine(pool->busy, std::try_to_lock);
        if (mine.owns_lock()) {
            pool->run(&shared, (threads > count ? (int)count : threads) - 1);
            return;
        }
    }
    Shared::drain(&shared);
}
