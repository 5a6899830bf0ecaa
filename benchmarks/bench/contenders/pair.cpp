// The same ring, the same slots and the same verification as bench/payload.py, without Python: what labhub's Python
// can at best come near to. And memcpy of the same bytes, which neither can beat.
//
//   pair produce|consume|memcpy DIRECTORY NBYTES BATCH CAPACITY AMOUNT
//
// "ready" on stdout, then a line on stdin begins, the seconds on stdout, and another line on stdin ends it.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <vector>

#include "labhub/consumer.hpp"
#include "labhub/producer.hpp"

using namespace labhub;

namespace {

constexpr std::uint64_t kRows = 4099, kWords = 8;  // as in payload.py
constexpr const char* kChannel = "bench";

struct Task {
  std::string directory;
  std::uint64_t nbytes, batch, capacity, amount;
  std::uint64_t lines() const { return nbytes / 64; }
  std::uint64_t rest() const { return lines() * (lines() - 1) / 2; }
};

void meet() {
  std::cout << "ready" << std::endl;
  std::cin.get();
}

class Stopwatch {
 public:
  void begin() { began_ = std::chrono::steady_clock::now(); }
  void tell() const {
    std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count() << std::endl;
  }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

std::vector<std::int64_t> lines_of(std::uint64_t n) {
  std::vector<std::int64_t> words(n * kWords);
  for (std::uint64_t k = 0; k < n; ++k) words[k * kWords] = static_cast<std::int64_t>(k);
  return words;
}

class Source {  // one by one: slot k begins at line k % kRows
 public:
  explicit Source(const Task& t) : words_(lines_of(t.lines() + kRows)) {}
  const std::uint8_t* slot(std::uint64_t k) const { return reinterpret_cast<const std::uint8_t*>(&words_[k % kRows * kWords]); }

 private:
  std::vector<std::int64_t> words_;
};

class Block {  // in batches: the first word of a slot is its number
 public:
  explicit Block(const Task& t) : task_(t), words_(t.batch * t.nbytes / 8) {
    const std::vector<std::int64_t> slot = lines_of(t.lines());
    for (std::uint64_t k = 0; k < t.batch; ++k) std::copy(slot.begin(), slot.end(), words_.begin() + k * slot.size());
  }
  const std::uint8_t* from(std::uint64_t first) {
    for (std::uint64_t k = 0; k < task_.batch; ++k) words_[k * task_.nbytes / 8] = static_cast<std::int64_t>(first + k);
    return reinterpret_cast<const std::uint8_t*>(words_.data());
  }

 private:
  const Task& task_;
  std::vector<std::int64_t> words_;
};

void verify(const Task& t, std::uint64_t k, const std::uint8_t* slot) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(slot);
  std::uint64_t sum = 0;
  for (std::uint64_t line = 0; line < t.lines(); ++line) sum += words[line * kWords];
  if (sum != (t.batch > 1 ? k : k % kRows * t.lines()) + t.rest()) {
    std::cerr << "slot " << k << " is not what was sent" << std::endl;
    std::exit(1);
  }
}

void produce(const Task& t) {
  Shape shape;
  shape.capacity = t.capacity;
  shape.slot_nbytes = t.nbytes;
  Producer producer(t.directory, kChannel, shape);
  const Source source(t);
  Block block(t);
  meet();
  if (t.batch > 1) {
    std::uint64_t written = 0;
    for (std::uint64_t k = 0; k < t.amount; k += t.batch, written = 0) producer.write_many(block.from(k), t.batch, {}, nullptr, written);
  } else {
    for (std::uint64_t k = 0; k < t.amount; ++k) producer.write(source.slot(k), t.nbytes, {}, 0, nullptr);
  }
  meet();
}

void consume(const Task& t) {
  Consumer consumer(t.directory, kChannel, true, kStartNewest);
  std::vector<std::uint8_t> data(t.batch * t.nbytes);
  std::vector<HeaderCopy> headers(t.batch);
  meet();
  Stopwatch watch;
  std::uint64_t first = 0;
  for (std::uint64_t k = 0; k < t.amount;) {
    std::uint64_t n = 1;
    if (t.batch > 1) {
      consumer.wait(1, -1, false, nullptr);
      n = consumer.read(data.data(), headers.data(), t.batch).count;
      for (std::uint64_t j = 0; j < n; ++j) verify(t, k + j, &data[j * t.nbytes]);
    } else {
      consumer.step(false, -1, nullptr);
      verify(t, k, consumer.segment().payload(k));
    }
    k += n;
    if (first == 0) first = n, watch.begin();
  }
  watch.tell();
  std::cout << t.amount - first << std::endl;
  meet();
}

void copy(const Task& t) {
  std::vector<std::uint8_t> ring(t.capacity * t.nbytes, 1);
  const Source source(t);
  Block block(t);
  meet();
  Stopwatch watch;
  for (std::uint64_t k = 0; k < t.amount; k += t.batch) {
    const std::uint8_t* from = t.batch > 1 ? block.from(k) : source.slot(k);
    std::memcpy(&ring[k % t.capacity * t.nbytes], from, t.batch * t.nbytes);
    asm volatile("" ::: "memory");  // the ring is read, as far as the compiler knows
  }
  watch.tell();
  std::cout << t.amount << std::endl;
  meet();
}

}  // namespace

int main(int n, char** words) {
  if (n != 7) return 2;
  const auto number = [&](int k) { return std::strtoull(words[k], nullptr, 10); };
  const Task task{words[2], number(3), number(4), number(5), number(6)};
  const std::string what = words[1];
  try {
    if (what == "produce") produce(task);
    else if (what == "consume") consume(task);
    else if (what == "memcpy") copy(task);
    else return 2;
  } catch (const Fault& fault) {
    std::cerr << fault.message << std::endl;
    return 1;
  }
}
