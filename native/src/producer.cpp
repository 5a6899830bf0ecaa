#include "labhub/producer.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_25_API_VERSION
#include <nanobind/stl/pair.h>
#include <numpy/ndarraytypes.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "python.hpp"

namespace labhub {
namespace {

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
  const NoGil nogil;
  return p.write(data, nbytes, patience, timestamp, signalled);
}

std::uint64_t write(Producer& p, nb::handle data, std::int64_t timeout, std::int64_t evict_after, std::int64_t timestamp) {
  const Buffer b(data, false);
  return write_bytes(p, b.data(), b.nbytes(), {timeout, evict_after}, timestamp);
}

class Writer {  // the base of DataBlockProducer: no Python frame between the caller and a record that is a slot as it stands
 public:
  Writer(nb::handle producer, nb::object dtype, const nb::tuple& shape, bool raw, bool sealed)
      : owner_(nb::borrow(producer)), producer_(nb::cast<Producer&>(producer)), dtype_(std::move(dtype)),
        array_(nb::module_::import_("numpy").attr("ndarray")), raw_(raw), sealed_(sealed) {
    for (nb::handle n : shape) shape_.push_back(nb::cast<npy_intp>(n));
  }

  void be_patient(std::int64_t timeout, std::int64_t evict_after) { patience_ = {timeout, evict_after}; }

  // Nothing, and nothing written, if the record must be converted first, or carries a checksum.
  std::optional<std::uint64_t> write(nb::handle record) {
    if (sealed_) return std::nullopt;
    if (Py_TYPE(record.ptr()) == reinterpret_cast<PyTypeObject*>(array_.ptr())) {
      // The fields themselves: through the buffer protocol the look at an array costs more than all the rest.
      auto* const array = reinterpret_cast<PyArrayObject*>(record.ptr());
      if (!same_dtype(reinterpret_cast<PyObject*>(PyArray_DESCR(array))) || !PyArray_IS_C_CONTIGUOUS(array) ||
          !std::equal(shape_.begin(), shape_.end(), PyArray_DIMS(array), PyArray_DIMS(array) + PyArray_NDIM(array)))
        return std::nullopt;
      return put(PyArray_DATA(array), producer_.segment().slot_nbytes);
    }
    if (!raw_ || !PyBytes_CheckExact(record.ptr())) return std::nullopt;
    return put(PyBytes_AS_STRING(record.ptr()), static_cast<std::uint64_t>(PyBytes_GET_SIZE(record.ptr())));
  }

 private:
  bool same_dtype(PyObject* other) const {  // plain dtypes exist once; equal structured ones need not be one object
    if (other == dtype_.ptr()) return true;
    const int equal = PyObject_RichCompareBool(other, dtype_.ptr(), Py_EQ);
    if (equal < 0) throw nb::python_error();
    return equal;
  }
  std::uint64_t put(const void* data, std::uint64_t nbytes) {
    return write_bytes(producer_, static_cast<const std::uint8_t*>(data), nbytes, patience_, kNow);
  }

  nb::object owner_;
  Producer& producer_;
  nb::object dtype_, array_;
  std::vector<npy_intp> shape_;
  bool raw_, sealed_;
  Patience patience_;
};

std::uint64_t write_many(Producer& p, nb::handle data, std::int64_t timeout, std::int64_t evict_after, std::int64_t step) {
  const Buffer b(data, false);
  const std::uint64_t size = p.segment().slot_nbytes;
  if (b.nbytes() % size)
    throw Fault(Code::invalid_argument, str(b.nbytes()) + " bytes are not a whole number of slots of " + str(size));
  std::uint64_t written = 0;
  const NoGil nogil;
  try {
    p.write_many(b.data(), b.nbytes() / size, {timeout, evict_after}, signalled, written, step);
  } catch (Fault& f) {
    throw std::move(f).with("written", static_cast<std::int64_t>(written));
  }
  return written;
}

std::uint64_t write_copies(Producer& p, nb::handle data, nb::handle headers, std::int64_t timeout, std::int64_t evict_after) {
  const Buffer d(data, false), h(headers, false);
  std::uint64_t n, written = 0;
  const HeaderCopy* from = headers_of(d, h, p.segment().slot_nbytes, n);
  const NoGil nogil;
  try {
    p.write_copies(d.data(), from, n, {timeout, evict_after}, signalled, written);
  } catch (Fault& f) {
    throw std::move(f).with("written", static_cast<std::int64_t>(written));
  }
  return written;
}

constexpr const char* kWriteDoc = R"(Write one slot.

Parameters
----------
record : scalar, tuple, dict, array_like or bytes
    A value of the schema's dtype and shape; a dict or tuple for a structured dtype. Bytes (also a memoryview of
    format B, b or c) are taken as they are: exactly one slot of them, for a channel of raw bytes at most one slot,
    for one text (dtype S) any number that fits. Every other buffer is an array of its own dtype.

Returns
-------
int
    The slot's seq.

Raises
------
SchemaMismatch
    If the value has another shape or other fields, or would not survive the conversion: an integer out of range, a
    number that would become inf, text that is too long, a time outside of the dtype or finer than its unit, a masked
    element. Floats may be rounded; inf and NaN stay what they are.
BackpressureTimeout
    If a lossless consumer held the ring full for longer than `timeout`; nothing was written then.
ClosedError, ConcurrentUseError, ForkedProcessError)";

}  // namespace

void bind_producer(nb::module_& m) {
  nb::class_<Writer>(m, "Writer")
      .def(nb::init<nb::handle, nb::object, const nb::tuple&, bool, bool>(), nb::arg("producer"), nb::arg("dtype"),
           nb::arg("shape"), nb::arg("raw"), nb::arg("sealed"))
      .def("_be_patient", &Writer::be_patient, nb::arg("timeout_ns"), nb::arg("evict_after_ns"))
      .def("write",
           [](nb::handle_t<Writer> self, nb::handle record) -> nb::object {
             if (const auto seq = nb::cast<Writer&>(self).write(record)) return nb::int_(*seq);
             const CallsPython calls;
             return self.attr("_write_converted")(record);
           },
           nb::arg("record").none(), kWriteDoc);
  nb::class_<Producer>(m, "Producer")
      .def("__init__",
           [](Producer* self, const std::string& directory, const std::string& name, std::uint64_t capacity,
              std::uint64_t slot_nbytes, std::uint64_t page_nbytes, nb::bytes schema_hash, std::uint64_t secret, int policy,
              int sync, int checksum, std::uint64_t initial_seq) {
             const Shape s = shape_of(capacity, slot_nbytes, page_nbytes, schema_hash, secret, policy, sync, checksum);
             const NoGil nogil;
             new (self) Producer(directory, name, s, initial_seq, signalled);
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
      .def("write", &write, nb::arg("data"), nb::arg("timeout_ns"), nb::arg("evict_after_ns"), nb::arg("timestamp_ns") = kNow)
      .def("write_many", &write_many, nb::arg("data"), nb::arg("timeout_ns"), nb::arg("evict_after_ns"), nb::arg("step_ns") = 0)
      .def("write_copies", &write_copies, nb::arg("data"), nb::arg("headers"), nb::arg("timeout_ns"), nb::arg("evict_after_ns"))
      .def("claim",
           [](Producer& p, std::int64_t timeout, std::int64_t evict_after) {
             std::optional<std::uint64_t> seq = p.try_claim();
             if (!seq) {
               const NoGil nogil;
               seq = p.claim({timeout, evict_after}, signalled);
             }
             return p.segment().place(*seq);
           },
           nb::arg("timeout_ns"), nb::arg("evict_after_ns"))
      .def("commit",
           [](Producer& p, std::uint64_t nbytes, std::int64_t timestamp, std::optional<nb::bytes> checksum, bool planned) {
             return p.commit(nbytes, timestamp, checksum ? exactly(*checksum, 32, "checksum") : nullptr, planned);
           },
           nb::arg("nbytes"), nb::arg("timestamp_ns") = kNow, nb::arg("checksum") = nb::none(), nb::arg("planned") = false)
      .def("span_of",
           [](Producer& p, std::uint64_t n, std::int64_t step_ns) {
             const Span s = p.span_of(n, step_ns);
             return std::make_pair(s.first_ns, s.step_ns);
           },
           nb::arg("n_slots"), nb::arg("step_ns"))
      .def("abort", &Producer::abort)
      .def("close", [](Producer& p) { close_and_let_go(p, [](Endpoint& e) { static_cast<Producer&>(e).close(); }); });
}

}  // namespace labhub
