// Wires without SimGrid: the same shares of the same links, found from their neighbours instead of all anew.
//
// Each link has a level, the most that a flow over it gets; a flow has the lower level of its two links.
// Where flows begin or end, levels are corrected link by link until none changes by more than a small part:
// the max-min fair shares, which SimGrid computes exactly, to within that part.  Over a graph that connects
// all hosts, SimGrid's work for each message grows with their number; this does not.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

class Shares {
public:
  // Told of a flow when it has to be looked at again: its number, and the version that it must still have.
  using Planner = std::function<void(double time, std::int32_t flow, std::uint32_t version)>;

  Shares(std::size_t hosts, double rate, Planner plan)
      : rate_(rate), plan_(std::move(plan)), links_(2 * hosts)
  {
    for (Link& link : links_)
      link.level = rate;
  }

  void begin(double now, std::int32_t from, std::int32_t to, double size, std::int32_t message)
  {
    std::int32_t number = flows_.size();
    if (unused_.empty()) {
      flows_.emplace_back();
    } else {
      number = unused_.back();
      unused_.pop_back();
    }
    Flow& flow = flows_[number];
    flow.message = message;
    flow.ends[0] = 2 * from;
    flow.ends[1] = 2 * to + 1;
    flow.left = size;
    flow.rate = 0;
    flow.since = now;
    for (const std::int32_t end : flow.ends)
      links_[end].flows.push_back(number);
    settle(now, flow.ends[0], flow.ends[1]);
  }

  // Gives the message of a flow that has ended now, or -1 where its rate has changed meanwhile.
  std::int32_t ended(double now, std::int32_t number, std::uint32_t version)
  {
    Flow& flow = flows_[number];
    if (flow.version != version)
      return -1;
    ++flow.version;
    for (const std::int32_t end : flow.ends) {
      auto& flows = links_[end].flows;
      flows.erase(std::find(flows.begin(), flows.end(), number));
    }
    unused_.push_back(number);
    settle(now, flow.ends[0], flow.ends[1]);
    return flow.message;
  }

private:
  struct Flow {
    std::int32_t message = 0;
    std::int32_t ends[2] = {0, 0};
    std::uint32_t version = 0;
    double left = 0, rate = 0, since = 0;
  };
  struct Link {
    double level = 0;
    bool queued = false;
    std::vector<std::int32_t> flows;
  };

  // Part of itself by which a level may be off, and links that one change may correct.
  static constexpr double TOLERANCE = 0.01;
  static constexpr int MOST = 200;

  static std::int32_t end_across(const Flow& flow, std::int32_t link)
  {
    return flow.ends[0] == link ? flow.ends[1] : flow.ends[0];
  }

  // What a flow gets at most when this link's rate is shared and those that get less elsewhere leave theirs.
  double fair_level(std::int32_t number)
  {
    caps_.clear();
    for (const std::int32_t flow : links_[number].flows)
      caps_.push_back(links_[end_across(flows_[flow], number)].level);
    std::sort(caps_.begin(), caps_.end());
    double left = rate_;
    for (std::size_t i = 0; i < caps_.size(); ++i) {
      const double share = left / (caps_.size() - i);
      if (caps_[i] >= share)
        return share;
      left -= caps_[i];
    }
    return rate_;
  }

  void settle(double now, std::int32_t first, std::int32_t second)
  {
    queue_ = {first, second};
    touched_.clear();
    for (int corrected = 0; not queue_.empty() && corrected < MOST; ++corrected) {
      const std::int32_t number = queue_.front();
      queue_.pop_front();
      Link& link = links_[number];
      link.queued = false;
      const double level = fair_level(number);
      const bool changed = std::abs(level - link.level) > TOLERANCE * link.level;
      link.level = level;
      touched_.push_back(number);
      if (changed)
        for (const std::int32_t flow : link.flows) {
          const std::int32_t across = end_across(flows_[flow], number);
          if (not links_[across].queued) {
            links_[across].queued = true;
            queue_.push_back(across);
          }
        }
    }
    for (const std::int32_t number : queue_)
      links_[number].queued = false;
    for (const std::int32_t number : touched_)
      for (const std::int32_t flow : links_[number].flows)
        set_rate(now, flow);
  }

  void set_rate(double now, std::int32_t number)
  {
    Flow& flow = flows_[number];
    const double rate = std::min(links_[flow.ends[0]].level, links_[flow.ends[1]].level);
    if (std::abs(rate - flow.rate) <= TOLERANCE / 10 * flow.rate)
      return;
    flow.left -= flow.rate * (now - flow.since);
    flow.since = now;
    flow.rate = rate;
    plan_(now + std::max(0.0, flow.left / rate), number, ++flow.version);
  }

  double rate_;
  Planner plan_;
  std::vector<Link> links_;
  std::vector<Flow> flows_;
  std::vector<std::int32_t> unused_, touched_;
  std::deque<std::int32_t> queue_;
  std::vector<double> caps_;
};
