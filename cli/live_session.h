/// The folder of a recorded live session: what is needed to run it again.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "core/value.h"

namespace percept::cli {

inline constexpr const char* kSessionFile = "live.session";

/// A new folder for a session, with its models. One that is not kept is taken away again: a session that never began
/// leaves nothing behind.
class SessionFolder {
 public:
  SessionFolder() = default;
  ~SessionFolder();
  SessionFolder(const SessionFolder&) = delete;
  SessionFolder& operator=(const SessionFolder&) = delete;
  /// Throws DataError when there is one that holds something, or when it cannot be made.
  void make(const std::filesystem::path& folder, const std::vector<NodeSpec>& nodes);
  std::filesystem::path session() const { return folder_ / kSessionFile; }
  void keep() { kept_ = true; }

 private:
  std::filesystem::path folder_;
  bool kept_ = false;
};

/// What the head of the session says of its origin: the pipeline as it was changed, the decoded node, the models by
/// digest, percept's version.
Value session_about(const Pipeline& pipeline, const std::string& node, const std::vector<NodeSpec>& nodes);

/// Runs a recorded session again in the very blocks it came in and compares the decoded frames bit for bit. Returns
/// {node, frames, identical, first_different?}. Throws DataError when it was cut such that nothing can be repeated.
Value rerun_session(const std::filesystem::path& folder_or_file);

}  // namespace percept::cli
