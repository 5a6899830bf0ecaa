// Types in, types out, and the GIL released around everything that can block. No policy lives here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>

#include "labhub/consumer.hpp"
#include "labhub/probe.hpp"
#include "labhub/producer.hpp"

namespace nb = nanobind;
using namespace labhub;

namespace {

struct PythonError {};  // the Python error indicator is set

// The one table of errors: classes of labhub.errors, in the order of labhub::Code.
constexpr const char* kErrors[] = {
    "InvalidArgument", "InvalidName", "IncompatibleSegment", "VersionMismatch", "SegmentTokenMismatch", "SegmentAccessError",
    "SegmentSpaceError", "ChannelNotFound", "ChannelBusy", "SchemaMismatch", "BackpressureTimeout", "Lapped", "Evicted",
    "ProducerGone", "ClosedError", "ConcurrentUseError", "ForkedProcessError",
    "TimeoutExpired", nullptr};

void raise(const Fault& f) {
  if (f.code == Code::interrupted) {
    if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    return;
  }
  nb::object type = nb::module_::import_("labhub.errors").attr(kErrors[static_cast<int>(f.code)]);
  nb::dict facts;
  for (const auto& [key, value] : f.numbers) facts[key] = value;
  for (const auto& [key, value] : f.words) facts[key] = nb::str(value.c_str(), value.size());
  nb::object error = type(nb::str(f.message.c_str(), f.message.size()), **facts);
  PyErr_SetObject(type.ptr(), error.ptr());
}

// Looked at after every part of a wait that did not bring what was waited for: a pending Ctrl-C ends the wait.
bool signalled() {
  nb::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

class Buffer {  // a contiguous buffer of the caller's
 public:
  Buffer(nb::handle object, bool writable) {
    if (PyObject_GetBuffer(object.ptr(), &view_, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) != 0) {
      PyErr_Clear();
      throw Fault(Code::invalid_argument, std::string("a C-contiguous ") + (writable ? "writable " : "") + "buffer is needed");
    }
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  std::uint8_t* data() const { return static_cast<std::uint8_t*>(view_.buf); }
  std::uint64_t nbytes() const { return static_cast<std::uint64_t>(view_.len); }

 private:
  Py_buffer view_;
};

struct Mapping {  // the owner of arrays that look into shared memory
  std::shared_ptr<MemoryMap> map;
  std::uint64_t offset, nbytes;
  bool writable;
};

nb::object payload(nb::handle self) {
  const Mapping& m = nb::cast<Mapping&>(self);
  if (m.writable)
    return nb::cast(nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>(m.map->base() + m.offset, {m.nbytes}, self));
  return nb::cast(nb::ndarray<nb::numpy, const std::uint8_t, nb::ndim<1>>(m.map->base() + m.offset, {m.nbytes}, self));
}

nb::object mapping_of(const Segment& s, bool writable) {
  return nb::cast(Mapping{s.map(), s.payload_offset, s.capacity * s.stride, writable});
}

nb::bytes as_bytes(const std::uint8_t* p, std::size_t n) { return nb::bytes(reinterpret_cast<const char*>(p), n); }

const std::uint8_t* exactly(const nb::bytes& b, std::size_t n, const char* what) {
  if (b.size() != n) throw Fault(Code::invalid_argument, std::string(what) + " must be " + str(n) + " bytes, not " + str(b.size()));
  return reinterpret_cast<const std::uint8_t*>(b.c_str());
}

constexpr std::uint64_t kLongCopy = 32 * 1024;  // bytes; below this, giving the GIL away costs more than the copy

// ---------------------------------------------------------------------------------------------------------- producer

Shape shape_of(std::uint64_t capacity, std::uint64_t slot_nbytes, std::uint64_t page_nbytes, const nb::bytes& schema_hash,
               std::uint64_t secret, int policy, int sync, int checksum) {
  Shape s{};
  s.capacity = capacity;
  s.slot_nbytes = slot_nbytes;
  s.page_nbytes = page_nbytes;
  std::memcpy(s.schema_hash, exactly(schema_hash, 32, "schema_hash"), 32);
  s.shared_secret = secret;
  const auto small = [](int v, const char* what) {
    if (v < 0 || v > 2) throw Fault(Code::invalid_argument, std::string(what) + " is 0, 1 or 2, not " + std::to_string(v));
    return static_cast<std::uint8_t>(v);
  };
  s.policy = small(policy, "policy");
  s.sync = small(sync, "sync_policy");
  s.checksum = small(checksum, "checksum_policy");
  return s;
}

std::uint64_t write_bytes(Producer& p, const std::uint8_t* data, std::uint64_t nbytes, const Patience& patience, std::int64_t timestamp) {
  // A short copy into a ring with room keeps the GIL.
  if (nbytes <= kLongCopy)
    if (const auto seq = p.try_write(data, nbytes, timestamp)) return *seq;
  nb::gil_scoped_release nogil;
  return p.write(data, nbytes, patience, timestamp, signalled);
}

std::uint64_t write(Producer& p, nb::handle data, std::int64_t timeout, std::int64_t evict_after, std::int64_t timestamp) {
  const Buffer b(data, false);
  return write_bytes(p, b.data(), b.nbytes(), {timeout, evict_after}, timestamp);
}

class Writer {  // the short way for what is one slot as it stands; anything else must be converted first, if it can be
 public:
  Writer(nb::handle producer, nb::object dtype, nb::tuple shape, bool raw, std::int64_t timeout, std::int64_t evict_after)
      : owner_(nb::borrow(producer)), producer_(nb::cast<Producer&>(producer)), dtype_(std::move(dtype)),
        shape_(std::move(shape)), raw_(raw), patience_{timeout, evict_after} {}

  std::optional<std::uint64_t> write(nb::handle value) {
    if (PyBytes_CheckExact(value.ptr())) {
      if (!raw_) return std::nullopt;
      return put(PyBytes_AS_STRING(value.ptr()), PyBytes_GET_SIZE(value.ptr()));
    }
    static PyObject* const kDtype = PyUnicode_InternFromString("dtype");
    const nb::object dtype = nb::steal(PyObject_GetAttr(value.ptr(), kDtype));
    Py_buffer view;
    if (dtype.ptr() != dtype_.ptr() || PyObject_GetBuffer(value.ptr(), &view, PyBUF_CONTIG_RO) != 0) {
      PyErr_Clear();
      return std::nullopt;
    }
    struct Release {
      Py_buffer& view;
      ~Release() { PyBuffer_Release(&view); }
    } release{view};
    if (static_cast<std::size_t>(view.ndim) != shape_.size()) return std::nullopt;
    for (int k = 0; k < view.ndim; ++k)
      if (PyLong_AsSsize_t(PyTuple_GET_ITEM(shape_.ptr(), k)) != view.shape[k]) return std::nullopt;
    return put(view.buf, view.len);
  }

 private:
  std::uint64_t put(const void* data, Py_ssize_t nbytes) {
    return write_bytes(producer_, static_cast<const std::uint8_t*>(data), static_cast<std::uint64_t>(nbytes), patience_, 0);
  }

  nb::object owner_;
  Producer& producer_;
  nb::object dtype_;
  nb::tuple shape_;
  bool raw_;
  Patience patience_;
};

std::uint64_t write_many(Producer& p, nb::handle data, std::int64_t timeout, std::int64_t evict_after, std::int64_t step) {
  const Buffer b(data, false);
  const std::uint64_t size = p.segment().slot_nbytes;
  if (b.nbytes() % size)
    throw Fault(Code::invalid_argument, str(b.nbytes()) + " bytes are not a whole number of slots of " + str(size));
  std::uint64_t written = 0;
  nb::gil_scoped_release nogil;
  try {
    p.write_many(b.data(), b.nbytes() / size, {timeout, evict_after}, signalled, written, step);
  } catch (Fault& f) {
    throw std::move(f).with("written", static_cast<std::int64_t>(written));
  }
  return written;
}

void bind_producer(nb::module_& m) {
  // Without names of arguments: nanobind's short way of a call, a third faster.
  nb::class_<Writer>(m, "Writer").def("write", &Writer::write, nb::arg("value").none());
  nb::class_<Producer>(m, "Producer")
      .def("__init__",
           [](Producer* self, const std::string& directory, const std::string& name, std::uint64_t capacity,
              std::uint64_t slot_nbytes, std::uint64_t page_nbytes, nb::bytes schema_hash, std::uint64_t secret, int policy,
              int sync, int checksum, std::uint64_t initial_seq) {
             const Shape s = shape_of(capacity, slot_nbytes, page_nbytes, schema_hash, secret, policy, sync, checksum);
             nb::gil_scoped_release nogil;
             new (self) Producer(directory, name, s, initial_seq);
           },
           nb::arg("directory"), nb::arg("name"), nb::kw_only(), nb::arg("capacity"), nb::arg("slot_nbytes"),
           nb::arg("page_nbytes") = 4096, nb::arg("schema_hash"), nb::arg("shared_secret") = 0, nb::arg("policy") = 2,
           nb::arg("sync_policy") = 2, nb::arg("checksum_policy") = 0, nb::arg("initial_seq") = 0)
      .def_prop_ro("path", &Producer::path)
      .def_prop_ro("mapping", [](const Producer& p) { return mapping_of(p.segment(), true); })
      .def_prop_ro("instance_id", [](const Producer& p) { return as_bytes(p.header().identity.instance_id, 16); })
      .def_prop_ro("epoch", &Producer::epoch)
      .def_prop_ro("took_over", &Producer::took_over)
      .def_prop_ro("capacity", [](const Producer& p) { return p.segment().capacity; })
      .def_prop_ro("slot_nbytes", [](const Producer& p) { return p.segment().slot_nbytes; })
      .def_prop_ro("stride", [](const Producer& p) { return p.segment().stride; })
      .def_prop_ro("head", &Producer::head)
      .def_prop_ro("closed", &Producer::closed)
      .def_prop_ro("forked", &Producer::forked)
      .def_prop_ro("claimed", &Producer::claimed)
      .def("write", &write, nb::arg("data"), nb::arg("timeout_ns"), nb::arg("evict_after_ns"), nb::arg("timestamp_ns") = 0)
      .def("writer",
           [](nb::handle_t<Producer> self, nb::object dtype, nb::tuple shape, bool raw, std::int64_t timeout,
              std::int64_t evict_after) { return Writer(self, dtype, shape, raw, timeout, evict_after); },
           nb::arg("dtype"), nb::arg("shape"), nb::arg("raw"), nb::arg("timeout_ns"), nb::arg("evict_after_ns"))
      .def("write_many", &write_many, nb::arg("data"), nb::arg("timeout_ns"), nb::arg("evict_after_ns"), nb::arg("step_ns") = 0)
      .def("claim",
           [](Producer& p, std::int64_t timeout, std::int64_t evict_after) {
             nb::gil_scoped_release nogil;
             return p.claim({timeout, evict_after}, signalled) % p.segment().capacity;
           },
           nb::arg("timeout_ns"), nb::arg("evict_after_ns"))
      .def("commit",
           [](Producer& p, std::uint64_t nbytes, std::int64_t timestamp, std::optional<nb::bytes> checksum) {
             return p.commit(nbytes, timestamp, checksum ? exactly(*checksum, 32, "checksum") : nullptr);
           },
           nb::arg("nbytes"), nb::arg("timestamp_ns") = 0, nb::arg("checksum") = nb::none())
      .def("abort", &Producer::abort)
      .def("close", &Producer::close);
}

// ---------------------------------------------------------------------------------------------------------- consumer

struct Expect {
  nb::bytes schema_hash, instance_id;
  std::uint64_t secret;
  std::optional<std::uint64_t> capacity, slot_nbytes;
  std::optional<int> policy, sync, checksum;

  void operator()(const Header& h, const std::string& path) const {
    const Identity& id = h.identity;
    if (instance_id.size() && std::memcmp(exactly(instance_id, 16, "instance_id"), id.instance_id, 16) != 0)
      throw Fault(Code::token, path + " is not the segment that the broker knows; its channel was created anew: discover it again");
    if (secret && secret != id.shared_secret)
      throw Fault(Code::token, path + " has another shared secret: this is a wrong or a stale segment");
    static constexpr std::uint8_t kUndeclared[32] = {};  // such a segment is compared with nothing
    if (schema_hash.size() && std::memcmp(id.schema_hash, kUndeclared, 32) != 0 &&
        std::memcmp(exactly(schema_hash, 32, "schema_hash"), id.schema_hash, 32) != 0)
      throw Fault(Code::schema, path + " holds slots of another schema than the one that was asked for");
    same(path, "capacity", capacity, h.geometry.capacity);
    same(path, "slot_nbytes", slot_nbytes, h.geometry.slot_nbytes);
    same(path, "policy", policy, id.policy);
    same(path, "sync_policy", sync, id.sync);
    same(path, "checksum_policy", checksum, id.checksum);
  }
  template <class A, class B>
  static void same(const std::string& path, const char* field, const std::optional<A>& wanted, B found) {
    if (wanted && static_cast<std::uint64_t>(*wanted) != found)
      throw Fault(Code::incompatible, path + " has " + field + " " + str(found) + ", not " + std::to_string(*wanted))
          .with("path", path).with("field", std::string(field));
  }
};

HeaderCopy* headers_of(const Buffer& data, const Buffer& headers, std::uint64_t slot_nbytes, std::uint64_t& n) {
  n = headers.nbytes() / sizeof(HeaderCopy);
  if (headers.nbytes() % sizeof(HeaderCopy) || data.nbytes() != n * slot_nbytes)
    throw Fault(Code::invalid_argument, "data has " + str(data.nbytes()) + " bytes, but headers ask for " + str(n) + " slots of " +
                                        str(slot_nbytes));
  return reinterpret_cast<HeaderCopy*>(headers.data());
}

template <class F>
auto copying(std::uint64_t nbytes, F&& f) {
  if (nbytes <= kLongCopy) return f();
  nb::gil_scoped_release nogil;
  return f();
}

nb::tuple read(Consumer& c, nb::handle data, nb::handle headers) {
  const Buffer d(data, true), h(headers, true);
  std::uint64_t n;
  HeaderCopy* to = headers_of(d, h, c.segment().slot_nbytes, n);
  const Got got = copying(d.nbytes(), [&] { return c.read(d.data(), to, n); });
  return nb::make_tuple(got.count, got.lost);
}

nb::tuple peek(Consumer& c, std::uint64_t first, nb::handle data, nb::handle headers) {
  const Buffer d(data, true), h(headers, true);
  std::uint64_t n;
  HeaderCopy* to = headers_of(d, h, c.segment().slot_nbytes, n);
  const Got got = copying(d.nbytes(), [&] { return c.peek(first, d.data(), to, n); });
  return nb::make_tuple(got.first, got.count);
}

class Views {  // an iteration in place: one call for each slot
 public:
  Views(nb::handle consumer, nb::list cached, nb::object make, bool newest, std::int64_t timeout)
      : owner_(nb::borrow(consumer)), consumer_(nb::cast<Consumer&>(consumer)), cached_(std::move(cached)),
        make_(std::move(make)), newest_(newest), timeout_(timeout) {}
  Views(Views&&) = default;
  ~Views() {
    if (!owner_.is_valid() || !open_) return;
    try {
      consumer_.release();
    } catch (const Fault&) {  // whoever leaves the loop early does not ask any more
    }
  }

  nb::object next() {
    open_ = false;
    std::int64_t seq = consumer_.step(newest_, 0, signalled);
    if (seq == kTimedOut && timeout_ != 0) {
      nb::gil_scoped_release nogil;
      seq = consumer_.step(newest_, timeout_, signalled);
    }
    if (seq == kStreamEnded) throw nb::stop_iteration();
    if (seq == kTimedOut) throw Fault(Code::timed_out, "nothing new on " + consumer_.path() + " in time");
    open_ = true;
    const auto index = static_cast<Py_ssize_t>(static_cast<std::uint64_t>(seq) % consumer_.segment().capacity);
    PyObject* const view = PyList_GET_ITEM(cached_.ptr(), index);
    if (view != Py_None) return nb::borrow(view);
    nb::object made = make_(index);
    cached_[index] = made;
    return made;
  }

 private:
  nb::object owner_;
  Consumer& consumer_;
  nb::list cached_;
  nb::object make_;
  bool newest_, open_ = false;
  std::int64_t timeout_;
};

void bind_consumer(nb::module_& m) {
  nb::class_<Views>(m, "Views")
      .def("__iter__", [](nb::handle_t<Views> self) { return nb::borrow(self); })
      .def("__next__", &Views::next);
  nb::class_<Consumer>(m, "Consumer")
      .def("__init__",
           [](Consumer* self, const std::string& directory, const std::string& name, bool lossless, std::int64_t start,
              nb::bytes schema_hash, nb::bytes instance_id, std::uint64_t secret, std::optional<std::uint64_t> capacity,
              std::optional<std::uint64_t> slot_nbytes, std::optional<int> policy, std::optional<int> sync,
              std::optional<int> checksum, bool busy_poll) {
             const Expect expect{schema_hash, instance_id, secret, capacity, slot_nbytes, policy, sync, checksum};
             const std::string path = directory + "/" + name;
             new (self) Consumer(directory, name, lossless, start, [&](const Header& h) { expect(h, path); }, busy_poll);
           },
           nb::arg("directory"), nb::arg("name"), nb::kw_only(), nb::arg("lossless"), nb::arg("start"),
           nb::arg("schema_hash") = nb::bytes("", 0), nb::arg("instance_id") = nb::bytes("", 0), nb::arg("shared_secret") = 0,
           nb::arg("capacity") = nb::none(), nb::arg("slot_nbytes") = nb::none(), nb::arg("policy") = nb::none(),
           nb::arg("sync_policy") = nb::none(), nb::arg("checksum_policy") = nb::none(), nb::arg("busy_poll") = false)
      .def_prop_ro("path", &Consumer::path)
      .def_prop_ro("mapping", [](const Consumer& c) { return mapping_of(c.segment(), false); })
      .def_prop_ro("instance_id", [](const Consumer& c) { return as_bytes(c.header().identity.instance_id, 16); })
      .def_prop_ro("schema_hash", [](const Consumer& c) { return as_bytes(c.header().identity.schema_hash, 32); })
      .def_prop_ro("capacity", [](const Consumer& c) { return c.segment().capacity; })
      .def_prop_ro("slot_nbytes", [](const Consumer& c) { return c.segment().slot_nbytes; })
      .def_prop_ro("stride", [](const Consumer& c) { return c.segment().stride; })
      .def_prop_ro("policy", [](const Consumer& c) { return int{c.header().identity.policy}; })
      .def_prop_ro("sync_policy", [](const Consumer& c) { return int{c.header().identity.sync}; })
      .def_prop_ro("checksum_policy", [](const Consumer& c) { return int{c.header().identity.checksum}; })
      .def_prop_ro("lossless", &Consumer::lossless)
      .def_prop_ro("epoch", &Consumer::epoch)
      .def_prop_ro("head", &Consumer::head)
      .def_prop_ro("cursor", &Consumer::cursor)
      .def_prop_ro("lost", &Consumer::lost)
      .def_prop_ro("closed", &Consumer::closed)
      .def_prop_ro("ended", &Consumer::ended)
      .def_prop_ro("producer_pid", &Consumer::producer_pid)
      .def_prop_ro("producer_alive", &Consumer::producer_alive)
      .def("wait",
           [](Consumer& c, std::uint64_t min_slots, std::int64_t timeout, bool until_gone) {
             nb::gil_scoped_release nogil;
             return c.wait(min_slots, timeout, until_gone, signalled);
           },
           nb::arg("min_slots"), nb::arg("timeout_ns"), nb::arg("until_gone") = false)
      .def("read", &read, nb::arg("data"), nb::arg("headers"))
      .def("skip_to_newest", &Consumer::skip_to_newest)
      .def("peek", &peek, nb::arg("first"), nb::arg("data"), nb::arg("headers"))
      .def("acquire",
           [](Consumer& c, bool newest, std::int64_t timeout, bool until_gone) {
             nb::gil_scoped_release nogil;
             return c.acquire(newest, timeout, until_gone, signalled);
           },
           nb::arg("newest"), nb::arg("timeout_ns"), nb::arg("until_gone") = false)
      .def("views",
           [](nb::handle_t<Consumer> self, nb::list cached, nb::object make, bool newest, std::int64_t timeout) {
             if (cached.size() != nb::cast<Consumer&>(self).segment().capacity)
               throw Fault(Code::invalid_argument, "one place for each slot is needed, not " + str(cached.size()));
             return Views(self, std::move(cached), std::move(make), newest, timeout);
           },
           nb::arg("cached"), nb::arg("make"), nb::arg("newest"), nb::arg("timeout_ns"))
      .def("header",
           [](Consumer& c) {
             const HeaderCopy h = c.open_header();
             return as_bytes(reinterpret_cast<const std::uint8_t*>(&h), sizeof h);
           })
      .def("valid", &Consumer::valid)
      .def("release", &Consumer::release)
      .def("seek", &Consumer::seek, nb::arg("seq"))
      .def("close", &Consumer::close);
}

// ------------------------------------------------------------------------------------------------------------- probe

nb::dict report(const Report& r) {
  const Header& h = *r.header;
  const auto get = [](const auto& a) { return a.load(std::memory_order_relaxed); };
  nb::dict counters, d;
  for (const Counter& c : kCounters) counters[c.name] = since(h.counters.*c.member, h.before.*c.member);
  nb::list consumers;
  for (const LineReport& l : r.consumers) {
    nb::dict c;
    c["line"] = l.line;
    c["lossless"] = l.lossless;
    c["alive"] = l.alive;
    c["evicted"] = l.evicted;
    c["pid"] = l.pid;
    c["cursor"] = l.cursor;
    c["lag"] = l.lag;
    c["lost"] = l.lost;
    c["received"] = l.received;
    consumers.append(c);
  }
  d["path"] = r.path;
  d["instance_id"] = as_bytes(h.identity.instance_id, 16);
  d["schema_hash"] = as_bytes(h.identity.schema_hash, 32);
  d["epoch"] = get(h.owner.epoch);
  d["head"] = r.head;
  d["first_seq"] = h.commit.first_seq;
  d["capacity"] = h.geometry.capacity;
  d["slot_nbytes"] = h.geometry.slot_nbytes;
  d["stride"] = h.geometry.stride;
  d["nbytes"] = h.geometry.total_nbytes;
  d["policy"] = int{h.identity.policy};
  d["sync_policy"] = int{h.identity.sync};
  d["checksum_policy"] = int{h.identity.checksum};
  d["closed"] = r.closed;
  d["alive"] = r.alive;
  d["pid"] = get(h.owner.pid);
  d["start_time"] = get(h.owner.start_time);
  d["st_dev"] = static_cast<std::uint64_t>(r.status.st_dev);
  d["st_ino"] = static_cast<std::uint64_t>(r.status.st_ino);
  d["created_ns"] = h.commit.created_ns;
  d["commit_ns"] = r.commit_ns;
  d["counters"] = counters;
  d["consumers"] = consumers;
  return d;
}

}  // namespace

NB_MODULE(_native, m) {
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const Fault& f) {
      raise(f);
    }
  });
  m.attr("ABI_VERSION") = kAbiVersion;
  m.attr("MAX_LOSSLESS") = kMaxLossless;
  m.attr("MAX_OBSERVERS") = kMaxObservers;
  m.attr("SLOT_HEADER_NBYTES") = sizeof(SlotHeader);
  m.attr("START_NEWEST") = kStartNewest;
  m.attr("START_OLDEST") = kStartOldest;
  m.attr("START_LAST") = kStartLast;
  m.attr("STREAM_ENDED") = kStreamEnded;

  nb::class_<Mapping>(m, "Mapping")
      .def_prop_ro("nbytes", [](const Mapping& x) { return x.map->nbytes(); })
      .def("payload", [](nb::handle_t<Mapping> self) { return payload(self); });
  bind_producer(m);
  bind_consumer(m);
  m.def("nothing", [] {});
  m.def("probe", [](const std::string& directory, const std::string& name) { return report(labhub::probe(directory, name)); },
        nb::arg("directory"), nb::arg("name"));
  m.def("reset_counters", &labhub::reset_counters, nb::arg("directory"), nb::arg("name"));
  m.def("slot_states",
        [](const std::string& directory, const std::string& name) {
          const SlotStates s = labhub::slot_states(directory, name);
          nb::dict d;
          d["empty"] = s.empty;
          d["committed"] = s.committed;
          d["writing"] = s.writing;
          d["uncommitted"] = s.uncommitted;
          return d;
        },
        nb::arg("directory"), nb::arg("name"));
  m.def("unlink_dead",
        [](const std::string& directory, const std::string& name, nb::bytes instance_id) {
          return labhub::unlink_dead(directory, name, instance_id.size() ? exactly(instance_id, 16, "instance_id") : nullptr);
        },
        nb::arg("directory"), nb::arg("name"), nb::arg("instance_id") = nb::bytes("", 0));
}
