/// A small library with the functions of liblsl that percept calls, for the paths that a real one takes rarely. What it
/// does is set by the test through fake_lsl(), which hands out the one state there is.
#include "tests/realtime/fake_lsl.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace {
FakeLsl& state() {
  static FakeLsl s;
  return s;
}
double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct FakeInlet {
  std::string name;
  int generation;
};

FakeLsl::Outlet* outlet_of(const FakeInlet* in) {
  for (auto& o : state().outlets)
    if (o.name == in->name) return &o;
  return nullptr;
}

/// The next sample within the time; nothing: none came, or error.
template <class F>
double take(void* inlet, double timeout, std::int32_t* error, F f) {
  const auto* in = static_cast<FakeInlet*>(inlet);
  const double until = now_s() + timeout;
  for (;;) {
    {
      std::lock_guard lock(state().mutex);
      FakeLsl::Outlet* o = outlet_of(in);
      *error = !o || o->generation != in->generation ? -2 : 0;
      if (*error) return 0;
      if (!o->samples.empty()) {
        const auto sample = o->samples.front();
        o->samples.pop_front();
        f(sample);
        return sample.stamp;
      }
    }
    if (now_s() >= until) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}
}  // namespace

extern "C" {
FakeLsl* fake_lsl() { return &state(); }

std::int32_t lsl_library_version() { return 116; }
double lsl_local_clock() { return now_s() - state().clock_offset_s; }
std::int32_t lsl_resolve_bypred(void** found, std::uint32_t room, const char* predicate, std::int32_t, double timeout) {
  const double until = now_s() + timeout;
  for (;;) {
    {
      std::lock_guard lock(state().mutex);
      std::int32_t n = 0;
      for (auto& o : state().outlets)
        if (std::string(predicate).find("name='" + o.name + "'") != std::string::npos && n < static_cast<int>(room))
          found[n++] = new FakeLsl::Outlet(o);
      if (n) return n;
    }
    if (now_s() >= until) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}
void* lsl_create_streaminfo(const char* name, const char* type, std::int32_t channels, double rate, std::int32_t format,
                            const char* source_id) {
  auto* o = new FakeLsl::Outlet;
  o->name = name;
  o->type = type;
  o->channels = channels;
  o->rate = rate;
  o->format = format;
  o->source_id = source_id;
  return o;
}
void lsl_destroy_streaminfo(void* info) { delete static_cast<FakeLsl::Outlet*>(info); }
const char* lsl_get_name(void* i) { return static_cast<FakeLsl::Outlet*>(i)->name.c_str(); }
const char* lsl_get_type(void* i) { return static_cast<FakeLsl::Outlet*>(i)->type.c_str(); }
std::int32_t lsl_get_channel_count(void* i) { return static_cast<FakeLsl::Outlet*>(i)->channels; }
double lsl_get_nominal_srate(void* i) { return static_cast<FakeLsl::Outlet*>(i)->rate; }
std::int32_t lsl_get_channel_format(void* i) { return static_cast<FakeLsl::Outlet*>(i)->format; }
const char* lsl_get_source_id(void* i) { return static_cast<FakeLsl::Outlet*>(i)->source_id.c_str(); }
const char* lsl_get_hostname(void*) { return "fake"; }
// a node of the description is the number of a channel, from 1; 0 is none
void* lsl_get_desc(void* i) { return i; }
void* lsl_child(void* parent, const char* name) {
  if (std::strcmp(name, "channels") == 0) return parent;
  return static_cast<FakeLsl::Outlet*>(parent)->labels.empty() ? nullptr
                                                               : static_cast<FakeLsl::Outlet*>(parent)->labels.data();
}
void* lsl_next_sibling(void* node) { return static_cast<std::string*>(node) + 1; }
std::int32_t lsl_empty(void* node) { return !node || static_cast<std::string*>(node)->empty(); }
const char* lsl_child_value_n(void* node, const char* name) {
  return std::strcmp(name, "label") == 0 ? static_cast<std::string*>(node)->c_str() : "";
}
void* lsl_append_child(void* parent, const char*) { return parent; }
void* lsl_append_child_value(void* parent, const char*, const char*) { return parent; }
void* lsl_create_inlet(void* info, std::int32_t, std::int32_t, std::int32_t) {
  std::lock_guard lock(state().mutex);
  if (state().refuse_inlets) return nullptr;
  ++state().open_inlets;
  const auto* o = static_cast<FakeLsl::Outlet*>(info);
  return new FakeInlet{o->name, o->generation};
}
void lsl_destroy_inlet(void* in) {
  std::lock_guard lock(state().mutex);
  --state().open_inlets;
  delete static_cast<FakeInlet*>(in);
}
void* lsl_get_fullinfo(void* in, double, std::int32_t* error) {
  std::lock_guard lock(state().mutex);
  *error = 0;
  auto* o = outlet_of(static_cast<FakeInlet*>(in));
  return o ? new FakeLsl::Outlet(*o) : nullptr;
}
void lsl_open_stream(void*, double, std::int32_t* error) { *error = state().open_error; }
double lsl_time_correction_ex(void*, double* remote, double* uncertainty, double, std::int32_t* error) {
  std::lock_guard lock(state().mutex);
  ++state().measured;
  *error = state().correction_error;
  *remote = lsl_local_clock() - state().correction_s;
  *uncertainty = 1e-4;
  return state().correction_s;
}
double lsl_pull_sample_f(void* in, float* to, std::int32_t, double timeout, std::int32_t* error) {
  return take(in, timeout, error, [to](const FakeLsl::Sample& s) {
    for (std::size_t i = 0; i < s.values.size(); ++i) to[i] = static_cast<float>(s.values[i]);
  });
}
double lsl_pull_sample_d(void* in, double* to, std::int32_t, double timeout, std::int32_t* error) {
  return take(in, timeout, error, [to](const FakeLsl::Sample& s) { std::copy(s.values.begin(), s.values.end(), to); });
}
double lsl_pull_sample_str(void* in, char** to, std::int32_t, double timeout, std::int32_t* error) {
  return take(in, timeout, error, [to](const FakeLsl::Sample& s) { *to = ::strdup(s.text.c_str()); });
}
unsigned long lsl_pull_chunk_f(void* in, float* to, double* stamps, unsigned long room, unsigned long stamp_room,
                               double, std::int32_t* error) {
  unsigned long n = 0, k = 0;
  for (; k < stamp_room && n < room; ++k) {
    const double stamp = lsl_pull_sample_f(in, to + n, 0, 0, error);
    if (stamp == 0) break;
    stamps[k] = stamp;
    n += room / stamp_room;
  }
  return n;
}
unsigned long lsl_pull_chunk_d(void* in, double* to, double* stamps, unsigned long room, unsigned long stamp_room,
                               double, std::int32_t* error) {
  unsigned long n = 0, k = 0;
  for (; k < stamp_room && n < room; ++k) {
    const double stamp = lsl_pull_sample_d(in, to + n, 0, 0, error);
    if (stamp == 0) break;
    stamps[k] = stamp;
    n += room / stamp_room;
  }
  return n;
}
void lsl_destroy_string(char* s) { ::free(s); }
void* lsl_create_outlet(void* info, std::int32_t, std::int32_t) {
  std::lock_guard lock(state().mutex);
  state().outlets.push_back(*static_cast<FakeLsl::Outlet*>(info));
  return new std::string(state().outlets.back().name);
}
void lsl_destroy_outlet(void* outlet) { delete static_cast<std::string*>(outlet); }
std::int32_t lsl_push_sample_dtp(void* outlet, const double* values, double stamp, std::int32_t) {
  std::lock_guard lock(state().mutex);
  for (auto& o : state().outlets)
    if (o.name == *static_cast<std::string*>(outlet)) o.samples.push_back({stamp, {values, values + o.channels}, ""});
  return 0;
}
}
