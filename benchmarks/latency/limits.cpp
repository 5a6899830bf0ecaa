// The same loops as duplex.py without Python, on what the machine has: a word between two cores, with and without a futex,
// and on labhub's ring. A shared library: the processes that bench/runner.py has pinned call into it.
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "labhub/consumer.hpp"
#include "labhub/producer.hpp"

using namespace labhub;

namespace {

struct Duplex {
  virtual ~Duplex() = default;
  virtual void attach() {}  // once both processes have made what is theirs
  virtual void send(std::int64_t word) = 0;
  virtual std::int64_t receive() = 0;
};

struct alignas(kLine) Cell {
  std::atomic<std::uint32_t> count;
  std::int64_t words[7];
};
static_assert(sizeof(Cell) == 64);

class Cells : public Duplex {
 public:
  Cells(const std::string& directory, bool first, bool sleeps) : sleeps_(sleeps) {
    const int file = ::open((directory + "/cells").c_str(), O_RDWR | O_CREAT, 0600);
    if (file < 0 || ::ftruncate(file, 2 * sizeof(Cell)) != 0) std::abort();
    void* const at = ::mmap(nullptr, 2 * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) std::abort();
    ::close(file);
    cells_ = static_cast<Cell*>(at);
    own_ = cells_ + (first ? 0 : 1);
    other_ = cells_ + (first ? 1 : 0);
  }
  ~Cells() override { ::munmap(cells_, 2 * sizeof(Cell)); }

  void send(std::int64_t word) override {
    own_->words[0] = word;
    own_->count.store(++sent_, std::memory_order_release);  // pairs with receive
    if (sleeps_) futex_wake(own_->count);
  }

  std::int64_t receive() override {
    for (++received_; other_->count.load(std::memory_order_acquire) < received_;) {  // pairs with send
      if (sleeps_) futex_wait(other_->count, received_ - 1, kSlice);
      else relax_cpu();
    }
    return other_->words[0];  // a newer one, if the reader was late
  }

 private:
  bool sleeps_;
  Cell *cells_, *own_, *other_;
  std::uint32_t sent_ = 0, received_ = 0;
};

class Rings : public Duplex {
 public:
  Rings(const std::string& directory, bool first, bool sleeps) : directory_(directory), first_(first), sleeps_(sleeps) {
    Shape shape;
    shape.capacity = 64;
    shape.slot_nbytes = sizeof record_;
    producer_ = std::make_unique<Producer>(directory_, first_ ? "there" : "back", shape);
  }

  void attach() override {
    const char* const other = first_ ? "back" : "there";
    consumer_ = std::make_unique<Consumer>(directory_, other, true, kStartOldest, nullptr, !sleeps_);
  }
  void send(std::int64_t word) override {
    record_[0] = word;
    producer_->write(record_);
  }
  std::int64_t receive() override {
    const auto seq = static_cast<std::uint64_t>(consumer_->step(false, -1, nullptr));
    return *reinterpret_cast<const std::int64_t*>(consumer_->segment().payload(seq));
  }

 private:
  std::string directory_;
  bool first_, sleeps_;
  std::int64_t record_[8] = {};
  std::unique_ptr<Producer> producer_;
  std::unique_ptr<Consumer> consumer_;
};

}  // namespace

extern "C" {

Duplex* make(const char* directory, bool ring, bool first, bool sleeps) {
  if (ring) return new Rings(directory, first, sleeps);
  return new Cells(directory, first, sleeps);
}
void attach(Duplex* d) { d->attach(); }
void finish(Duplex* d) { delete d; }

void echo(Duplex* d, std::int64_t n) {
  while (n--) d->send(d->receive());
}

void round_trips(Duplex* d, std::int64_t n, std::int64_t* taken) {
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t began = monotonic_ns();
    d->send(k);
    const std::int64_t back = d->receive();
    taken[k] = back == k ? monotonic_ns() - began : -1;
  }
}

void tick(Duplex* d, std::int64_t n, std::int64_t period_ns) {
  for (std::int64_t due = monotonic_ns(); n--;) {
    due = std::max(due + period_ns, monotonic_ns());  // a tick that was missed does not hurry the next
    const timespec at{static_cast<time_t>(due / 1'000'000'000), static_cast<long>(due % 1'000'000'000)};
    ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
    d->send(monotonic_ns());
  }
}

void delays(Duplex* d, std::int64_t n, std::int64_t* taken) {
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t sent = d->receive();
    taken[k] = monotonic_ns() - sent;
  }
}
}
