// The same ring, the same slots and the same verification as bench/payload.py, without Python: what labhub's Python
// can at best come near to. And memcpy of the same bytes, which neither can beat.
//
//   pair produce|consume|bare-produce|bare-consume|memcpy DIRECTORY NBYTES BATCH CAPACITY AMOUNT
//
// "ready" on stdout, then a line on stdin begins, the seconds on stdout, and another line on stdin ends it.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <vector>

#include "labhub/consumer.hpp"
#include "labhub/producer.hpp"
#include "verify.hpp"

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
  if (sum_of_lines(slot, t.lines()) != (t.batch > 1 ? k : k % kRows * t.lines()) + t.rest()) {
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
    for (std::uint64_t k = 0; k < t.amount; ++k) producer.write(source.slot(k), t.nbytes, {}, kNow, nullptr);
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
      consumer.wait(t.batch, -1, false, nullptr);  // whole batches, as everybody's
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

// A head, a tail and slots in shared memory, and two processes that spin. No header of a slot, no wake-up, no check: not
// something to use.
class Bare {
 public:
  Bare(const Task& t, bool create) : task_(t) {
    const std::string path = t.directory + "/bare";
    const int fd = ::open(path.c_str(), create ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    const std::size_t n = 2 * kPage + t.capacity * t.nbytes;
    if (fd < 0 || (create && ::posix_fallocate(fd, 0, static_cast<off_t>(n)))) throw std::runtime_error("no " + path);
    void* const at = ::mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    ::close(fd);
    if (at == MAP_FAILED) throw std::runtime_error("cannot map " + path);
    base_ = static_cast<std::uint8_t*>(at);
  }
  std::atomic<std::uint64_t>& head() const { return *reinterpret_cast<std::atomic<std::uint64_t>*>(base_); }
  std::atomic<std::uint64_t>& tail() const { return *reinterpret_cast<std::atomic<std::uint64_t>*>(base_ + kPage); }
  std::uint8_t* slot(std::uint64_t k) const { return base_ + 2 * kPage + k % task_.capacity * task_.nbytes; }

 private:
  static constexpr std::size_t kPage = 4096;
  const Task& task_;
  std::uint8_t* base_;
};

void bare_produce(const Task& t) {
  const Bare ring(t, true);
  const Source source(t);
  meet();
  std::uint64_t limit = t.capacity;
  for (std::uint64_t k = 0; k < t.amount; ++k) {
    while (k >= limit) limit = ring.tail().load(std::memory_order_acquire) + t.capacity;
    std::memcpy(ring.slot(k), source.slot(k), t.nbytes);
    ring.head().store(k + 1, std::memory_order_release);
  }
  meet();
}

void bare_consume(const Task& t) {
  const Bare ring(t, false);
  meet();
  Stopwatch watch;
  std::uint64_t known = 0;
  for (std::uint64_t k = 0; k < t.amount; ++k) {
    while (k >= known) known = ring.head().load(std::memory_order_acquire);
    verify(t, k, ring.slot(k));
    ring.tail().store(k + 1, std::memory_order_release);
    if (k == 0) watch.begin();
  }
  watch.tell();
  std::cout << t.amount - 1 << std::endl;
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
    else if (what == "bare-produce") bare_produce(task);
    else if (what == "bare-consume") bare_consume(task);
    else if (what == "memcpy") copy(task);
    else return 2;
    return 0;
  } catch (const Fault& fault) {
    std::cerr << fault.message << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
  }
  return 1;
}
