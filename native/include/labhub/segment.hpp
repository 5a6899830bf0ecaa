// The file under a DataBlock: names, directories, locks, maps, and the check of a header before it is believed.
#pragma once

#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <set>

#include "error.hpp"
#include "layout.hpp"

namespace labhub {

// An open file of our own. An OFD lock belongs to the open file description, so nothing here is ever dup'ed or shared;
// a forked child would keep the parent's locks alive, so the child closes them all before it does anything else.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd), generation_(generation()) {
    install();
    std::lock_guard<std::mutex> hold(live().mutex);
    live().all.insert(this);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  int get() const { return fd_; }
  bool forked() const { return generation_ != generation(); }
  void close() {
    std::lock_guard<std::mutex> hold(live().mutex);
    live().all.erase(this);
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  struct Live {
    std::mutex mutex;
    std::set<Descriptor*> all;
  };
  static Live& live() {
    static Live* l = new Live;  // never destroyed: objects may outlive static destruction
    return *l;
  }
  static unsigned& generation() {
    static unsigned g = 0;
    return g;
  }
  static void install() {
    static const int once = pthread_atfork([] { live().mutex.lock(); }, [] { live().mutex.unlock(); }, [] {
      for (Descriptor* d : live().all) {
        ::close(d->fd_);
        d->fd_ = -1;
      }
      live().all.clear();
      ++generation();
      live().mutex.unlock();
    });
    (void)once;
  }

  int fd_;
  unsigned generation_;
};

inline struct flock lock_at(std::int64_t byte, short type) {
  struct flock f {};
  f.l_type = type;
  f.l_whence = SEEK_SET;
  f.l_start = byte;
  f.l_len = 1;
  return f;
}
// A file system without these locks, or without room for one more. That says nothing of who lives.
inline Fault lock_fault(int error, const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/'));
  return Fault(Code::access, "files in " + directory + " cannot be locked (" + std::strerror(error) + "), so nobody can "
                             "tell who lives; set LABHUB_SHM_DIR to a directory that can hold locks, as in /dev/shm")
      .with("path", directory);
}
inline bool take_lock(int fd, std::int64_t byte, const std::string& path) {
  struct flock f = lock_at(byte, F_WRLCK);
  if (::fcntl(fd, F_OFD_SETLK, &f) == 0) return true;
  if (errno != EAGAIN && errno != EACCES) throw lock_fault(errno, path);
  return false;
}
inline void unlock(int fd, std::int64_t byte) {
  struct flock f = lock_at(byte, F_UNLCK);
  ::fcntl(fd, F_OFD_SETLK, &f);
}
// Whether another description holds the byte; our own locks do not count.
inline bool locked_by_other(int fd, std::int64_t byte, const std::string& path) {
  struct flock f = lock_at(byte, F_WRLCK);
  if (::fcntl(fd, F_OFD_GETLK, &f) != 0) throw lock_fault(errno, path);
  return f.l_type != F_UNLCK;
}
// The same, for those who must go on: who cannot be asked about is not dead.
inline bool maybe_locked_by_other(int fd, std::int64_t byte) {
  struct flock f = lock_at(byte, F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &f) != 0 || f.l_type != F_UNLCK;
}

inline void check_name(const std::string& name) {
  const auto alnum = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  bool good = !name.empty() && name.size() <= 128 && alnum(name[0]);
  for (char c : name) good = good && (alnum(c) || c == '.' || c == '_' || c == '-');
  if (!good)
    throw Fault(Code::invalid_name, "a channel name is 1 to 128 of the characters A-Z a-z 0-9 . _ - and starts with a "
                                    "letter or digit").with("name", name);
}

inline Fault not_a(const char* kind, const std::string& path) {
  return Fault(Code::incompatible, path + " is not a " + kind).with("path", path).with("field", std::string("type"));
}

inline void check_private(const struct stat& s, bool directory, const std::string& path) {
  if (directory ? !S_ISDIR(s.st_mode) : !S_ISREG(s.st_mode)) throw not_a(directory ? "directory" : "regular file", path);
  if (s.st_uid != ::geteuid())
    throw Fault(Code::access, path + " belongs to uid " + str(s.st_uid) + ", not to you (uid " + str(::geteuid()) +
                "): sharing between users of one machine is not supported").with("path", path);
  if (s.st_mode & 077)
    throw Fault(Code::access, path + " is open to other users; run: chmod go-rwx '" + path + "'").with("path", path);
}

// The place of a segment directory, opened. A link, or somebody else's, could lead us elsewhere; what anybody may write
// into is good enough where nobody may rename another's entries there, as in /tmp.
inline int open_place(const std::string& path, bool create) {
  if (create && ::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) throw system_fault(errno, "cannot create", path);
  const int fd = ::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) throw system_fault(errno == ENOTDIR ? ELOOP : errno, "cannot open", path);
  struct stat s {};
  const bool known = ::fstat(fd, &s) == 0;
  const bool ours = known && (s.st_uid == ::geteuid() || s.st_uid == 0);
  if (ours && (!(s.st_mode & 022) || (s.st_mode & S_ISVTX))) return fd;
  ::close(fd);
  throw Fault(Code::access, path + (ours ? " can be written by other users; run: chmod go-w '" + path + "'"
                                         : " belongs to uid " + str(s.st_uid) + "; choose another place"))
      .with("path", path);
}

// The directory, opened and checked. Names are resolved relative to it, so that nobody can swap it afterwards.
inline int open_directory(const std::string& path, bool create) {
  if (path.find('\0') != std::string::npos) throw Fault(Code::invalid_argument, "a directory name contains NUL");
  const std::size_t slash = path.find_last_of('/');
  const int place = open_place(slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash), create);
  const std::string name = path.substr(slash + 1);  // npos + 1 is 0
  int fd = -1, error = 0;
  if (create && ::mkdirat(place, name.c_str(), 0700) != 0) error = errno;
  if (!error || error == EEXIST) {
    fd = ::openat(place, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    error = errno == ENOTDIR ? ELOOP : errno;
  }
  ::close(place);
  if (fd < 0) throw system_fault(error, "cannot open the segment directory", path);
  struct stat s {};
  if (::fstat(fd, &s) != 0) s.st_mode = 0;
  try {
    check_private(s, true, path);
  } catch (...) {
    ::close(fd);
    throw;
  }
  return fd;
}

struct DirectoryHandle {
  std::string path;
  int fd;
  DirectoryHandle(const std::string& p, bool create) : path(p), fd(open_directory(p, create)) {}
  DirectoryHandle(const DirectoryHandle&) = delete;
  ~DirectoryHandle() { ::close(fd); }
};

// A ring is allocated, mapped and populated in parts of this many bytes, and `look` is called between two of them. It may
// throw, for example because of a Ctrl-C; then nothing stays mapped.
inline constexpr std::uint64_t kPart = 16 * 1024 * 1024;
using Look = std::function<void()>;

// One mmap. It is unmapped when the last owner lets go, however long after the segment was closed and unlinked. A map
// keeps its open file description alive, in a forked child too, and an OFD lock lasts as long as its description: so the
// map has one of its own, which never holds a lock.
class MemoryMap {
 public:
  // Takes a map away. Replaced by the bindings, which let other Python threads run meanwhile.
  using Unmap = void (*)(void*, std::size_t);
  static Unmap& unmap() {
    static Unmap f = [](void* base, std::size_t nbytes) { ::munmap(base, nbytes); };
    return f;
  }

  MemoryMap(int fd, std::size_t nbytes, int protection, bool populate, const Look& look = {}) : nbytes_(nbytes) {
    const int own = ::open(("/proc/self/fd/" + str(static_cast<std::uint64_t>(fd))).c_str(), O_RDWR | O_CLOEXEC);
    if (own < 0) throw system_fault(errno == ENOENT ? EIO : errno, "cannot open the segment again through", "/proc/self/fd");
    const bool whole = nbytes <= kPart;
    base_ = ::mmap(nullptr, nbytes, protection, MAP_SHARED | (populate && whole ? MAP_POPULATE : 0), own, 0);
    int error = base_ == MAP_FAILED ? errno : 0;
    try {
      if (!error && populate && !whole) error = populate_parts(own, protection, look);
    } catch (...) {
      ::close(own);
      unmap()(base_, nbytes_);
      throw;
    }
    ::close(own);
    if (!error) return;
    if (base_ != MAP_FAILED) unmap()(base_, nbytes_);
    throw system_fault(error, "cannot map " + str(nbytes) + " bytes of", "the segment");
  }
  MemoryMap(const MemoryMap&) = delete;
  ~MemoryMap() { unmap()(base_, nbytes_); }
  std::uint8_t* base() const { return static_cast<std::uint8_t*>(base_); }
  std::size_t nbytes() const { return nbytes_; }
  void protect_payload(std::uint64_t offset) {
    if (::mprotect(base() + offset, nbytes_ - offset, PROT_READ) != 0)
      throw system_fault(errno, "cannot write-protect", "the payload");
  }

 private:
  // Each part takes the place of the one that is there, so that nobody else's map can get between.
  int populate_parts(int fd, int protection, const Look& look) {
    for (std::size_t at = 0; at < nbytes_; at += kPart) {
      if (look) look();
      const std::size_t n = std::min<std::size_t>(kPart, nbytes_ - at);
      if (::mmap(base() + at, n, protection, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, static_cast<off_t>(at)) == MAP_FAILED)
        return errno;
    }
    return 0;
  }

  void* base_;
  std::size_t nbytes_;
};

struct Shape {  // what a producer asks for
  std::uint64_t capacity = 0, slot_nbytes = 0, page_nbytes = 4096;
  std::uint8_t schema_hash[32] = {};  // all zero: undeclared, and compared with nothing
  std::uint64_t shared_secret = 0;
  std::uint8_t policy = kRingBuffer, sync = kSequentialSync, checksum = 0;
};

struct Sizes {
  std::uint64_t stride, slot_headers_offset, payload_offset, total_nbytes;
};

inline std::uint64_t page_size() { return std::max<std::uint64_t>(4096, static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))); }
inline std::uint64_t round_up(std::uint64_t n, std::uint64_t unit) { return (n + unit - 1) / unit * unit; }

// False if the numbers cannot be: every intermediate value stays below 2^62, the place of the lock bytes.
inline bool compute_sizes(std::uint64_t capacity, std::uint64_t slot_nbytes, std::uint64_t page, std::uint64_t unit, Sizes& out) {
  constexpr std::uint64_t kLimit = std::uint64_t{1} << 46;  // 64 TiB, beyond any address space we map
  if (capacity == 0 || slot_nbytes == 0 || capacity > kLimit || slot_nbytes > kLimit || unit == 0 || unit > kLimit) return false;
  out.stride = round_up(slot_nbytes, slot_nbytes < kLine ? 8 : kLine);
  if (out.stride > kLimit / capacity) return false;
  out.slot_headers_offset = sizeof(Header);
  out.payload_offset = round_up(out.slot_headers_offset + capacity * sizeof(SlotHeader), page);
  out.total_nbytes = round_up(out.payload_offset + capacity * out.stride, unit);
  return out.total_nbytes <= kLimit;
}

// Believe a header only after this: everything that later code computes an address from was checked against the size of
// the file, and nothing was mapped or allocated on the header's word before.
inline void check_header(const Header& h, std::uint64_t magic, std::uint64_t file_nbytes, const std::string& path) {
  const Geometry& g = h.geometry;
  const auto refuse = [&](const char* field, const std::string& why) {
    return Fault(Code::incompatible, path + " is not a usable DataBlock segment: " + field + " " + why)
        .with("path", path).with("field", std::string(field));
  };
  if (magic != kMagic) throw refuse("magic", "is wrong (a foreign file, or one that was never finished)");
  if (g.abi != kAbiVersion)
    throw Fault(Code::version, path + " has layout version " + str(g.abi) + ", this labhub speaks " + str(kAbiVersion) +
                "; use the same labhub on both sides").with("path", path).with("field", std::string("abi"))
        .with("ours", std::int64_t{kAbiVersion}).with("theirs", std::int64_t{g.abi});
  if (g.header_nbytes != sizeof(Header)) throw refuse("header_nbytes", "is " + str(g.header_nbytes));
  Sizes s{};
  if (!compute_sizes(g.capacity, g.slot_nbytes, 4096, 1, s))
    throw refuse("capacity", "and slot_nbytes cannot be " + str(g.capacity) + " and " + str(g.slot_nbytes));
  if (g.stride != s.stride) throw refuse("stride", "is " + str(g.stride) + ", not " + str(s.stride));
  if (g.slot_headers_offset != s.slot_headers_offset) throw refuse("slot_headers_offset", "is " + str(g.slot_headers_offset));
  if (g.payload_offset < s.payload_offset || g.payload_offset % 4096 || g.payload_offset % page_size() ||
      g.payload_offset > file_nbytes)
    throw refuse("payload_offset", "is " + str(g.payload_offset));
  if (g.total_nbytes != file_nbytes || g.capacity * g.stride > file_nbytes - g.payload_offset)
    throw refuse("total_nbytes", "is " + str(g.total_nbytes) + ", the file has " + str(file_nbytes));
  if (h.identity.policy > kRingBuffer) throw refuse("policy", "is " + str(h.identity.policy));
  if (h.identity.sync > kSequentialSync) throw refuse("sync_policy", "is " + str(h.identity.sync));
  if (h.identity.checksum > 2) throw refuse("checksum_policy", "is " + str(h.identity.checksum));
}

// A mapped segment and the arithmetic on it.
class Segment {
 public:
  Segment(std::shared_ptr<MemoryMap> map) : map_(std::move(map)), header_(reinterpret_cast<Header*>(map_->base())) {
    const Geometry& g = header_->geometry;  // copied once: a neighbour cannot change our arithmetic afterwards
    capacity = g.capacity;
    slot_nbytes = g.slot_nbytes;
    stride = g.stride;
    payload_offset = g.payload_offset;
    reciprocal_ = UINT64_MAX / capacity;
  }
  Header& header() const { return *header_; }
  // i % capacity without a division, which costs more than the copy of a small slot. The quotient by the reciprocal, which
  // is rounded down, is the right one or one less.
  std::uint64_t place(std::uint64_t i) const {
    __extension__ using Wide = unsigned __int128;
    const auto quotient = static_cast<std::uint64_t>(static_cast<Wide>(i) * reciprocal_ >> 64);
    const std::uint64_t rest = i - quotient * capacity;
    return rest < capacity ? rest : rest - capacity;
  }
  SlotHeader& slot(std::uint64_t i) const {
    return reinterpret_cast<SlotHeader*>(map_->base() + sizeof(Header))[place(i)];
  }
  std::uint8_t* payload(std::uint64_t i) const { return map_->base() + payload_offset + place(i) * stride; }
  const std::shared_ptr<MemoryMap>& map() const { return map_; }  // empty once it was let go
  // Let the map go. The header, as it is now, is kept: it can still be read, the slots cannot.
  std::shared_ptr<MemoryMap> let_go() {
    if (!map_) return nullptr;
    kept_ = std::make_unique<Header>();
    std::memcpy(static_cast<void*>(kept_.get()), header_, sizeof(Header));
    header_ = kept_.get();
    return std::move(map_);
  }

  std::uint64_t capacity, slot_nbytes, stride, payload_offset;

 private:
  std::shared_ptr<MemoryMap> map_;
  std::unique_ptr<Header> kept_;
  Header* header_;
  std::uint64_t reciprocal_;
};

// Open an existing segment file of ours and check its header, before and after mapping.
struct OpenFile {
  std::unique_ptr<Descriptor> file;
  struct stat status {};
};

inline OpenFile open_file(const DirectoryHandle& dir, const std::string& name) {
  const int fd = ::openat(dir.fd, name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  const std::string path = dir.path + "/" + name;
  if (fd < 0 && (errno == EISDIR || errno == ENXIO)) throw not_a("regular file", path);  // a directory, a socket
  if (fd < 0) throw system_fault(errno, "cannot open the segment", path);
  OpenFile o;
  o.file = std::make_unique<Descriptor>(fd);
  if (::fstat(fd, &o.status) != 0) throw system_fault(errno, "cannot inspect", path);
  check_private(o.status, false, path);
  return o;
}

// A creator allocates every byte before its file has a name, so a hole means a foreign file, whatever its header says: to
// populate its map would take memory on that word. Asked of tmpfs only: a disk that compresses has fewer blocks than bytes.
inline void refuse_holes(const OpenFile& o, const std::string& path) {
  struct statfs fs {};
  const auto allocated = static_cast<std::uint64_t>(o.status.st_blocks) * 512;
  if (::fstatfs(o.file->get(), &fs) != 0 || fs.f_type != TMPFS_MAGIC || allocated >= static_cast<std::uint64_t>(o.status.st_size))
    return;
  throw Fault(Code::incompatible, path + " is not a usable DataBlock segment: of its size of " +
              str(static_cast<std::uint64_t>(o.status.st_size)) + " bytes only " + str(allocated) + " are allocated")
      .with("path", path).with("field", std::string("size"));
}

inline std::shared_ptr<MemoryMap> map_checked(const OpenFile& o, const std::string& path,
                                              int protection = PROT_READ | PROT_WRITE, bool populate = true,
                                              const Look& look = {}) {
  const auto size = static_cast<std::uint64_t>(o.status.st_size);
  if (size < sizeof(Header))
    throw Fault(Code::incompatible, path + " is too short for a DataBlock segment (" + str(size) + " bytes)")
        .with("path", path).with("field", std::string("size"));
  // Looked at before anything is mapped: to populate the map of a sparse file means to allocate all of it.
  alignas(Header) std::uint8_t first[sizeof(Header)];
  if (::pread(o.file->get(), first, sizeof first, 0) != static_cast<ssize_t>(sizeof first))
    throw system_fault(errno, "cannot read the header of", path);
  const auto& early = *reinterpret_cast<const Header*>(first);
  check_header(early, early.geometry.magic.load(std::memory_order_relaxed), size, path);
  refuse_holes(o, path);
  auto map = std::make_shared<MemoryMap>(o.file->get(), size, protection, populate, look);
  const auto& h = *reinterpret_cast<Header*>(map->base());
  // acquire: pairs with the release store of magic by the creator, which comes after all of the geometry
  check_header(h, h.geometry.magic.load(std::memory_order_acquire), size, path);
  return map;
}

// Whether the path still leads to the file that we have open.
inline bool still_there(const DirectoryHandle& dir, const std::string& name, const struct stat& mine) {
  struct stat s {};
  return ::fstatat(dir.fd, name.c_str(), &s, AT_SYMLINK_NOFOLLOW) == 0 && s.st_ino == mine.st_ino && s.st_dev == mine.st_dev;
}

}  // namespace labhub
