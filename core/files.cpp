#include "core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <vector>

#include "core/error.h"

namespace percept {
namespace fs = std::filesystem;

namespace {
/// Forces a file's or a folder's content to the disk; a rename must not become visible before what it names.
void sync_path(const fs::path& p) {
  const int fd = ::open(p.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}
/// ".NAME.HOST." begins the name of a temporary. The host is in it because a folder may be shared by many machines,
/// and only on its own can a process be told to be gone.
std::string temporary_start(const fs::path& final_path) {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  return fmt::format(".{}.{}.", final_path.filename().string(), host);
}
fs::path without_slash(fs::path p) { return p.has_filename() ? p : p.parent_path(); }
fs::path beside(const fs::path& final_path) {
  static std::atomic<unsigned> n{0};
  return final_path.parent_path() / fmt::format("{}{}.{}.part", temporary_start(final_path), ::getpid(), n++);
}
/// Temporaries of the same target that a killed process of this machine left.
void remove_strays(const fs::path& final_path) {
  const std::string start = temporary_start(final_path);
  std::error_code e;
  for (fs::directory_iterator at(final_path.has_parent_path() ? final_path.parent_path() : fs::path("."), e), end;
       !e && at != end; at.increment(e)) {
    const std::string name = at->path().filename().string();
    if (!name.starts_with(start) || !name.ends_with(".part")) continue;
    int pid = 0, number = 0, length = 0;
    const char* rest = name.c_str() + start.size();
    if (std::sscanf(rest, "%d.%d.part%n", &pid, &number, &length) != 2 || rest[length] != '\0' || pid <= 0) continue;
    std::error_code ignored;
    if (::kill(pid, 0) != 0 && errno == ESRCH) fs::remove_all(at->path(), ignored);
  }
}
}  // namespace

AtomicPath::AtomicPath(fs::path final_path) : final_(without_slash(std::move(final_path))), temporary_(beside(final_)) {
  std::error_code e;
  if (final_.has_parent_path()) fs::create_directories(final_.parent_path(), e);
  if (e) throw DataError(final_.parent_path().string(), "", "a folder that can be written", e.message());
  remove_strays(final_);
}
AtomicPath::~AtomicPath() {
  std::error_code ignored;
  if (!done_) fs::remove_all(temporary_, ignored);
}
void AtomicPath::commit() {
  std::error_code e;
  if (fs::is_directory(temporary_)) {
    for (auto& f : fs::recursive_directory_iterator(temporary_)) sync_path(f.path());
    sync_path(temporary_);
    if (fs::exists(final_)) {
      // a folder cannot be renamed over one that is not empty: exchange the two in one step, then drop the old one
      if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) != 0)
        throw DataError(final_.string(), "", "a folder that can be replaced", std::strerror(errno));
      fs::remove_all(temporary_, e);
      done_ = true;
      return;
    }
  } else {
    sync_path(temporary_);
  }
  fs::rename(temporary_, final_, e);
  if (e) throw DataError(final_.string(), "", "a place that can be written", e.message());
  done_ = true;
  sync_path(final_.has_parent_path() ? final_.parent_path() : fs::path("."));
}

void write_atomic(const fs::path& file, std::string_view text) {
  AtomicPath out(file);
  {
    std::ofstream f(out.path(), std::ios::binary);
    f.write(text.data(), static_cast<std::streamsize>(text.size()));
    f.flush();
    if (!f) throw DataError(file.string(), "", "a file that can be written", std::strerror(errno));
  }
  out.commit();
}

std::uint64_t require_file(const fs::path& file) {
  struct stat s {};
  if (::stat(file.c_str(), &s) != 0) throw DataError(file.string(), "", "a readable file", std::strerror(errno));
  if (S_ISDIR(s.st_mode)) throw DataError(file.string(), "", "a file", "a directory");
  if (!S_ISREG(s.st_mode)) throw DataError(file.string(), "", "a regular file", "a device or pipe");
  return static_cast<std::uint64_t>(s.st_size);
}

std::string read_file(const fs::path& file, std::uint64_t max_bytes) {
  const auto bytes = require_file(file);
  if (bytes > max_bytes)
    throw DataError(file.string(), "size", fmt::format("at most {} bytes", max_bytes), fmt::format("{} bytes", bytes));
  std::ifstream f(file, std::ios::binary);
  std::string text(bytes, '\0');
  f.read(text.data(), static_cast<std::streamsize>(bytes));
  if (!f) throw DataError(file.string(), "", "a readable file", std::strerror(errno));
  return text;
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr);
}
Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }
void Sha256::add(const void* data, std::size_t bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, bytes);
}
std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest, &n);
  std::string text;
  for (unsigned i = 0; i < n; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}
std::string sha256(std::span<const std::byte> bytes) {
  Sha256 h;
  h.add(bytes.data(), bytes.size());
  return h.hex();
}
std::string sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text.data(), text.size()))); }
std::string sha256_file(const fs::path& file) {
  require_file(file);
  std::ifstream f(file, std::ios::binary);
  if (!f) throw DataError(file.string(), "", "a readable file", std::strerror(errno));
  Sha256 h;
  std::vector<char> buffer(1 << 20);
  while (f.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), f.gcount() > 0)
    h.add(buffer.data(), static_cast<std::size_t>(f.gcount()));
  return h.hex();
}

}  // namespace percept
