#include "numerics/training.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/error.h"
#include "core/files.h"
#include "core/model.h"

namespace percept {
namespace {

template <class T>
constexpr Tensor::Type kType = std::is_same_v<T, float>    ? Tensor::Type::f32
                               : std::is_same_v<T, double> ? Tensor::Type::f64
                                                           : Tensor::Type::i64;

template <class T>
Tensor tensor_of(std::span<T> values) {
  Tensor t;
  t.type = kType<T>;
  t.shape = {static_cast<std::int64_t>(values.size())};
  t.data.resize(values.size_bytes());
  if (!values.empty()) std::memcpy(t.data.data(), values.data(), t.data.size());
  return t;
}

}  // namespace

AdamW::AdamW(std::span<float> w) : weights(w), moment(w.size()), square(w.size()), average(w.begin(), w.end()) {}

void AdamW::update(std::span<const float> gradient, float scale, double rate, double weight_decay,
                   double weight_average) {
  constexpr double kFirst = 0.9, kSecond = 0.999, kSmall = 1e-8;
  const auto done = static_cast<double>(++step);
  const auto size = static_cast<float>(rate / (1 - std::pow(kFirst, done)));
  const auto unbias = static_cast<float>(1 / std::sqrt(1 - std::pow(kSecond, done)));
  const auto keep = static_cast<float>(1 - rate * weight_decay);
  // at first the mean follows closely, or it would long be that of the random start
  const auto mean = static_cast<float>(std::min(weight_average, (1 + done) / (10 + done)));
  const auto n = static_cast<std::ptrdiff_t>(weights.size());
  const float* from = gradient.data();
  float *w = weights.data(), *m = moment.data(), *v = square.data(), *a = average.data();
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const float g = scale * from[i];
    m[i] = static_cast<float>(kFirst) * m[i] + static_cast<float>(1 - kFirst) * g;
    v[i] = static_cast<float>(kSecond) * v[i] + static_cast<float>(1 - kSecond) * g * g;
    w[i] = keep * w[i] - size * m[i] / (std::sqrt(v[i]) * unbias + static_cast<float>(kSmall));
    a[i] = mean * a[i] + (1 - mean) * w[i];
  }
}

double norm_of(std::span<const float> gradient) {
  constexpr std::size_t kTogether = 1024;  // added in float, side by side; the sums in double
  double sum = 0;
  for (std::size_t first = 0; first < gradient.size(); first += kTogether) {
    const std::size_t n = std::min(kTogether, gradient.size() - first);
    float part[16] = {};
    const float* g = gradient.data() + first;
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
      for (std::size_t k = 0; k < 16; ++k) part[k] += g[i + k] * g[i + k];
    for (; i < n; ++i) part[i % 16] += g[i] * g[i];
    for (const float p : part) sum += static_cast<double>(p);
  }
  return std::sqrt(sum);
}

TrainingCheckpoint::TrainingCheckpoint(std::filesystem::path file, const std::string& task) : file_(std::move(file)) {
  for (std::size_t i = 0; i < task.size(); i += 16)
    task_.push_back(static_cast<std::int64_t>(std::stoull(task.substr(i, 16), nullptr, 16)));
}

bool TrainingCheckpoint::load(const Contents& contents) const {
  if (file_.empty() || !std::filesystem::exists(file_)) return false;
  const auto all = read_safetensors(file_);
  const auto find = [&](const std::string& name, Tensor::Type type) -> const Tensor& {
    const auto at = all.find(name);
    if (at == all.end() || at->second.type != type)
      throw DataError(file_.string(), name, "an array of a training", at == all.end() ? "none" : "another type");
    return at->second;
  };
  const auto read = [&]<class T>(const std::string& name, std::span<T> out) {
    const Tensor& t = find(name, kType<T>);
    if (t.elements() != out.size())
      throw DataError(file_.string(), name, std::to_string(out.size()) + " values", std::to_string(t.elements()));
    if (!out.empty()) std::memcpy(out.data(), t.data.data(), t.data.size());
  };
  std::vector<std::int64_t> task(task_.size());
  read("task", std::span(task));
  if (task != task_) return false;
  for (const auto& [name, values] : contents.floats) read(name, values);
  for (const auto& [name, values] : contents.doubles) read(name, values);
  for (const auto& [name, values] : contents.integers) read(name, values);
  for (const auto& [name, values] : contents.series) {
    values->resize(find(name, Tensor::Type::f64).elements());
    read(name, std::span(*values));
  }
  return true;
}

void TrainingCheckpoint::save(const Contents& contents) {
  if (file_.empty()) return;
  std::map<std::string, Tensor> all;
  for (const auto& [name, values] : contents.floats) all[name] = tensor_of(values);
  for (const auto& [name, values] : contents.doubles) all[name] = tensor_of(values);
  for (const auto& [name, values] : contents.integers) all[name] = tensor_of(values);
  for (const auto& [name, values] : contents.series) all[name] = tensor_of(std::span(*values));
  all["task"] = tensor_of(std::span(task_));
  std::filesystem::create_directories(file_.parent_path());
  write_atomic(file_, format_safetensors(all));
  saved_ = std::chrono::steady_clock::now();
}

void TrainingCheckpoint::save_now_and_then(const Contents& contents, double seconds) {
  if (std::chrono::steady_clock::now() - saved_ > std::chrono::duration<double>(seconds)) save(contents);
}

}  // namespace percept
