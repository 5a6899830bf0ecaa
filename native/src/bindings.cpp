// Types in, types out, and the GIL released around everything that can block. No policy lives here.
#include "labhub/consumer.hpp"
#include "labhub/probe.hpp"
#include "labhub/producer.hpp"
#include "python.hpp"

namespace labhub {
namespace {

// The one table of errors: classes of labhub.errors, in the order of labhub::Code.
constexpr const char* kErrors[] = {
    "InvalidArgument", "InvalidName", "IncompatibleSegment", "VersionMismatch", "SegmentTokenMismatch", "SegmentAccessError",
    "SegmentSpaceError", "ChannelNotFound", "ChannelBusy", "SchemaMismatch", "BackpressureTimeout", "Lapped", "Evicted",
    "ProducerGone", "ClosedError", "ConcurrentUseError", "ForkedProcessError",
    "TimeoutExpired", nullptr};

nb::object payload(nb::handle self) {
  const Mapping& m = nb::cast<Mapping&>(self);
  if (m.writable)
    return nb::cast(nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>(m.map->base() + m.offset, {m.nbytes}, self));
  return nb::cast(nb::ndarray<nb::numpy, const std::uint8_t, nb::ndim<1>>(m.map->base() + m.offset, {m.nbytes}, self));
}

// Python looks for a Ctrl-C at the entry of every function of its own, so a __exit__ in Python may end before it begins.
void leave(nb::handle slot, nb::handle kind, nb::handle error, nb::handle trace) {
  const CallsPython calls;
  static PyObject* const name = PyUnicode_InternFromString("_leave");
  PyObject* const said[] = {slot.ptr(), kind.ptr(), error.ptr(), trace.ptr()};
  if (const nb::object done = nb::steal(PyObject_VectorcallMethod(name, said, 4, nullptr)); done.is_valid()) return;
  const nb::python_error raised;
  const nb::object end = slot.attr("_native");
  try {
    if (nb::isinstance<Consumer>(end))
      nb::cast<Consumer&>(end).abandon();
    else
      nb::cast<Producer&>(end).abort();
  } catch (const Fault&) {  // another thread is inside a call on it
  }
  throw raised;
}

}  // namespace

void raise(const Fault& f) {
  const CallsPython calls;
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

}  // namespace labhub

using namespace labhub;

NB_MODULE(_native, m) {
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const Fault& f) {
      raise(f);
    }
  });
  Ending::install();
  MemoryMap::unmap() = unmap;
  m.def("end", [] {
    nb::set_leak_warnings(false);  // threads that wait for ever keep what they hold
    Ending::begin();
  });
  m.attr("ABI_VERSION") = kAbiVersion;
  m.attr("MAX_LOSSLESS") = kMaxLossless;
  m.attr("MAX_OBSERVERS") = kMaxObservers;
  m.attr("SLOT_HEADER_NBYTES") = sizeof(SlotHeader);
  m.attr("NOW") = kNow;
  m.attr("START_NEWEST") = kStartNewest;
  m.attr("START_OLDEST") = kStartOldest;
  m.attr("START_LAST") = kStartLast;
  m.attr("STREAM_ENDED") = kStreamEnded;

  nb::class_<Mapping>(m, "Mapping")
      .def_prop_ro("nbytes", [](const Mapping& x) { return x.map->nbytes(); })
      .def("payload", [](nb::handle_t<Mapping> self) { return payload(self); });
  m.def("nothing", [] {});
  bind_producer(m);
  bind_consumer(m);
  bind_probe(m);
  m.def("_leave", &leave, nb::arg("slot"), nb::arg("kind").none(), nb::arg("error").none(), nb::arg("trace").none());
  m.attr("leave") = nb::steal(PyInstanceMethod_New(nb::object(m.attr("_leave")).ptr()));
}
