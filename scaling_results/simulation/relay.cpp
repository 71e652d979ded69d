// The relay of dft/relay.py on every rank of a simulated cluster: a program for SimGrid's S4U interface.
//
//     relay SCHEDULE SIZE SEGMENT BYTE_TIME LATENCY OVERHEAD BUFFERS JOB AHEAD IN_FLIGHT WIRES
//
// SCHEDULE is a file of little-endian numbers: ranks and segments (int64), for each rank how many receives
// and how many sends it has (int64), then for each rank these, as peer and segment (int32).  Times are in
// seconds, sizes in bytes; JOB is how many segments are read or written together.  WIRES is 'simgrid', or
// 'shares' for those of shares.hpp.
//
// The wires are hosts on one switch, each with a link of its own for each direction, shared by max-min
// fairness among the connections over it; a connection carries a message at a time.  What a rank does before
// and after is here: its processor, which handles a message at a time, its buffers, receives and sends.  All
// of it runs in callbacks, without an actor for a rank, for millions of messages.  Prints one JSON object.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include <simgrid/kernel/Timer.hpp>
#include <simgrid/kernel/resource/Action.hpp>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>

#include "model.hpp"
#include "shares.hpp"

namespace s4u = simgrid::s4u;
using simgrid::kernel::resource::Action;
using simgrid::kernel::resource::NetworkAction;

static const double NEVER = std::numeric_limits<double>::infinity();
// Simulated seconds after which a broadcast stands still for good.
static const double LIMIT = 1e6;

static Settings settings;
static std::vector<Rank> ranks;
static std::int64_t segments;
static std::vector<Message> messages;
static std::vector<std::int32_t> unused_messages;
static std::priority_queue<Event, std::vector<Event>, std::greater<Event>> events;
static std::uint64_t planned = 0;
static std::unique_ptr<Shares> shares; // none when SimGrid has the wires
static double own_clock = 0;
static double alarm_at = NEVER;
static bool running = false; // the events that are due
static std::unordered_map<const void*, std::int32_t> flows; // to messages
static std::int64_t takings = 0;
static double last_taking = 0;
static s4u::ActorPtr keeper;

static void advance(std::int32_t rank);
static void happen(const Event& event);

static double clock_now()
{
  return shares ? own_clock : s4u::Engine::get_clock();
}

static void run_events();

// Has SimGrid call back at the time of the next event, unless it will before.
static void set_alarm()
{
  if (not events.empty() && events.top().time < alarm_at) {
    alarm_at = events.top().time;
    simgrid::kernel::timer::Timer::set(alarm_at, run_events);
  }
}

static void run_events()
{
  const double now = s4u::Engine::get_clock();
  running = true;
  while (not events.empty() && events.top().time <= now) {
    const Event event = events.top();
    events.pop();
    happen(event);
  }
  running = false;
  if (alarm_at <= now)
    alarm_at = NEVER;
  set_alarm();
}

static void plan(double time, Kind kind, std::int32_t message, std::uint32_t version = 0)
{
  events.push({time, planned++, message, kind, version});
  if (not running && not shares)
    set_alarm();
}

// Has the rank's processor handle one more message; gives the time at which it has.
static double handled(Rank& rank)
{
  rank.free_at = std::max(rank.free_at, clock_now()) + settings.overhead;
  return rank.free_at;
}

static void start_flow(std::int32_t number)
{
  const Message& message = messages[number];
  const std::int64_t size = std::min(settings.segment, settings.size - message.segment * settings.segment);
  if (shares)
    return shares->begin(clock_now(), message.from, message.to, size, number);
  auto flow = s4u::Comm::sendto_init(ranks[message.from].host, ranks[message.to].host);
  flow->set_payload_size(size);
  flow->detach();
  flows[flow->get_impl()] = number;
}

static Lane& lane_of(const Message& message)
{
  auto& lanes = ranks[message.from].lanes;
  const auto found =
      std::find_if(lanes.begin(), lanes.end(), [&](const Lane& lane) { return lane.peer == message.to; });
  return found != lanes.end() ? *found : lanes.emplace_back(Lane{message.to, false, {}});
}

static void to_wire(std::int32_t number)
{
  Lane& lane = lane_of(messages[number]);
  if (lane.busy)
    return lane.waiting.push_back(number);
  lane.busy = true;
  start_flow(number);
}

static void flow_ended(std::int32_t number)
{
  plan(clock_now() + settings.latency, Kind::arrived, number);
  Lane& lane = lane_of(messages[number]);
  if (lane.waiting.empty()) {
    lane.busy = false;
    return;
  }
  const std::int32_t next = lane.waiting.front();
  lane.waiting.pop_front();
  start_flow(next);
}

static void share_ended(std::int32_t flow, std::uint32_t version)
{
  const std::int32_t message = shares->ended(clock_now(), flow, version);
  if (message >= 0)
    flow_ended(message);
}

static void arrived(std::int32_t number)
{
  Rank& receiver = ranks[messages[number].to];
  const auto& posted = receiver.posted;
  if (std::find(posted.begin(), posted.end(), messages[number].segment) != posted.end())
    plan(handled(receiver), Kind::taken, number);
  else
    receiver.unexpected.push_back(number);
}

static void use(Rank& rank, std::int32_t segment)
{
  if (--rank.uses[segment] == 0)
    ++rank.free_buffers;
}

static void hold(Rank& rank, std::int32_t segment)
{
  rank.held[segment] = true;
  if (&rank == &ranks[0])
    return;
  // Writes go in the order of the file, some segments at a time; the disk is as fast as it takes.
  while (rank.written < segments) {
    const std::int64_t end = std::min(segments, rank.written + settings.job);
    for (std::int64_t i = rank.written; i < end; ++i)
      if (not rank.held[i])
        return;
    for (; rank.written < end; ++rank.written)
      use(rank, rank.written);
  }
}

static void taken(std::int32_t number)
{
  const Message& message = messages[number];
  Rank& receiver = ranks[message.to];
  auto& posted = receiver.posted;
  posted.erase(std::find(posted.begin(), posted.end(), message.segment));
  hold(receiver, message.segment);
  ++takings;
  last_taking = clock_now();
  if (takings == std::int64_t(ranks.size() - 1) * segments)
    return keeper ? keeper->kill() : void();
  plan(last_taking + settings.latency, Kind::acknowledged, number);
  advance(message.to);
}

static void acknowledged(std::int32_t number)
{
  messages[number].done = true;
  use(ranks[messages[number].from], messages[number].segment);
  advance(messages[number].from);
}

static void happen(const Event& event)
{
  switch (event.kind) {
    case Kind::to_wire:
      return to_wire(event.message);
    case Kind::arrived:
      return arrived(event.message);
    case Kind::taken:
      return taken(event.message);
    case Kind::acknowledged:
      return acknowledged(event.message);
    case Kind::share_ended:
      return share_ended(event.message, event.version);
  }
}

static void receive(Rank& rank)
{
  while (rank.next_receive < rank.receives.size() && rank.posted.size() < std::size_t(settings.ahead) &&
         rank.free_buffers > 0) {
    const std::int32_t segment = rank.receives[rank.next_receive++].segment;
    --rank.free_buffers;
    rank.posted.push_back(segment);
    auto& early = rank.unexpected;
    const auto found = std::find_if(early.begin(), early.end(),
                                    [=](std::int32_t n) { return messages[n].segment == segment; });
    if (found != early.end()) {
      plan(handled(rank), Kind::taken, *found);
      early.erase(found);
    }
  }
}

static void read(Rank& root)
{
  while (root.read < segments) {
    const std::int64_t end = std::min(segments, root.read + settings.job);
    if (root.free_buffers < end - root.read)
      return;
    root.free_buffers -= end - root.read;
    for (; root.read < end; ++root.read)
      hold(root, root.read);
  }
}

static void send(std::int32_t number)
{
  Rank& rank = ranks[number];
  while (rank.next_send < rank.sends.size()) {
    const Step step = rank.sends[rank.next_send];
    auto& under_way = rank.under_way;
    if (under_way.size() >= std::size_t(settings.in_flight)) {
      if (not messages[under_way.front()].done)
        return;
      unused_messages.push_back(under_way.front());
      under_way.pop_front();
    }
    if (not rank.held[step.segment])
      return;
    ++rank.next_send;
    std::int32_t message = messages.size();
    if (unused_messages.empty()) {
      messages.emplace_back();
    } else {
      message = unused_messages.back();
      unused_messages.pop_back();
    }
    messages[message] = {number, step.peer, step.segment, false};
    under_way.push_back(message);
    plan(handled(rank), Kind::to_wire, message);
  }
}

// Lets a rank do whatever it can.
static void advance(std::int32_t number)
{
  if (number == 0)
    read(ranks[0]);
  else
    receive(ranks[number]);
  send(number);
}

static void build()
{
  auto* zone = s4u::create_star_zone("cluster");
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const std::string name = std::to_string(i);
    ranks[i].host = zone->create_host(name, 1e9);
    // The latency is that of a message, which does not keep the next one off the wire: see flow_ended.
    auto* link = zone->create_split_duplex_link("l" + name, 1 / settings.byte_time)->set_latency(0);
    zone->add_route(ranks[i].host->get_netpoint(), nullptr, nullptr, nullptr,
                    {{link, s4u::LinkInRoute::Direction::UP}}, true);
  }
  zone->seal();
}

static void simgrid_ended(const void* activity)
{
  const auto found = flows.find(activity);
  const std::int32_t message = found->second;
  flows.erase(found);
  flow_ended(message);
}

static void run_simgrid(s4u::Engine& engine)
{
  build();
  s4u::Link::on_communication_state_change_cb([](NetworkAction& flow, Action::State) {
    // NetworkAction is an Action, though what is installed of it does not say so.
    const auto& action = reinterpret_cast<const Action&>(flow);
    if (action.get_state() == Action::State::FINISHED)
      simgrid_ended(action.get_activity());
  });
  // The engine runs as long as an actor does, and stops where nothing happens any more.
  keeper = s4u::Actor::create("keeper", ranks[0].host, [] {
    for (std::size_t i = 0; i < ranks.size(); ++i)
      advance(i);
    s4u::this_actor::sleep_for(LIMIT);
  });
  engine.run();
}

static void run_shares()
{
  shares = std::make_unique<Shares>(
      ranks.size(), 1 / settings.byte_time,
      [](double time, std::int32_t flow, std::uint32_t version) {
        plan(time, Kind::share_ended, flow, version);
      });
  for (std::size_t i = 0; i < ranks.size(); ++i)
    advance(i);
  while (not events.empty()) {
    const Event event = events.top();
    events.pop();
    own_clock = event.time;
    happen(event);
  }
}

int main(int argc, char** argv)
{
  s4u::Engine engine(&argc, argv);
  if (argc != 12) {
    std::fprintf(stderr, "relay: 11 arguments expected\n");
    return 2;
  }
  settings = {std::atoll(argv[2]), std::atoll(argv[3]), std::atof(argv[4]),  std::atof(argv[5]),
              std::atof(argv[6]),  std::atoi(argv[7]),  std::atoi(argv[8]),  std::atoi(argv[9]),
              std::atoi(argv[10])};
  ranks = load(argv[1], settings);
  segments = ranks[0].held.size();
  if (std::strcmp(argv[11], "shares") == 0)
    run_shares();
  else
    run_simgrid(engine);
  if (takings != std::int64_t(ranks.size() - 1) * segments) {
    std::fprintf(stderr, "relay: stands still after %lld segments\n", static_cast<long long>(takings));
    return 1;
  }
  std::printf("{\"seconds\": %.9g, \"messages\": %lld, \"simgrid\": \"%d.%d\"}\n", last_taking,
              static_cast<long long>(takings), SIMGRID_VERSION_MAJOR, SIMGRID_VERSION_MINOR);
  return 0;
}
