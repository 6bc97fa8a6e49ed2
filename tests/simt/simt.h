// A SIMT emulator: includes a CUDA kernel's own source and runs it on the host, one OS thread per CUDA thread, blocks in turn.
//
// Why OS threads: a barrier means what it means, ThreadSanitizer sees the kernel's threads, and AddressSanitizer and
// UndefinedBehaviorSanitizer see its memory. What each variant finds:
//   TSan        two threads of a block that touch the same memory with no __syncthreads / __syncwarp between them. Shuffles, votes
//               and atomics order nothing but themselves, as on the card: the rendezvous below is invisible to TSan, and only the
//               barriers add a happens-before edge. Nor does __threadfence add one.
//   ASan+UBSan  access outside a buffer or a shared array, misaligned vector access, signed overflow, shifts.
//   any         a barrier or shuffle that not every thread reaches (reported, not hung), lanes that disagree about a shuffle's mask,
//               a shuffle that reads a lane which does not take part (all-ones: NaN), shared memory read before it is written
//               (all-ones at the start of every block), outputs nobody writes (the runner fills them with all-ones).
// Not seen: races between blocks and a missing __threadfence (blocks run one after another; the runner can reverse or shuffle
// their order), lanes that would run in lock step on a card, cost.
#pragma once

#include <linux/futex.h>
#include <math.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#define GAN_FAST_SIMT 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __restrict__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
// In a section of its own so that it can be poisoned; the compiler leaves template instances out of the section, the runner finds
// those by symbol and names them in the request.
#define __shared__ static __attribute__((section("simt_shared")))
// Functions whose synchronisation the sanitizers must not see.
#define SIMT_HIDDEN __attribute__((noinline, no_sanitize("thread", "address", "undefined")))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define SIMT_VECTOR(T, name, align2, align4)                                                             \
  struct alignas(align2) name##2 { T x, y; };                                                            \
  struct name##3 { T x, y, z; };                                                                         \
  struct alignas(align4) name##4 { T x, y, z, w; };                                                      \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                             \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                     \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR(signed char, char, 2, 4)
SIMT_VECTOR(unsigned char, uchar, 2, 4)
SIMT_VECTOR(short, short, 4, 8)
SIMT_VECTOR(unsigned short, ushort, 4, 8)
SIMT_VECTOR(int, int, 8, 16)
SIMT_VECTOR(unsigned, uint, 8, 16)
SIMT_VECTOR(long long, longlong, 16, 16)
SIMT_VECTOR(unsigned long long, ulonglong, 16, 16)
SIMT_VECTOR(float, float, 8, 16)
SIMT_VECTOR(double, double, 16, 16)
#undef SIMT_VECTOR

inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

extern "C" {
extern char __start_simt_shared[] __attribute__((weak));
extern char __stop_simt_shared[] __attribute__((weak));
}

namespace simt {

enum Meeting : uint32_t { kRunning, kBlockBarrier, kBetweenBlocks, kWarpBarrier, kShuffle, kVote, kReduce, kDone };
inline const char* meeting_name(uint32_t m) {
  static const char* const names[] = {"running", "__syncthreads", "end of block", "__syncwarp", "a shuffle", "a vote", "a warp reduction", "done"};
  return names[m];
}

constexpr int kExitMisuse = 96, kExitDeadlock = 97;

[[noreturn]] SIMT_HIDDEN inline void fail(const char* what) {
  std::fprintf(stderr, "simt: block (%u,%u,%u) thread (%u,%u,%u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
               threadIdx.z, what);
  std::fflush(stderr);
  _exit(kExitMisuse);
}

SIMT_HIDDEN inline void futex_wait(uint32_t* word, uint32_t old) {
  struct timespec limit = {0, 50'000'000};
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, &limit, nullptr, 0);
}
SIMT_HIDDEN inline void futex_wake(uint32_t* word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0); }
SIMT_HIDDEN inline void lock(uint32_t* word) {
  while (__atomic_exchange_n(word, 1u, __ATOMIC_SEQ_CST)) sched_yield();
}
SIMT_HIDDEN inline void unlock(uint32_t* word) { __atomic_store_n(word, 0u, __ATOMIC_SEQ_CST); }

// All threads of a block. `votes` belongs to __syncthreads_count and its kin.
struct BlockBarrier {
  uint32_t guard = 0, expected = 0, arrived = 0, phase = 0, votes[2] = {0, 0};
  std::atomic<uint32_t> visible[2] = {0, 0};
};

// Up to 32 lanes named by a mask; disjoint masks differ in their lowest lane, which picks the seat.
struct Seat {
  uint32_t mask = 0, arrived = 0, phase = 0, members[2] = {0, 0}, kind = 0;
  uint64_t value[2][32];
  std::atomic<uint32_t> visible[2] = {0, 0};
};
struct Warp {
  uint32_t guard = 0, live = 0, exited = 0;
  Seat seats[32];
};

inline BlockBarrier block_barrier, between_blocks;
inline std::vector<Warp> warps;
inline std::vector<uint32_t> thread_state;  // a Meeting each
inline uint32_t progress = 0, finished = 0;
inline char* dynamic_shared_memory = nullptr;
inline constinit thread_local unsigned linear_thread = 0;

SIMT_HIDDEN inline void set_state(uint32_t* states, Meeting m) {
  __atomic_store_n(&states[linear_thread], (uint32_t)m, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&progress, 1u, __ATOMIC_SEQ_CST);
}

SIMT_HIDDEN inline void release_block(BlockBarrier& b) {
  b.arrived = 0;
  b.votes[(b.phase + 1) & 1] = 0;
  __atomic_store_n(&b.phase, b.phase + 1, __ATOMIC_SEQ_CST);
  futex_wake(&b.phase);
}
SIMT_HIDDEN inline uint32_t block_phase(BlockBarrier& b) { return __atomic_load_n(&b.phase, __ATOMIC_SEQ_CST); }
SIMT_HIDDEN inline uint32_t block_meet(BlockBarrier& b, uint32_t* states, Meeting kind, uint32_t vote) {
  lock(&b.guard);
  const uint32_t phase = b.phase;
  b.votes[phase & 1] += vote;
  if (++b.arrived == b.expected) {
    release_block(b);
    unlock(&b.guard);
  } else {
    set_state(states, kind);
    unlock(&b.guard);
    futex_wait(&b.phase, phase);
    set_state(states, kRunning);
  }
  return b.votes[phase & 1];
}
SIMT_HIDDEN inline void block_drop(BlockBarrier& b) {
  lock(&b.guard);
  --b.expected;
  if (b.expected && b.arrived == b.expected) release_block(b);
  unlock(&b.guard);
}

SIMT_HIDDEN inline void release_if_complete(Warp& w, Seat& s) {
  if (!s.arrived || (s.mask & w.live & ~w.exited & ~s.arrived)) return;
  s.members[s.phase & 1] = s.arrived;
  s.arrived = 0;
  __atomic_store_n(&s.phase, s.phase + 1, __ATOMIC_SEQ_CST);
  futex_wake(&s.phase);
}
SIMT_HIDDEN inline uint32_t seat_phase(Seat& s) { return __atomic_load_n(&s.phase, __ATOMIC_SEQ_CST); }
SIMT_HIDDEN inline uint32_t warp_meet(Warp& w, Seat& s, uint32_t* states, uint32_t mask, Meeting kind, uint64_t value) {
  const unsigned lane = linear_thread % 32;
  if (!(mask >> lane & 1)) fail("a warp operation whose mask does not name the calling lane");
  lock(&w.guard);
  if (s.arrived && (s.mask != mask || s.kind != kind)) fail("lanes of one warp meet with different masks or in different operations");
  s.mask = mask;
  s.kind = kind;
  const uint32_t phase = s.phase;
  s.value[phase & 1][lane] = value;
  s.arrived |= 1u << lane;
  release_if_complete(w, s);
  const bool done = s.phase != phase;
  if (!done) set_state(states, kind);
  unlock(&w.guard);
  if (!done) {
    futex_wait(&s.phase, phase);
    set_state(states, kRunning);
  }
  return phase & 1;
}
SIMT_HIDDEN inline void warp_drop(Warp& w) {
  lock(&w.guard);
  w.exited |= 1u << (linear_thread % 32);
  for (Seat& s : w.seats) release_if_complete(w, s);
  unlock(&w.guard);
}
SIMT_HIDDEN inline uint64_t seat_value(Seat& s, uint32_t parity, unsigned lane) {
  return s.members[parity] >> lane & 1 ? s.value[parity][lane] : ~uint64_t{0};
}
SIMT_HIDDEN inline uint32_t seat_members(Seat& s, uint32_t parity) { return s.members[parity]; }

inline Warp& my_warp() { return warps[linear_thread / 32]; }
inline Seat& seat_of(Warp& w, uint32_t mask) {
  if (!mask) fail("a warp operation with an empty mask");
  return w.seats[__builtin_ctz(mask)];
}

// A barrier is the invisible rendezvous plus an edge TSan can see. The parity keeps a thread that has run ahead to the next
// barrier from lending its later writes to one still leaving this barrier.
inline uint32_t visible_block_meet(BlockBarrier& b, Meeting kind, uint32_t vote = 0) {
  std::atomic<uint32_t>& edge = b.visible[block_phase(b) & 1];
  edge.fetch_add(1, std::memory_order_acq_rel);
  const uint32_t votes = block_meet(b, thread_state.data(), kind, vote);
  (void)edge.load(std::memory_order_acquire);
  return votes;
}

// Shared arrays that are instances of a template: (offset from the start of the shared section, size), from the request.
inline std::vector<std::pair<int64_t, uint64_t>> template_shared;
SIMT_HIDDEN inline void poison(char* from, uint64_t bytes) {
  for (volatile char* p = from; bytes; --bytes, ++p) *p = (char)0xff;
}
SIMT_HIDDEN inline void poison_shared(uint64_t dynamic_bytes) {
  if (__start_simt_shared) poison(__start_simt_shared, (uint64_t)(__stop_simt_shared - __start_simt_shared));
  for (const auto& [offset, bytes] : template_shared) poison((char*)&progress + offset, bytes);
  poison(dynamic_shared_memory, dynamic_bytes);
}

SIMT_HIDDEN inline void start_block(unsigned threads) {
  block_barrier.expected = threads;
  block_barrier.arrived = 0;
  for (size_t w = 0; w < warps.size(); ++w) {
    const unsigned lanes = std::min<unsigned>(32u, threads - 32u * (unsigned)w);
    warps[w].live = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warps[w].exited = 0;
  }
}

SIMT_HIDDEN inline void watch(unsigned threads, double seconds) {
  uint32_t last = __atomic_load_n(&progress, __ATOMIC_SEQ_CST);
  int still = 0;
  for (double quiet = 0; __atomic_load_n(&finished, __ATOMIC_SEQ_CST) < threads;) {
    const uint32_t before = __atomic_load_n(&finished, __ATOMIC_SEQ_CST);
    struct timespec limit = {0, 100'000'000};
    if (before < threads) syscall(SYS_futex, &finished, FUTEX_WAIT_PRIVATE, before, &limit, nullptr, 0);
    const uint32_t now = __atomic_load_n(&progress, __ATOMIC_SEQ_CST);
    quiet = now == last ? quiet + 0.1 : 0;
    unsigned counts[8] = {};
    for (unsigned t = 0; t < threads; ++t) ++counts[__atomic_load_n(&thread_state[t], __ATOMIC_SEQ_CST)];
    still = now == last && !counts[kRunning] && counts[kDone] < threads ? still + 1 : 0;
    last = now;
    if (still < 30 && quiet < seconds) continue;
    std::fprintf(stderr, "simt: %s:", still < 30 ? "no thread met another for too long (endless loop?)" : "deadlock, every thread waits");
    for (unsigned m = 0; m < 8; ++m)
      if (counts[m]) std::fprintf(stderr, " %u at %s;", counts[m], meeting_name(m));
    for (unsigned t = 0, shown = 0; t < threads && shown < 8; ++t)
      if (thread_state[t] != kBlockBarrier && thread_state[t] != kBetweenBlocks) {
        std::fprintf(stderr, "%s thread %u at %s", shown++ ? "," : " such as", t, meeting_name(thread_state[t]));
      }
    std::fprintf(stderr, "\n");
    std::fflush(stderr);
    _exit(kExitDeadlock);
  }
}

enum class Order : uint32_t { kForward, kReverse, kShuffled };

// Runs kernel<<<grid, block, shared_bytes>>>(args...).
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, uint64_t shared_bytes, Order order, const A&... args) {
  const unsigned threads = block.x * block.y * block.z;
  const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  if (!threads || threads > 1024 || block.z > 64 || !blocks || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu || shared_bytes > 232448) {
    std::fprintf(stderr, "simt: a launch no card accepts: grid %u,%u,%u block %u,%u,%u, %llu bytes\n", grid.x, grid.y, grid.z, block.x, block.y,
                 block.z, (unsigned long long)shared_bytes);
    _exit(kExitMisuse);
  }
  gridDim = grid;
  blockDim = block;
  warps = std::vector<Warp>((threads + 31) / 32);
  thread_state.assign(threads, kRunning);
  progress = finished = 0;
  between_blocks.expected = threads;
  between_blocks.arrived = 0;
  // Exactly as large as asked for, so that ASan sees the end of it.
  std::vector<char> dynamic(shared_bytes);
  dynamic.shrink_to_fit();
  dynamic_shared_memory = dynamic.data();
  std::vector<uint64_t> sequence(blocks);
  uint64_t seed = 0x9e3779b97f4a7c15u;
  for (uint64_t i = 0; i < blocks; ++i) sequence[i] = order == Order::kReverse ? blocks - 1 - i : i;
  for (uint64_t i = blocks; order == Order::kShuffled && i > 1; --i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::swap(sequence[i - 1], sequence[(seed >> 33) % i]);
  }
  std::vector<std::thread> team;
  team.reserve(threads);
  for (unsigned t = 0; t < threads; ++t) {
    team.emplace_back([&, t] {
      linear_thread = t;
      threadIdx = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
      for (const uint64_t b : sequence) {
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
        if (t == 0) {
          start_block(threads);
          poison_shared(shared_bytes);
        }
        visible_block_meet(between_blocks, kBetweenBlocks);
        kernel(args...);
        // A thread that has returned counts as arrived wherever others still meet.
        block_barrier.visible[block_phase(block_barrier) & 1].fetch_add(1, std::memory_order_acq_rel);
        block_drop(block_barrier);
        warp_drop(my_warp());
        visible_block_meet(between_blocks, kBetweenBlocks);
      }
      set_state(thread_state.data(), kDone);
      __atomic_fetch_add(&finished, 1u, __ATOMIC_SEQ_CST);
      futex_wake(&finished);
    });
  }
  const char* patience = std::getenv("SIMT_TIMEOUT");
  watch(threads, patience ? std::atof(patience) : 60.0);
  for (std::thread& t : team) t.join();
}

template <class T>
uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves scalars of at most 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof(T));
  return v;
}
inline void check_width(int width) {
  if (width < 1 || width > 32 || (width & (width - 1))) fail("a shuffle whose width is not a power of two up to 32");
}
template <class T>
T shuffle(uint32_t mask, T v, unsigned source) {
  Seat& s = seat_of(my_warp(), mask);
  const uint32_t parity = warp_meet(my_warp(), s, thread_state.data(), mask, kShuffle, to_bits(v));
  return from_bits<T>(seat_value(s, parity, source));
}
// The values of all lanes that took part, folded with f.
template <class T, class F>
T gather(uint32_t mask, T v, Meeting kind, T start, F f) {
  Seat& s = seat_of(my_warp(), mask);
  const uint32_t parity = warp_meet(my_warp(), s, thread_state.data(), mask, kind, to_bits(v));
  const uint32_t members = seat_members(s, parity);
  for (unsigned lane = 0; lane < 32; ++lane)
    if (members >> lane & 1) start = f(start, from_bits<T>(seat_value(s, parity, lane)), lane);
  return start;
}

}  // namespace simt

#include "simt_device.h"
