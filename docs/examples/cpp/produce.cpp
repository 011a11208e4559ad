// produce <parameters> <segments> [threads]: hits of the segments, event by event, each event on some thread.
//
// segments: lines "event x y z x y z dE dEdx t0". Prints "event tpc ix iy time charge adc", in the order of the events,
// which is the same for any number of threads.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>

#include "producer.h"

std::vector<Deposits> read(const char* path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(std::string("no file ") + path);
  std::map<int64_t, Deposits> events;
  double x[9];
  for (int64_t event; file >> event;) {
    for (double& number : x)
      if (!(file >> number)) throw std::runtime_error(std::string(path) + ": a line is too short");
    Deposits& d = events[event];
    d.event.push_back(event);
    d.start.insert(d.start.end(), x, x + 3);
    d.end.insert(d.end.end(), x + 3, x + 6);
    d.dE.push_back(x[6]);
    d.dEdx.push_back(x[7]);
    d.t0.push_back(x[8]);
  }
  std::vector<Deposits> all;
  for (auto& [number, deposits] : events) all.push_back(std::move(deposits));
  return all;
}

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: produce <parameters> <segments> [threads]");
  const HitProducer producer{ParameterSet(argv[1])};
  const std::vector<Deposits> events = read(argv[2]);

  std::vector<std::optional<hepops::Hits>> hits(events.size());
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    for (size_t i; (i = next++) < events.size();) try {
        hits[i].emplace(producer.produce(events[i]));
      } catch (const std::exception& error) {
        std::fprintf(stderr, "event %zu: %s\n", i, error.what());
        failed = true;
      }
  };
  std::vector<std::thread> threads;
  for (int n = argc > 3 ? std::atoi(argv[3]) : 1; n > 0; --n) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  if (failed) return 1;

  for (const auto& of_event : hits)
    for (size_t i = 0; i < of_event->size(); ++i)
      std::printf("%lld %lld %lld %lld %.17g %.17g %.17g\n", (long long)of_event->event[i], (long long)of_event->tpc[i],
                  (long long)of_event->ix[i], (long long)of_event->iy[i], of_event->time[i], of_event->charge[i],
                  of_event->adc[i]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "produce: %s\n", error.what());
  return 1;
}
