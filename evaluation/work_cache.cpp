#include "evaluation/work_cache.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/spool.h"
#include "evaluation/provenance.h"
#include "io/store.h"

namespace percept::evaluation {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMemoryBytes = std::size_t{1} << 30;
constexpr Index kCopiedFrames = 8192;
constexpr const char* kKinds[] = {"prefix", "fits", "scored", "values", "checkpoints"};

/// A table with its own checksum, so that a flipped bit is not believed.
void write_entry(const fs::path& file, const Value& content) {
  write_atomic(file, to_json(Value::object({{"content", content}, {"sha256", sha256(to_json(content))}})) + "\n");
}
Value read_entry(const fs::path& file) {
  const Value v = read_json(file);
  const Value* content = v.find("content");
  if (!content || v.get("sha256", "") != sha256(to_json(*content)))
    throw DataError(file.string(), "sha256", "that of the content", v.get("sha256", "none"));
  return *content;
}

/// Looks into the cache; what is damaged is as good as not there.
template <class F>
auto look(const fs::path& entry, F read) -> std::optional<decltype(read())> {
  std::error_code e;
  if (!fs::exists(entry, e)) return std::nullopt;
  try {
    return read();
  } catch (const std::exception& error) {
    log::warn(fmt::format("a cached entry is damaged and made again: {}", error.what()));
    return std::nullopt;
  }
}

/// A cache that cannot be written costs time on a resume, never the run.
template <class F>
void try_to_keep(const fs::path& folder, F write) {
  try {
    write();
  } catch (const std::exception& error) {
    log::warn(fmt::format("{}: not everything could be kept for a resume: {}", folder.string(), error.what()));
  }
}

std::size_t bytes_of_model(const Model& m) {
  std::size_t n = 0;
  for (auto& [name, tensor] : m.tensors()) n += tensor.data.size();
  return n;
}

std::string digest_of_arrays(const Model& m) { return sha256(format_safetensors(m.tensors())); }

std::size_t bytes_of_stream(const Stream& s) {
  return static_cast<std::size_t>(s.frames() * s.format.size()) * bytes_of(s.format.scalar);
}

/// Reads every sample once, and so every checksum; from then on the file is not needed.
Stream spooled(const Stream& stored) {
  Stream s = stored;
  const Index rows = s.format.size();
  auto spool = std::make_shared<Spool>(rows, s.format.scalar, "");
  std::vector<std::byte> room(static_cast<std::size_t>(rows * kCopiedFrames) * bytes_of(s.format.scalar));
  for (std::int64_t at = 0; at < stored.frames(); at += kCopiedFrames) {
    MutableFrames block(room.data(), s.format.scalar, rows, std::min<Index>(kCopiedFrames, stored.frames() - at), rows);
    stored.samples->read(at, block);
    spool->append(block);
  }
  s.samples = std::move(spool);
  return s;
}

}  // namespace

WorkCache::WorkCache(fs::path folder, std::string identity)
    : folder_(std::move(folder)), identity_(std::move(identity)) {}

std::string WorkCache::key(const Value& what) const {
  return sha256(to_json(Value::object({{"build", build_stamp()}, {"recording", identity_}, {"what", what}})));
}

const WorkCache::Entry* WorkCache::find(const std::string& key) {
  const auto at = places_.find(key);
  if (at == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, at->second);
  return &entries_.front();
}

void WorkCache::remember(Entry entry) {
  std::lock_guard lock(mutex_);
  if (places_.contains(entry.key)) return;
  bytes_ += entry.bytes;
  entries_.push_front(std::move(entry));
  places_[entries_.front().key] = entries_.begin();
  // the newest stays, however large: whoever made it is about to use it
  while (bytes_ > kMemoryBytes && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes;
    places_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

std::optional<WorkCache::Prefix> WorkCache::prefix(const std::string& key) {
  {
    std::lock_guard lock(mutex_);
    if (const auto* e = find(key)) return e->prefix;
  }
  if (folder_.empty()) return std::nullopt;
  const auto place = folder_ / "prefix" / key;
  auto found = look(place, [&] {
    Prefix p;
    p.counters = read_entry(place / "entry.json");
    const Recording stored = io::open_store(place / "streams.percept");
    for (auto& s : stored.streams) p.streams.push_back(spooled(s));
    return p;
  });
  if (found) put(key, *found, false);
  return found;
}

void WorkCache::put(const std::string& key, const Prefix& prefix, bool keep) {
  std::size_t bytes = 0;
  for (auto& s : prefix.streams) bytes += bytes_of_stream(s);
  remember({key, bytes, prefix, {}, {}});
  if (!keep || folder_.empty()) return;
  try_to_keep(folder_, [&] {
    AtomicPath out(folder_ / "prefix" / key);
    fs::create_directories(out.path());
    Recording r;
    r.name = "prefix";
    r.streams = prefix.streams;
    io::write_store(out.path() / "streams.percept", r);
    write_entry(out.path() / "entry.json", prefix.counters);
    out.commit();
  });
}

std::optional<WorkCache::Fit> WorkCache::fit(const std::string& key) {
  {
    std::lock_guard lock(mutex_);
    if (const auto* e = find(key)) return e->fit;
  }
  if (folder_.empty()) return std::nullopt;
  auto found = read_fit(folder_ / "fits" / key);
  if (found) put(key, *found, false);
  return found;
}

void WorkCache::put(const std::string& key, const Fit& fit, bool keep) {
  remember({key, bytes_of_model(*fit.model), {}, fit, {}});
  if (!keep || folder_.empty()) return;
  try_to_keep(folder_, [&] {
    write_fit(folder_ / "fits" / key, fit);
    fs::remove_all(checkpoint(key));
  });
}

std::optional<WorkCache::Fit> read_fit(const fs::path& folder) {
  return look(folder, [&] {
    const Value entry = read_entry(folder / "entry.json");
    WorkCache::Fit f;
    f.model = std::make_shared<const Model>(Model::load(folder / "model"));
    f.digest = f.model->digest();
    if (f.digest != entry.at("digest").as_string())
      throw DataError((folder / "model").string(), "digest", entry.at("digest").as_string(), f.digest);
    f.frames = entry.at("frames").as_integer();
    f.counters = entry.at("counters");
    return f;
  });
}

void write_fit(const fs::path& folder, const WorkCache::Fit& fit) {
  AtomicPath out(folder);
  fs::create_directories(out.path());
  fit.model->save(out.path() / "model");
  write_entry(out.path() / "entry.json",
              Value::object({{"digest", fit.digest}, {"frames", fit.frames}, {"counters", fit.counters}}));
  out.commit();
}

std::optional<WorkCache::Scored> WorkCache::scored(const std::string& key) {
  {
    std::lock_guard lock(mutex_);
    if (const auto* e = find(key)) return e->scored;
  }
  if (folder_.empty()) return std::nullopt;
  const auto place = folder_ / "scored" / key;
  auto found = look(place, [&] {
    const Model m = Model::load(place);
    if (m.meta.get("sha256", "") != digest_of_arrays(m))
      throw DataError(place.string(), "sha256", "that of the arrays", m.meta.get("sha256", "none"));
    return Scored{m.matrix("truth"), m.matrix("decoded")};
  });
  if (found) put(key, *found, false);
  return found;
}

void WorkCache::put(const std::string& key, const Scored& scored, bool keep) {
  const auto values = static_cast<std::size_t>(scored.truth.size() + scored.decoded.size());
  remember({key, values * sizeof(double), {}, {}, scored});
  if (!keep || folder_.empty()) return;
  try_to_keep(folder_, [&] {
    Model m;
    m.set("truth", scored.truth);
    m.set("decoded", scored.decoded);
    m.meta["sha256"] = digest_of_arrays(m);
    m.save(folder_ / "scored" / key);
  });
}

void WorkCache::forget_scored(const std::string& key) {
  {
    std::lock_guard lock(mutex_);
    if (const auto at = places_.find(key); at != places_.end()) {
      bytes_ -= at->second->bytes;
      entries_.erase(at->second);
      places_.erase(at);
    }
  }
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_ / "scored" / key, ignored);
}

std::optional<Value> WorkCache::value(const std::string& key) const {
  if (folder_.empty()) return std::nullopt;
  const auto file = folder_ / "values" / (key + ".json");
  return look(file, [&] { return read_entry(file); });
}

void WorkCache::put(const std::string& key, const Value& value) const {
  if (folder_.empty()) return;
  try_to_keep(folder_, [&] { write_entry(folder_ / "values" / (key + ".json"), value); });
}

fs::path WorkCache::checkpoint(const std::string& key) const {
  return folder_.empty() ? fs::path() : folder_ / "checkpoints" / key;
}

bool WorkCache::first_use(const std::string& key) {
  std::lock_guard lock(mutex_);
  return counted_.insert(key).second;
}

void WorkCache::remove() const noexcept {
  std::error_code ignored;
  if (folder_.empty() || !fs::is_directory(folder_, ignored)) return;
  for (const char* kind : kKinds) fs::remove_all(folder_ / kind, ignored);
  fs::remove(folder_, ignored);  // refused where somebody else's files are
}

std::string content_digest(const Stream& s) {
  Sha256 digest;
  auto text = [&](const std::string& line) { digest.add(line.c_str(), line.size() + 1); };
  text(fmt::format("{} {} {} {} {}", s.name, s.format.describe(), s.format.rate_hz, s.format.start_s, s.frames()));
  for (auto& row : s.format.row_names()) text(row);
  digest.add(s.keys.data(), s.keys.size() * sizeof(std::int64_t));
  Eigen::MatrixXd block(s.format.size(), kCopiedFrames);
  for (std::int64_t at = 0; at < s.frames(); at += kCopiedFrames) {
    const Index n = std::min<Index>(kCopiedFrames, s.frames() - at), rows = block.rows();
    s.samples->read(at, MutableFrames(block.data(), Scalar::f64, rows, n, rows));
    digest.add(block.data(), static_cast<std::size_t>(rows * n) * sizeof(double));
  }
  return digest.hex();
}

std::string identity_of(const Value& input, const Recording& recording) {
  Value said = Value::object({{"input", input}, {"name", recording.name}, {"meta", recording.meta}});
  if (!recording.meta.contains("input") && !recording.meta.contains("simulate")) {
    Sha256 content;
    auto text = [&](const std::string& s) { content.add(s.c_str(), s.size() + 1); };
    for (auto& s : recording.streams) text(content_digest(s));
    for (auto& t : recording.tables)
      for (auto& c : t.columns) {
        text(t.name + "." + c.name);
        content.add(c.numbers.data(), c.numbers.size() * sizeof(double));
        for (auto& cell : c.text) text(cell);
      }
    for (auto& e : recording.events)
      text(fmt::format("{} {} {} {} {} {}", e.onset_s, e.duration_s, e.value, e.id, e.label.text(), e.row));
    said["content"] = content.hex();
  }
  return sha256(to_json(said));
}

Value counted(const Counters& counters) {
  Value v = Value::table();
  for (auto& [name, n] : counters.nonzero()) v[name] = n;
  return v;
}

void add_counters(Counters* to, const Value& counters) {
  if (!to) return;
  for (auto& [name, n] : counters.as_table()) {
    const auto dot = name.rfind('.');
    to->get(name.substr(0, dot), name.substr(dot + 1)).add(n.as_integer());
  }
}

}  // namespace percept::evaluation
