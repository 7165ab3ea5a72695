#include "tests/support/data.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <vector>

namespace percept::testing {
namespace fs = std::filesystem;

std::optional<fs::path> mirrored(const std::string& path) {
  const char* root = std::getenv("PERCEPT_DATA_MIRROR");
  if (!root || !*root) return std::nullopt;
  fs::path p = fs::path(root) / path;
  if (!fs::exists(p)) return std::nullopt;
  return p;
}

Eigen::MatrixXd read_reference(const fs::path& file, int skip_lines) {
  std::ifstream in(file);
  if (!in) throw std::runtime_error("no reference file " + file.string());
  std::vector<std::vector<double>> rows;
  std::string line;
  for (int i = 0; i < skip_lines; ++i) std::getline(in, line);
  while (std::getline(in, line)) {
    std::stringstream cells(line);
    std::string cell;
    rows.emplace_back();
    while (std::getline(cells, cell, ',')) rows.back().push_back(std::stod(cell));
  }
  Eigen::MatrixXd m(static_cast<Eigen::Index>(rows.size()),
                    rows.empty() ? 0 : static_cast<Eigen::Index>(rows[0].size()));
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t c = 0; c < rows[r].size(); ++c)
      m(static_cast<Eigen::Index>(r), static_cast<Eigen::Index>(c)) = rows[r][c];
  return m;
}

namespace {
struct Folders {
  std::vector<fs::path> made;
  pid_t owner = getpid();
  ~Folders() {
    if (getpid() != owner) return;  // a forked child must not remove its parent's files
    std::error_code ignored;
    for (auto& f : made) fs::remove_all(f, ignored);
  }
} folders;
}  // namespace

fs::path temporary_folder() {
  std::string name = (fs::temp_directory_path() / "percept-test-XXXXXX").string();
  if (!mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary folder");
  folders.made.emplace_back(name);
  return name;
}

fs::path source_folder() { return PERCEPT_SOURCE_DIR; }

bool in_ci() {
  const char* ci = std::getenv("CI");
  return ci && *ci && std::string(ci) != "false";
}

}  // namespace percept::testing
