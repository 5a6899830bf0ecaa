// What the weak-memory models share. Relacy runs the threads of a model under its own scheduler and lets every load return
// any value that the C++ memory model permits. The models spell out the steps of one protocol of native/include/labhub each;
// lines with `mirrors` quote the code that they stand for, and run.py refuses a quotation that is no longer there.
// Relacy's memory_order_* are macros that carry the place in the source for its log.
#pragma once

#include <relacy/relacy.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

using rl::memory_order;
using Word = rl::atomic<int>;
#define fence(order) rl::atomic_thread_fence(order)
#define acquire rl::memory_order_acquire
#define release rl::memory_order_release
#define acq_rel rl::memory_order_acq_rel
#define relaxed rl::memory_order_relaxed
#define seq_cst rl::memory_order_seq_cst

constexpr int writing(int i) { return 2 * i + 1; }   // mirrors layout.hpp: return 2 * i + 1
constexpr int complete(int i) { return 2 * i + 2; }  // mirrors layout.hpp: return 2 * i + 2

// The kernel's side of a futex: comparing with the word and going to sleep is one step under the lock of its bucket.
struct Futex {
  rl::mutex bucket;
  int asleep[2];

  void reset() { asleep[0] = asleep[1] = 0; }
  void wait(int me, Word& word, int expected) {
    bucket.lock($);
    if (word.load(relaxed) == expected) asleep[me] = 1;
    bucket.unlock($);
  }
  void wake() {
    bucket.lock($);
    asleep[0] = asleep[1] = 0;
    bucket.unlock($);
  }
  bool quiet() const { return !asleep[0] && !asleep[1]; }
};

// A model is compiled once; the name of a step to be left out or spoilt comes from the command line: model <iterations> [mutant].
inline const char*& mutant() {
  static const char* name = "";
  return name;
}
inline bool mutated(const char* name) { return std::strcmp(name, mutant()) == 0; }

template <class Model>
int simulate(int argc, char** argv) {
  if (argc > 2) mutant() = argv[2];
  rl::test_params p;
  p.iteration_count = argc > 1 ? static_cast<rl::iteration_t>(std::atol(argv[1])) : 100000;
  p.search_type = rl::random_scheduler_type;
  const bool holds = rl::simulate<Model>(p);
  std::printf("\n%s iterations=%lu\n", holds ? "HOLDS" : "VIOLATED", static_cast<unsigned long>(p.stop_iteration));
  return holds ? 0 : 1;
}
