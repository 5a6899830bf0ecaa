// Plays one side of a channel through the core's own headers, and dies at the point that it is told.
//
//   driver --list                                    every point, one a line
//   driver SCENARIO DIRECTORY NAME [POINT PASSAGE]   without a point: say how often each was passed
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>

#include "labhub/consumer.hpp"
#include "labhub/probe.hpp"
#include "labhub/producer.hpp"

using namespace labhub;

namespace {

constexpr std::uint64_t kCapacity = 8, kWords = 8, kSlot = kWords * sizeof(std::uint64_t);
constexpr std::int64_t kBound = 20'000'000'000;  // ns; of every wait, so that nothing hangs

std::string directory, name;

bool never() { return false; }

void fill(std::uint64_t* words, std::uint64_t seq, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t k = from; k < to; ++k) words[k] = k * 0x9E3779B97F4A7C15ULL + seq;
}

Shape shape_of(std::uint64_t slot_nbytes = kSlot) {
  Shape s{};
  s.capacity = kCapacity;
  s.slot_nbytes = slot_nbytes;
  s.page_nbytes = 4096;
  s.policy = kRingBuffer;
  s.sync = kSequentialSync;
  return s;
}

template <class F>
void until(F condition) {
  for (const Deadline deadline(kBound); !condition();) {
    if (deadline.passed()) std::exit(3);
    ::usleep(200);
  }
}

const Patience patient{kBound, -1};

void write(Producer& p, int n) {
  std::uint64_t words[kWords];
  for (; n > 0; --n) {
    fill(words, p.head(), 0, kWords);
    p.write(reinterpret_cast<const std::uint8_t*>(words), kSlot, patient, kNow, never);
  }
}

void check(Consumer& c, std::int64_t n) {
  std::uint64_t words[kCapacity * kWords], expected[kWords];
  HeaderCopy headers[kCapacity];
  while (n > 0) {
    if (c.wait(1, kBound, false, never) <= 0) std::exit(4);
    const Got got = c.read(reinterpret_cast<std::uint8_t*>(words), headers, kCapacity);
    for (std::uint64_t k = 0; k < got.count; ++k) {
      fill(expected, got.first + k, 0, kWords);
      if (std::memcmp(expected, words + k * kWords, kSlot) != 0) std::exit(5);
    }
    n -= static_cast<std::int64_t>(got.count);
  }
}

// -- the producer's side

// What the others find: three slots, one more that is complete but not committed, and a producer that was killed.
void seed() {
  Producer p(directory, name, shape_of());
  write(p, 3);
  std::uint64_t words[kWords];
  fill(words, 3, 0, kWords);
  p.claim(patient, never);
  std::memcpy(p.segment().payload(3), words, kSlot);
  failpoint::arm("commit_complete", 1);
  p.commit(kSlot);
}

void seed_closing() {
  Producer p(directory, name, shape_of());
  write(p, 3);
  failpoint::arm("end_flag_stored", 1);
  p.close();
}

// What a creator leaves that dies before its file has a name.
void seed_unfinished() {
  failpoint::arm("create_initialised", 1);
  Producer p(directory, name, shape_of());
}

void produce() {
  Producer p(directory, name, shape_of());
  write(p, 1);
  p.claim(patient, never);
  auto* words = reinterpret_cast<std::uint64_t*>(p.segment().payload(p.head()));
  fill(words, p.head(), 0, kWords / 2);
  LABHUB_FAILPOINT(payload_half_written);
  fill(words, p.head(), kWords / 2, kWords);
  LABHUB_FAILPOINT(payload_written);
  p.commit(kSlot);
  p.claim(patient, never);
  p.abort();
  write(p, 1);
}

void produce_many() {
  Producer p(directory, name, shape_of());
  std::uint64_t words[4 * kWords], written = 0;
  for (std::uint64_t k = 0; k < 4; ++k) fill(words + k * kWords, p.head() + k, 0, kWords);
  p.write_many(reinterpret_cast<const std::uint8_t*>(words), 4, patient, never, written);
}

// Slots of another ring, with holes: some, more than the ring holds, none.
void copy() {
  Producer p(directory, name, shape_of());
  std::uint64_t words[3 * kWords], written = 0;
  HeaderCopy headers[3]{};
  for (std::uint64_t k = 0; k < 3; ++k) {
    headers[k].seq = p.head() + 2 + (k ? 2 * kCapacity + k : 0);
    headers[k].nbytes = kSlot;
    fill(words + k * kWords, headers[k].seq, 0, kWords);
  }
  p.write_copies(reinterpret_cast<const std::uint8_t*>(words), headers, 3, patient, never, written);
}

// A lossless consumer elsewhere does not read: it is evicted, although it lives.
void evict() {
  Producer p(directory, name, shape_of());
  std::uint64_t words[kWords];
  for (std::uint64_t k = 0; k < 2 * kCapacity; ++k) {
    fill(words, p.head(), 0, kWords);
    p.write(reinterpret_cast<const std::uint8_t*>(words), kSlot, {kBound, 0}, kNow, never);
  }
}

void replace() { Producer p(directory, name, shape_of(2 * kSlot)); }

void bury() {
  if (!unlink_dead(directory, name, nullptr)) std::exit(6);
}

// -- the consumer's side

void consume(bool lossless) {
  Consumer c(directory, name, lossless, kStartOldest);
  check(c, kCapacity);  // it began in the middle of the ring, so this is two runs of adjacent slots
  c.wait(1, 1'000'000, false, never);
}
void consume_lossless() { consume(true); }
void consume_lossy() { consume(false); }

void hold_slot() {
  Consumer c(directory, name, true, kStartOldest);
  for (int k = 0; k < 2; ++k) {
    if (c.acquire(false, kBound, false, never) < 0) std::exit(4);
    c.open_header();
    c.release();
  }
}

void until_the_producer_waits_for(const Consumer& c) {
  until([&] { return c.head() - c.cursor() == kCapacity && c.header().space.producer_waiting.load() == 1; });
}

// A producer elsewhere waits for room, which this reader makes.
void unblock() {
  Consumer c(directory, name, true, kStartNewest);
  until_the_producer_waits_for(c);
  check(c, kCapacity);
}

// A producer elsewhere waits for room, which this reader makes by going.
void unblock_by_leaving() {
  Consumer c(directory, name, true, kStartNewest);
  until_the_producer_waits_for(c);
}

void be_evicted() {
  Consumer c(directory, name, true, kStartNewest);
  until([&] {
    for (const CursorLine& l : c.header().lines)
      if (l.pid.load() == static_cast<std::uint32_t>(::getpid())) return (l.state.load() & 3) == kEvicted;
    return false;
  });
  try {
    check(c, 1);
    std::exit(7);
  } catch (const Fault& f) {
    if (f.code != Code::evicted) throw;
  }
}

const std::map<std::string, std::function<void()>> scenarios = {
    {"seed", seed}, {"seed_closing", seed_closing}, {"seed_unfinished", seed_unfinished},
    {"produce", produce}, {"produce_many", produce_many}, {"copy", copy},
    {"evict", evict}, {"replace", replace}, {"bury", bury},
    {"consume_lossless", consume_lossless}, {"consume_lossy", consume_lossy}, {"hold_slot", hold_slot},
    {"unblock", unblock}, {"unblock_by_leaving", unblock_by_leaving}, {"be_evicted", be_evicted},
};

}  // namespace

int main(int n, char** words) {
  constexpr int kPoints = static_cast<int>(failpoint::Point::count);
  if (n == 2 && std::strcmp(words[1], "--list") == 0) {
    for (int i = 0; i < kPoints; ++i) std::printf("%s\n", failpoint::name(i));
    return 0;
  }
  if (n != 4 && n != 6) return 2;
  directory = words[2];
  name = words[3];
  const auto scenario = scenarios.find(words[1]);
  if (scenario == scenarios.end()) return 2;
  if (n == 6 && !failpoint::arm(words[4], std::strtoull(words[5], nullptr, 10))) return 2;
  try {
    scenario->second();
  } catch (const Fault& f) {
    std::fprintf(stderr, "%s\n", f.what());
    return 1;
  }
  for (int i = 0; i < kPoints; ++i)
    if (failpoint::passed[i]) std::printf("%s %llu\n", failpoint::name(i), static_cast<unsigned long long>(failpoint::passed[i]));
}
