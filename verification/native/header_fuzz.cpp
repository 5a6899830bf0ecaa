// Broken segments against every way to attach: header_fuzz <directory> <count> [seed]. Built with ASan and UBSan.
// Nothing but labhub::Fault may leave the core, and no attempt may allocate on the word of a file.
#include "common.hpp"

#include <sys/resource.h>

#include <random>

namespace {

using namespace verify;
using labhub::Header;
using labhub::HeaderCopy;

const char* const kName = "fuzzed";
constexpr std::uint64_t kCapacity = 4, kSlotNbytes = 64;
std::string directory, path;
std::vector<std::uint8_t> sane;  // a segment as a dead producer and two consumers, one evicted, left it
std::mt19937_64 rng;
std::uint64_t attempts = 0, refused = 0, accepted = 0;

std::vector<std::uint8_t> read_file() {
  std::vector<std::uint8_t> bytes;
  std::FILE* f = std::fopen(path.c_str(), "rb");
  expect(f != nullptr, "the segment is not there");
  std::uint8_t part[4096];
  for (std::size_t n; (n = std::fread(part, 1, sizeof part, f)) > 0;) bytes.insert(bytes.end(), part, part + n);
  std::fclose(f);
  return bytes;
}

void write_file(const std::vector<std::uint8_t>& bytes) {
  ::unlink(path.c_str());
  const int fd = ::open(path.c_str(), O_CREAT | O_RDWR, 0600);
  expect(fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "cannot write the file");
  ::close(fd);
}

std::vector<std::uint8_t> make_sane() {
  const auto shape = shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync);
  Producer p(directory, kName, shape);
  Consumer stuck(directory, kName, true, labhub::kStartNewest), slow(directory, kName, true, labhub::kStartNewest);
  Consumer lossy(directory, kName, false, labhub::kStartNewest);
  std::uint8_t data[kSlotNbytes] = {};
  for (std::uint64_t k = 0; k < 6; ++k) {
    if (k == kCapacity) slow.skip_to_newest();
    p.write(data, kSlotNbytes, labhub::Patience{0, 0});
  }
  p.claim({0, 0}, {});
  stuck.die();
  slow.die();
  lossy.die();
  p.die();
  return read_file();
}

template <class Use>
void survive(Use use) {
  try {
    use();
    ++accepted;
  } catch (const Fault& f) {
    expect(!f.message.empty(), "a fault without a message");
    ++refused;
  } catch (const std::exception& e) {
    fail(std::string("not a Fault but ") + e.what());
  }
}

void consume(bool lossless, std::int64_t start) {
  Consumer c(directory, kName, lossless, start);
  const std::uint64_t size = c.segment().slot_nbytes, n = std::min<std::uint64_t>(c.segment().capacity, 8);
  expect(c.segment().capacity * size <= sane.size() * 2, "a geometry larger than the file was believed");
  std::vector<std::uint8_t> data(n * size);
  std::vector<HeaderCopy> headers(n);
  survive([&] { c.wait(1, 0, true, {}); });
  survive([&] { c.read(data.data(), headers.data(), n); });
  survive([&] { c.peek(rng() % 3 ? c.cursor() - n : rng(), data.data(), headers.data(), n); });
  survive([&] {
    if (c.acquire(rng() % 2 == 0, 0, false, {}) < 0) return;
    c.valid();
    c.open_header();
    c.release();
  });
  survive([&] { c.skip_to_newest(); });
  survive([&] { c.seek(labhub::kStartOldest); });
  survive([&] { c.read(data.data(), headers.data(), n); });
}

void take_over() {
  Producer p(directory, kName, shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync));
  std::uint8_t data[8 * kSlotNbytes] = {};
  std::uint64_t written = 0;
  survive([&] { p.write(data, 8, {0, 0}); });
  survive([&] { p.write_many(data, 8, {0, 0}, {}, written); });
  survive([&] {
    p.claim({0, 0}, {});
    p.commit(rng() % (2 * kSlotNbytes), labhub::kNow, data);
  });
  survive([&] { p.abort(); });
}

void attempt(const std::vector<std::uint8_t>& bytes) {
  write_file(bytes);
  ++attempts;
  const std::int64_t starts[] = {labhub::kStartNewest, labhub::kStartOldest, labhub::kStartLast, 0, 5,
                                 static_cast<std::int64_t>(rng())};
  survive([] { labhub::probe(directory, kName); });
  survive([] { labhub::slot_states(directory, kName); });
  survive([&] { consume(rng() % 2 == 0, starts[rng() % 6]); });
  if (rng() % 8 == 0) survive([] { labhub::reset_counters(directory, kName); });
  if (rng() % 2) survive([] { labhub::unlink_dead(directory, kName, nullptr); });
  else survive(take_over);
}

std::uint64_t extreme() {
  static const std::uint64_t interesting[] = {0, 1, 2, 3, 7, 63, 64, 65, 4095, 4096, 4097, 8704, 12288, 1ULL << 31, 1ULL << 32};
  switch (rng() % 4) {
    case 0: return interesting[rng() % (sizeof interesting / sizeof *interesting)];
    case 1: return (std::uint64_t{1} << rng() % 64) - rng() % 3;
    case 2: return ~std::uint64_t{0} - rng() % 130;
    default: return rng();
  }
}

// Offsets of the numbers that addresses are computed from, and of those that decide what is read and waited for.
const std::size_t kGeometry[] = {
    offsetof(labhub::Geometry, abi), offsetof(labhub::Geometry, capacity), offsetof(labhub::Geometry, slot_nbytes),
    offsetof(labhub::Geometry, stride), offsetof(labhub::Geometry, slot_headers_offset),
    offsetof(labhub::Geometry, payload_offset), offsetof(labhub::Geometry, total_nbytes)};
const std::size_t kState[] = {
    offsetof(Header, identity) + 56, offsetof(Header, commit), offsetof(Header, commit) + 8, offsetof(Header, data),
    offsetof(Header, space) + 8, offsetof(Header, owner) + 16, offsetof(Header, lines), offsetof(Header, lines) + 8,
    offsetof(Header, lines) + 64, offsetof(Header, lines) + 72, sizeof(Header), sizeof(Header) + 16,
    sizeof(Header) + 64, sizeof(Header) + 80};

void put(std::vector<std::uint8_t>& bytes, std::size_t at, std::uint64_t value, std::size_t width = 8) {
  if (at + width <= bytes.size()) std::memcpy(&bytes[at], &value, width);
}

void every_byte() {
  const std::size_t interesting = sizeof(Header) + kCapacity * sizeof(labhub::SlotHeader);
  for (std::size_t at = 0; at < interesting; ++at)
    for (const int flip : {0xFF, 1 << static_cast<int>(rng() % 8)}) {
      auto bytes = sane;
      bytes[at] ^= static_cast<std::uint8_t>(flip);
      attempt(bytes);
    }
}

void extremes(std::uint64_t count) {
  for (std::uint64_t k = 0; k < count; ++k) {
    auto bytes = sane;
    for (std::uint64_t fields = 1 + rng() % 3; fields; --fields) {
      const bool geometry = rng() % 2;
      const std::size_t at = geometry ? kGeometry[rng() % 7] : kState[rng() % 14];
      std::uint64_t old = 0;
      std::memcpy(&old, &bytes[at], 8);
      put(bytes, at, rng() % 4 ? extreme() : old + (rng() % 5 - 2) * (rng() % 2 ? 1 : 64), at % 8 ? 4 : 8);
    }
    attempt(bytes);
  }
}

// Geometries whose fields agree with each other, but not with the file, or not quite.
void plausible(std::uint64_t count) {
  for (std::uint64_t k = 0; k < count; ++k) {
    auto bytes = sane;
    const std::uint64_t capacity = rng() % 4 ? 1 + rng() % 1000 : extreme(), slot_nbytes = rng() % 4 ? 1 + rng() % 5000 : extreme();
    labhub::Sizes s{};
    if (!labhub::compute_sizes(capacity, slot_nbytes, 4096, 4096, s)) s = {slot_nbytes, sizeof(Header), 12288, sane.size()};
    const std::uint64_t fields[] = {capacity, slot_nbytes, s.stride, sizeof(Header), rng() % 2 ? s.payload_offset : 12288,
                                    rng() % 4 ? sane.size() : s.total_nbytes};
    for (std::size_t i = 0; i < 6; ++i)
      if (rng() % 16) put(bytes, kGeometry[1 + i], fields[i]);
    attempt(bytes);
  }
}

void cut_short() {
  for (std::size_t size = 0; size < sane.size(); size += size < 700 ? 1 : 61)
    attempt({sane.begin(), sane.begin() + static_cast<std::ptrdiff_t>(size)});
  for (std::size_t page = 4096; page <= 8 * 4096; page += 4096) {  // and too long
    auto bytes = sane;
    bytes.resize(page);
    attempt(bytes);
    put(bytes, offsetof(labhub::Geometry, total_nbytes), page);
    attempt(bytes);
  }
}

void foreign(std::uint64_t count) {
  for (std::uint64_t k = 0; k < count; ++k) {
    std::vector<std::uint8_t> bytes(rng() % (2 * sane.size()));
    for (auto& b : bytes) b = static_cast<std::uint8_t>(rng());
    if (bytes.size() >= 16 && k % 2) std::copy_n(sane.begin(), 16, bytes.begin());  // magic, version, header size
    attempt(bytes);
  }
}

void scrambled(std::uint64_t count) {
  for (std::uint64_t k = 0; k < count; ++k) {
    auto bytes = sane;
    const std::size_t reach = rng() % 3 ? sizeof(Header) + 256 : 512;
    for (std::uint64_t n = 1 + rng() % 16; n; --n) bytes[rng() % reach] = static_cast<std::uint8_t>(rng());
    attempt(bytes);
  }
}

constexpr std::uint64_t kHole = std::uint64_t{192} << 20;

// The header of a segment of about kHole bytes, right in everything; and how large the segment is.
std::vector<std::uint8_t> large_header(std::uint64_t& total) {
  auto bytes = sane;
  auto& g = reinterpret_cast<Header*>(bytes.data())->geometry;
  labhub::Sizes s{};
  g.capacity = 3;
  g.slot_nbytes = kHole / 3;
  expect(labhub::compute_sizes(g.capacity, g.slot_nbytes, 4096, 4096, s), "a geometry that cannot be");
  g.stride = s.stride;
  g.payload_offset = s.payload_offset;
  g.total_nbytes = total = s.total_nbytes;
  return bytes;
}

// A large file without blocks: whoever populates its map before looking at the header, and for holes, allocates all of it.
void sparse() {
  std::uint64_t right = 0;
  const auto large = large_header(right);
  const std::vector<std::uint8_t> fronts[] = {{}, sane, std::vector<std::uint8_t>(512, 0xFF), large};
  for (const auto& front : fronts)
    for (int way = 0; way < 5; ++way) {
      write_file(front);
      const auto size = front == large ? right : kHole;
      expect(::truncate(path.c_str(), static_cast<off_t>(size)) == 0, "cannot make a sparse file");
      const auto blocks = [] {
        struct stat s {};
        return ::stat(path.c_str(), &s) == 0 ? static_cast<std::uint64_t>(s.st_blocks) * 512 : 0;
      };
      const std::uint64_t before = blocks();
      survive([&] {
        switch (way) {
          case 0: labhub::probe(directory, kName); break;
          case 1: labhub::slot_states(directory, kName); break;
          case 2: consume(false, labhub::kStartOldest); break;
          case 3: take_over(); break;
          default: labhub::unlink_dead(directory, kName, nullptr);
        }
      });
      expect(blocks() <= before + (1 << 20), "an attempt to attach allocated the pages of a sparse file");
      ++attempts;
    }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) fail("usage: header_fuzz <directory> <count> [seed]");
  directory = argv[1];
  path = directory + "/" + kName;
  const std::uint64_t count = std::strtoull(argv[2], nullptr, 10);
  rng.seed(argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
  sane = make_sane();
  struct rusage before {}, after {};
  ::getrusage(RUSAGE_SELF, &before);
  sparse();
  cut_short();
  every_byte();
  const std::uint64_t rest = count > attempts ? count - attempts : 0;
  extremes(rest * 2 / 5);
  plausible(rest / 5);
  foreign(rest / 5);
  scrambled(rest - rest * 2 / 5 - 2 * (rest / 5));
  ::getrusage(RUSAGE_SELF, &after);
  const long grown = after.ru_maxrss - before.ru_maxrss;  // in KiB
  expect(grown < 128 * 1024, "memory grew by " + std::to_string(grown) + " KiB");
  expect(refused > attempts / 4 && accepted > attempts / 4, "the mutations are all of one kind");
  ::unlink(path.c_str());
  std::printf("HOLDS iterations=%llu refused=%llu accepted=%llu grown=%ldKiB\n", static_cast<unsigned long long>(attempts),
              static_cast<unsigned long long>(refused), static_cast<unsigned long long>(accepted), grown);
}
