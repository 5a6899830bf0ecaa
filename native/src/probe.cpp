#include "labhub/probe.hpp"

#include "python.hpp"

namespace labhub {
namespace {

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
  d["epoch"] = h.owner.epoch.load(std::memory_order_acquire);  // pairs with begin: what follows is that producer's
  d["opened_epoch"] = get(h.owner.opened_epoch);
  d["clock_ahead_ns"] = r.clock_ahead_ns;
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

void bind_probe(nb::module_& m) {
  m.def("probe", [](const std::string& directory, const std::string& name) { return report(labhub::probe(directory, name)); },
        nb::arg("directory"), nb::arg("name"));
  m.def("reset_counters", &labhub::reset_counters, nb::arg("directory"), nb::arg("name"));
  m.def("slot_states",
        [](const std::string& directory, const std::string& name) {
          const SlotStates s = labhub::slot_states(directory, name);
          nb::dict d;
          d["empty"] = s.empty;
          d["committed"] = s.committed;
          d["holes"] = s.holes;
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

}  // namespace labhub
