// Slots with a time of their own and without one, until the standard input ends.
//
//   times DIRECTORY
#include <cstdio>
#include <iostream>

#include <labhub/producer.hpp>

int main(int n, char** words) try {
  if (n != 2) return 2;
  labhub::Shape shape;
  shape.capacity = 64;
  shape.slot_nbytes = sizeof(std::int64_t);
  labhub::Producer p(words[1], "x", shape);
  const std::int64_t record = 7;
  const auto* const data = reinterpret_cast<const std::uint8_t*>(&record);

  p.write(record);
  p.write(record, {}, nullptr, 0);
  p.write(record, {}, nullptr, -1);
  p.write(data, sizeof record);
  p.write(data, sizeof record, {}, 0);
  p.try_write(data, sizeof record);
  p.try_write(data, sizeof record, 0);
  for (const std::int64_t time : {labhub::kNow, std::int64_t{0}}) {
    p.claim({}, nullptr);
    p.commit(sizeof record, time);
  }
  p.claim({}, nullptr);
  p.commit(sizeof record);

  const std::int64_t blocks[12] = {};
  std::uint64_t written = 0;
  p.write_many(reinterpret_cast<const std::uint8_t*>(blocks), 12, {}, nullptr, written, 1000);
  std::cout << "written" << std::endl;
  std::getchar();
  return 0;
} catch (const labhub::Fault& fault) {
  std::cerr << fault.what() << "\n";
  return 1;
}
