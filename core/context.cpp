#include "core/context.h"

#include "core/error.h"
#include "core/log.h"

namespace percept {

Counter& Counters::get(const std::string& node, const std::string& name) {
  const std::string key = node + "." + name;
  std::lock_guard lock(mutex_);
  for (auto& i : items_)
    if (i.name == key) return i.counter;
  auto& fresh = items_.emplace_back();
  fresh.name = key;
  return fresh.counter;
}

std::vector<std::pair<std::string, std::int64_t>> Counters::nonzero() const {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, std::int64_t>> all;
  for (auto& i : items_)
    if (auto n = i.counter.value()) all.emplace_back(i.name, n);
  return all;
}

const Model* Context::prior(std::string_view use) const {
  for (auto& p : priors)
    if (p.use == use) return p.model.get();
  return nullptr;
}
Counter& Context::counter(const std::string& name) const {
  static Counter nobody;
  return counters ? counters->get(node, name) : nobody;
}
void Context::warn(const std::string& message) const { log::warn(node + ": " + message); }
void Context::info(const std::string& message) const { log::info(node + ": " + message); }
void Context::check_cancel() const {
  if (cancelled && cancelled()) throw Interrupted();
}

}  // namespace percept
