// What the relay of a rank consists of, and how it is read from a file.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <vector>

#include <simgrid/s4u.hpp>

struct Step {
  std::int32_t peer, segment;
};

struct Settings {
  std::int64_t size, segment;
  double byte_time, latency, overhead;
  int buffers, job, ahead, in_flight;
};

struct Message {
  std::int32_t from, to, segment;
  bool done; // the receiver has taken it, and the sender knows
};

// What happens to a message, or to a flow of shares.hpp, at a time that is planned.
enum class Kind : std::uint8_t { to_wire, arrived, taken, acknowledged, share_ended };

struct Event {
  double time;
  std::uint64_t number; // what was planned first happens first
  std::int32_t message;
  Kind kind;
  std::uint32_t version;
  bool operator>(const Event& other) const
  {
    return time != other.time ? time > other.time : number > other.number;
  }
};

struct Lane {
  std::int32_t peer;
  bool busy = false;
  std::deque<std::int32_t> waiting;
};

struct Rank {
  std::vector<Step> receives, sends;
  std::size_t next_receive = 0, next_send = 0;
  std::vector<std::int32_t> posted;     // segments of receives that wait
  std::vector<std::int32_t> unexpected; // messages that came before their receive
  std::deque<std::int32_t> under_way;   // sends, oldest first
  std::vector<std::uint8_t> uses;       // by segment: a write and sends that are still to be done
  std::vector<bool> held;
  std::int64_t written = 0, read = 0;
  int free_buffers = 0;
  double free_at = 0; // when the processor has done what it was given so far
  std::vector<Lane> lanes;
  simgrid::s4u::Host* host = nullptr;
};

// Reads a schedule; ends the program where the file does not hold a whole one.
inline std::vector<Rank> load(const char* path, const Settings& settings)
{
  std::ifstream file(path, std::ios::binary);
  std::int64_t head[2];
  file.read(reinterpret_cast<char*>(head), sizeof head);
  std::vector<std::int64_t> counts(2 * head[0]);
  file.read(reinterpret_cast<char*>(counts.data()), counts.size() * sizeof counts[0]);
  const std::int64_t segments = head[1];
  std::vector<Rank> ranks(head[0]);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    Rank& rank = ranks[i];
    rank.receives.resize(counts[2 * i]);
    rank.sends.resize(counts[2 * i + 1]);
    for (auto* steps : {&rank.receives, &rank.sends})
      file.read(reinterpret_cast<char*>(steps->data()), steps->size() * sizeof(Step));
    rank.held.resize(segments);
    rank.uses.assign(segments, i > 0);
    for (const Step& step : rank.sends)
      ++rank.uses[step.segment];
    rank.free_buffers = settings.buffers;
  }
  if (not file) {
    std::fprintf(stderr, "%s: not a whole schedule\n", path);
    std::exit(1);
  }
  return ranks;
}
