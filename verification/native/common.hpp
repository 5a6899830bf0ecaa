// What the native checks share: payloads that prove themselves, and endpoints that can be brought onto one mapping.
#pragma once

#include <labhub/consumer.hpp>
#include <labhub/probe.hpp>
#include <labhub/producer.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace verify {

using labhub::Code;
using labhub::Fault;

[[noreturn]] inline void fail(const std::string& why) {
  std::fprintf(stderr, "FAILED: %s\n", why.c_str());
  std::fflush(stderr);
  std::_Exit(1);
}
inline void expect(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

// Word k of slot `seq`: a torn slot, a slot in the wrong place and a stale one all show.
inline std::uint64_t word_of(std::uint64_t seq, std::uint64_t k) { return (seq * 0x9E3779B97F4A7C15ULL) ^ (k << 48) ^ k; }

inline labhub::Shape shape_of(std::uint64_t capacity, std::uint64_t slot_nbytes, std::uint8_t sync) {
  labhub::Shape s{};
  s.capacity = capacity;
  s.slot_nbytes = slot_nbytes;
  s.page_nbytes = 4096;
  s.policy = labhub::kRingBuffer;
  s.sync = sync;
  return s;
}

// ThreadSanitizer knows memory by its address: what two mappings of one file do to each other it does not see. So the
// checks run with a mapping per side, as processes have it, and with all sides on the mapping of the first producer.
class Producer : public labhub::Producer {
 public:
  using labhub::Producer::Producer;
  void move_to(const std::shared_ptr<labhub::MemoryMap>& map) {
    if (map) segment_ = std::make_unique<labhub::Segment>(map);
  }
  // What the kernel does for a killed process: the locks go, and nothing is tidied up.
  void die() { file_->close(); }
};

class Consumer : public labhub::Consumer {
 public:
  using labhub::Consumer::Consumer;
  void move_to(const std::shared_ptr<labhub::MemoryMap>& map) {
    if (map) segment_ = std::make_unique<labhub::Segment>(map);
  }
  void die() { file_->close(); }
};

}  // namespace verify
