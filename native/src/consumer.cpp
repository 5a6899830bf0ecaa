#include "labhub/consumer.hpp"

#include "python.hpp"

namespace labhub {
namespace {

struct Expect {  // looked at without the GIL
  const std::uint8_t *schema_hash, *instance_id;  // may be null
  std::uint64_t secret;
  std::optional<std::uint64_t> capacity, slot_nbytes;
  std::optional<int> policy, sync, checksum;

  void operator()(const Header& h, const std::string& path) const {
    const Identity& id = h.identity;
    if (instance_id && std::memcmp(instance_id, id.instance_id, 16) != 0)
      throw Fault(Code::token, path + " is not the segment that the broker knows; its channel was created anew: discover it again");
    if (secret && secret != id.shared_secret)
      throw Fault(Code::token, path + " has another shared secret: this is a wrong or a stale segment");
    static constexpr std::uint8_t kUndeclared[32] = {};  // such a segment is compared with nothing
    if (schema_hash && std::memcmp(id.schema_hash, kUndeclared, 32) != 0 &&
        std::memcmp(schema_hash, id.schema_hash, 32) != 0)
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

template <class F>
auto copying(std::uint64_t nbytes, F&& f) {
  if (nbytes <= kLongCopy) return f();
  const NoGil nogil;
  return f();
}

nb::tuple read(Consumer& c, nb::handle data, nb::handle headers) {
  const Buffer d(data, true), h(headers, true);
  std::uint64_t n;
  HeaderCopy* to = headers_of(d, h, c.segment().slot_nbytes, n);
  const Got got = copying(d.nbytes(), [&] { return c.read(d.data(), to, n); });
  const bool seam = got.count && to[0].epoch != to[got.count - 1].epoch;
  return nb::make_tuple(got.count, got.lost, seam);
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

  nb::object next() {  // nothing at the end of the stream, and after another thread's close
    open_ = false;
    std::int64_t seq;
    try {
      seq = step();
    } catch (const Fault& f) {
      if (f.code != Code::closed || !consumer_.closing() || consumer_.closed_here()) throw;
      seq = kStreamEnded;
    }
    if (seq == kStreamEnded) return {};
    if (seq == kTimedOut) throw Fault(Code::timed_out, "nothing new on " + consumer_.path() + " in time");
    open_ = true;
    const auto index = static_cast<Py_ssize_t>(consumer_.segment().place(static_cast<std::uint64_t>(seq)));
    PyObject* const view = PyList_GET_ITEM(cached_.ptr(), index);
    if (view != Py_None) return nb::borrow(view);
    const CallsPython calls;
    nb::object made = make_(index);
    cached_[index] = made;
    return made;
  }

 private:
  std::int64_t step() {
    const std::int64_t seq = consumer_.step(newest_, 0, signalled);
    if (seq != kTimedOut || timeout_ == 0) return seq;
    const NoGil nogil;
    return consumer_.step(newest_, timeout_, signalled);
  }

  nb::object owner_;
  Consumer& consumer_;
  nb::list cached_;
  nb::object make_;
  bool newest_, open_ = false;
  std::int64_t timeout_;
};

// The slot of the type itself: a method called __next__ would cost more than the step.
PyObject* next_view(PyObject* self) {
  try {
    try {
      return nb::cast<Views&>(nb::handle(self)).next().release().ptr();
    } catch (const Fault& f) {
      raise(f);
    }
  } catch (nb::python_error& e) {
    e.restore();
  }
  return nullptr;
}

PyType_Slot view_slots[] = {{Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
                            {Py_tp_iternext, reinterpret_cast<void*>(next_view)},
                            {0, nullptr}};

}  // namespace

void bind_consumer(nb::module_& m) {
  nb::class_<Views>(m, "Views", nb::type_slots(view_slots));
  nb::class_<Consumer>(m, "Consumer")
      .def("__init__",
           [](Consumer* self, const std::string& directory, const std::string& name, bool lossless, std::int64_t start,
              nb::bytes schema_hash, nb::bytes instance_id, std::uint64_t secret, std::optional<std::uint64_t> capacity,
              std::optional<std::uint64_t> slot_nbytes, std::optional<int> policy, std::optional<int> sync,
              std::optional<int> checksum, bool busy_poll) {
             const auto given = [](const nb::bytes& b, std::size_t n, const char* what) {
               return b.size() ? exactly(b, n, what) : nullptr;
             };
             const Expect expect{given(schema_hash, 32, "schema_hash"), given(instance_id, 16, "instance_id"),
                                 secret, capacity, slot_nbytes, policy, sync, checksum};
             const std::string path = directory + "/" + name;
             const NoGil nogil;
             new (self) Consumer(directory, name, lossless, start, [&](const Header& h) { expect(h, path); }, busy_poll,
                                 signalled);
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
      .def_prop_ro("closed_here", &Consumer::closed_here)
      .def_prop_ro("ended", &Consumer::ended)
      .def_prop_ro("producer_pid", &Consumer::producer_pid)
      .def_prop_ro("producer_alive", &Consumer::producer_alive)
      .def("wait",
           [](Consumer& c, std::uint64_t min_slots, std::int64_t timeout, bool until_gone) {
             // Here and in acquire and claim: what need not wait keeps the GIL, which another thread could sit on.
             const std::int64_t unread = c.wait(min_slots, 0, until_gone, signalled);
             if (unread != 0 || timeout == 0) return unread;
             const NoGil nogil;
             return c.wait(min_slots, timeout, until_gone, signalled);
           },
           nb::arg("min_slots"), nb::arg("timeout_ns"), nb::arg("until_gone") = false)
      .def("read", &read, nb::arg("data"), nb::arg("headers"))
      .def_prop_ro("last_read", [](const Consumer& c) { return nb::make_tuple(c.last_read().count, c.last_read().lost); })
      .def("skip_to_newest", &Consumer::skip_to_newest)
      .def("first_within",
           [](Consumer& c, std::uint64_t first, std::int64_t span) {
             const auto [seq, older] = c.first_within(first, span);
             return nb::make_tuple(seq, older);
           },
           nb::arg("first"), nb::arg("span_ns"))
      .def_prop_ro("first_seq", &Consumer::first_seq)
      .def("peek", &peek, nb::arg("first"), nb::arg("data"), nb::arg("headers"))
      .def("acquire",
           [](Consumer& c, bool newest, std::int64_t timeout, bool until_gone) {
             const std::int64_t seq = c.acquire(newest, 0, until_gone, signalled);
             if (seq != kTimedOut || timeout == 0) return seq;
             const NoGil nogil;
             return c.acquire(newest, timeout, until_gone, signalled);
           },
           nb::arg("newest"), nb::arg("timeout_ns"), nb::arg("until_gone") = false)
      .def("views",
           [](nb::handle_t<Consumer> self, nb::list cached, nb::object make, bool newest, std::int64_t timeout) {
             if (nb::cast<Consumer&>(self).closed() && !nb::cast<Consumer&>(self).forked())
               throw Fault(Code::closed, nb::cast<Consumer&>(self).path() + " was closed");
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
      .def("cancel", &Consumer::cancel)
      .def("abandon", &Consumer::abandon)
      .def("seek", &Consumer::seek, nb::arg("seq"))
      .def("close", [](Consumer& c) { close_and_let_go(c, [](Endpoint& e) { static_cast<Consumer&>(e).close(); }); });
}

}  // namespace labhub
