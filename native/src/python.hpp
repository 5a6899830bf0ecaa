// What the parts of the compiled core share: errors, buffers, mappings.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "ending.hpp"
#include "labhub/endpoint.hpp"

namespace nb = nanobind;

namespace labhub {

// Set the Python error of a fault.
void raise(const Fault& f);

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

inline nb::object mapping_of(const Segment& s, bool writable) {
  if (!s.map()) throw Fault(Code::closed, "the segment is not mapped any more, as this end of it was closed");
  return nb::cast(Mapping{s.map(), s.payload_offset, s.capacity * s.stride, writable});
}

inline nb::bytes as_bytes(const std::uint8_t* p, std::size_t n) { return nb::bytes(reinterpret_cast<const char*>(p), n); }

inline const std::uint8_t* exactly(const nb::bytes& b, std::size_t n, const char* what) {
  if (b.size() != n) throw Fault(Code::invalid_argument, std::string(what) + " must be " + str(n) + " bytes, not " + str(b.size()));
  return reinterpret_cast<const std::uint8_t*>(b.c_str());
}

// Room for `n` headers beside as many slots.
inline HeaderCopy* headers_of(const Buffer& data, const Buffer& headers, std::uint64_t slot_nbytes, std::uint64_t& n) {
  n = headers.nbytes() / sizeof(HeaderCopy);
  if (headers.nbytes() % sizeof(HeaderCopy) || data.nbytes() != n * slot_nbytes)
    throw Fault(Code::invalid_argument, "data has " + str(data.nbytes()) + " bytes, but headers ask for " + str(n) + " slots of " +
                                        str(slot_nbytes));
  return reinterpret_cast<HeaderCopy*>(headers.data());
}

// The GIL keeps whoever asks for a property from looking at the header while its map is let go.
inline void close_and_let_go(Endpoint& e, void (*close)(Endpoint&)) {
  {
    const NoGil nogil;  // another thread may be inside a call, and need the GIL to leave it
    close(e);
  }
  e.let_go();
}

inline constexpr std::uint64_t kLongCopy = 32 * 1024;  // bytes; below this, giving the GIL away costs more than the copy

void bind_producer(nb::module_& m);
void bind_consumer(nb::module_& m);
void bind_probe(nb::module_& m);

}  // namespace labhub
