/// What a run has worked out so far, kept under what it depends on: a killed run continues where it was.
///
/// An entry's key is the sha256 of everything that decides its bits: the program's build, the recording, the resolved
/// sub-graph with the digests of the models above, parameters, versions, training ranges, target, precision, block,
/// threads and seed. So a warm cache, a cold one and a half-filled one give the same results, and an entry is never
/// asked whether it is still true. What is counted while an entry is made is part of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/model.h"
#include "core/recording.h"
#include "core/value.h"

namespace percept::evaluation {

/// Frames of the nodes above every learned one.
struct CachedPrefix {
  std::vector<Stream> streams;
  Value counters = Value::table();  ///< {"node.name": count}
};
struct CachedFit {
  std::shared_ptr<const Model> model;
  std::string digest;  ///< of the model
  Index frames = 0;    ///< it was fitted on
  Value counters = Value::table();
};
struct CachedScored {
  Eigen::MatrixXd truth, decoded;  ///< outputs x frames
};

/// Of one recording. All functions may be called from several threads.
class WorkCache {
 public:
  using Prefix = CachedPrefix;
  using Fit = CachedFit;
  using Scored = CachedScored;

  /// In memory, as far as about a gigabyte goes.
  WorkCache() = default;
  /// Also in this folder, which appears with the first entry. `identity`: what tells the recording from any other.
  WorkCache(std::filesystem::path folder, std::string identity);

  /// The key of something that depends on `what` and on nothing else but the build and the recording.
  std::string key(const Value& what) const;

  /// What is not there, or damaged (said in the log), is nullopt. keep: on disk too.
  std::optional<Prefix> prefix(const std::string& key);
  void put(const std::string& key, const Prefix& prefix, bool keep);
  std::optional<Fit> fit(const std::string& key);
  void put(const std::string& key, const Fit& fit, bool keep);
  /// What one inner fold of a search candidate decoded.
  std::optional<Scored> scored(const std::string& key);
  void put(const std::string& key, const Scored& scored, bool keep);
  void forget_scored(const std::string& key);
  /// A candidate's scores; only on disk.
  std::optional<Value> value(const std::string& key) const;
  void put(const std::string& key, const Value& value) const;
  /// Where a fitter may leave what it needs to continue; gone once the fit is put. Empty without a folder.
  std::filesystem::path checkpoint(const std::string& key) const;

  /// True the first time: one use of an entry is counted, however often it is used.
  bool first_use(const std::string& key);
  /// Removes what the cache wrote, and its folder when nothing else is in it.
  void remove() const noexcept;

 private:
  struct Entry {
    std::string key;
    std::size_t bytes = 0;
    std::optional<Prefix> prefix;
    std::optional<Fit> fit;
    std::optional<Scored> scored;
  };
  const Entry* find(const std::string& key);
  void remember(Entry entry);

  std::filesystem::path folder_;
  std::string identity_;
  std::mutex mutex_;
  std::list<Entry> entries_;  ///< the last used first
  std::map<std::string, std::list<Entry>::iterator> places_;
  std::size_t bytes_ = 0;
  std::set<std::string> counted_;
};

/// A fitted model in a folder of its own, with its checksum and what was counted. read_fit: nothing when the folder is
/// not there or damaged (said in the log). write_fit: the folder appears at once; throws DataError.
std::optional<WorkCache::Fit> read_fit(const std::filesystem::path& folder);
void write_fit(const std::filesystem::path& folder, const WorkCache::Fit& fit);

/// What tells a recording from any other: the digests of its files, a simulator's parameters, else its content.
/// input: the [input] table it was made from.
std::string identity_of(const Value& input, const Recording& recording);

/// sha256 over the format, keys and samples of a stream.
std::string content_digest(const Stream& stream);

/// {"node.name": count}
Value counted(const Counters& counters);
/// Adds them up; `to` may be nullptr.
void add_counters(Counters* to, const Value& counters);

}  // namespace percept::evaluation
