#include "data/fetch.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>

#include "core/files.h"

namespace percept::data {
namespace fs = std::filesystem;

namespace {
std::string environment(const char* name) {
  const char* v = std::getenv(name);
  return v ? v : "";
}

std::string of_set(const DataSet& set, const DataFile& file) { return fmt::format("{} of {}", file.name, set.name); }

/// Throws DataError unless size and digest are those of the registry.
void verify(const fs::path& path, const DataFile& file, const std::string& shown) {
  const auto bytes = require_file(path);
  const std::string digest = sha256_file(path);
  if (bytes != file.bytes || digest != file.sha256)
    throw DataError(shown, "content", fmt::format("{} bytes with sha256 {}", file.bytes, file.sha256),
                    fmt::format("{} bytes with sha256 {}", bytes, digest));
}

bool is_loopback(std::string_view url) {
  if (url.find('@') != url.npos) return false;  // "http://127.0.0.1:x@elsewhere" is elsewhere
  for (std::string_view host : {"http://127.0.0.1", "http://localhost", "http://[::1]"})
    if (url.starts_with(host) && (url.size() == host.size() || url[host.size()] == ':' || url[host.size()] == '/'))
      return true;
  return false;
}

/// What the callbacks of libcurl share. No exception may cross C code: it is kept and thrown afterwards.
struct Transfer {
  std::FILE* out;
  const DataFile& file;
  const ProgressFn& progress;
  std::uint64_t received = 0;
  bool too_long = false;
  int write_error = 0;
  std::exception_ptr stopped;
};

std::size_t on_data(char* data, std::size_t size, std::size_t n, void* user) {
  auto& t = *static_cast<Transfer*>(user);
  const std::size_t bytes = size * n;
  t.received += bytes;
  t.too_long = t.received > t.file.bytes;
  if (t.too_long) return 0;
  if (std::fwrite(data, 1, bytes, t.out) != bytes) {
    t.write_error = errno;
    return 0;
  }
  if (t.progress) try {
      t.progress(static_cast<double>(t.received) / static_cast<double>(t.file.bytes), t.file.name);
    } catch (...) {
      t.stopped = std::current_exception();
      return 0;
    }
  return bytes;
}

void download(const DataSet& set, const DataFile& file, const fs::path& to, const ProgressFn& progress,
              const FetchOptions& options) {
  const bool loopback = is_loopback(file.url);
  const char* protocols = loopback ? "http" : file.url.starts_with("file://") ? "file" : "https";
  if (!file.url.starts_with(std::string(protocols) + "://"))
    throw DataError(of_set(set, file), "url", "https:// (http:// only on this machine's loopback)", file.url);

  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);  // once, and thread-safe as a local static
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(started == CURLE_OK ? curl_easy_init() : nullptr,
                                                    curl_easy_cleanup);
  if (!curl) throw Error("libcurl cannot start");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(to.c_str(), "wb"), std::fclose);
  if (!out) throw DataError(to.string(), "", "a file that can be written", std::strerror(errno));

  Transfer t{.out = out.get(), .file = file, .progress = progress, .stopped = {}};
  char detail[CURL_ERROR_SIZE] = "";
  CURL* c = curl.get();
  curl_easy_setopt(c, CURLOPT_URL, file.url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, protocols);
  curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, loopback ? "http" : "https");
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
  curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, options.connect_s);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 100L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, options.stall_s);
  curl_easy_setopt(c, CURLOPT_USERAGENT, "percept");
  if (loopback) curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &t);
  const CURLcode result = curl_easy_perform(c);

  if (t.stopped) std::rethrow_exception(t.stopped);
  if (t.too_long)
    throw DataError(of_set(set, file), "content", fmt::format("{} bytes with sha256 {}", file.bytes, file.sha256),
                    fmt::format("more bytes at {}", file.url));
  if (std::fflush(out.get()) != 0 && !t.write_error) t.write_error = errno;
  if (t.write_error) throw DataError(to.string(), "", "a file that can be written", std::strerror(t.write_error));
  if (result != CURLE_OK)
    throw Unavailable(
        fmt::format("{} cannot be downloaded from {} ({}): try again with a working network, or set "
                    "PERCEPT_DATA_MIRROR to a folder that holds {}",
                    of_set(set, file), file.url, *detail ? detail : curl_easy_strerror(result), file.mirror));
}

std::optional<fs::path> find_cache() {
  // the XDG rules ignore a relative path
  if (const fs::path xdg = environment("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "percept";
  if (const fs::path home = environment("HOME"); home.is_absolute()) return home / ".cache" / "percept";
  return std::nullopt;
}

fs::path below_cache(const fs::path& cache, const DataSet& set, const DataFile& file) {
  return cache / set.name / file.name;
}
}  // namespace

fs::path cache_folder() {
  if (auto cache = find_cache()) return *cache;
  throw Unavailable("there is no place for a cache: set XDG_CACHE_HOME or HOME to a folder, or PERCEPT_DATA_MIRROR");
}

std::optional<fs::path> locate(const DataSet& set, std::string_view name) {
  const DataFile& file = set.file(name);
  if (const std::string root = environment("PERCEPT_DATA_MIRROR"); !root.empty()) {
    const fs::path p = fs::path(root) / file.mirror;
    if (fs::exists(p)) {
      verify(p, file, p.string());
      return p;
    }
  }
  if (!file.installed.empty() && fs::exists(file.installed)) {
    verify(file.installed, file, file.installed);
    return file.installed;
  }
  const auto cache = find_cache();
  if (!cache) return std::nullopt;
  const fs::path p = below_cache(*cache, set, file);
  if (!fs::exists(p)) return std::nullopt;
  verify(p, file, p.string());
  return p;
}

fs::path fetch(const DataSet& set, std::string_view name, const ProgressFn& progress, const FetchOptions& options) {
  if (auto here = locate(set, name)) return *here;
  const DataFile& file = set.file(name);
  if (file.url.empty() && !set.package.empty())
    throw Unavailable(fmt::format(
        "{} is missing: install the Debian package {}, which puts it at {}, or set PERCEPT_DATA_MIRROR to a "
        "folder that holds {}",
        of_set(set, file), set.package, file.installed, file.mirror));
  if (file.url.empty())
    throw Unavailable(
        fmt::format("{} cannot be downloaded, because {} (source: {}): set PERCEPT_DATA_MIRROR to a "
                    "folder that holds {}",
                    of_set(set, file), set.conversion, set.source, file.mirror));
  fs::path place = below_cache(cache_folder(), set, file);
  AtomicPath part(place);
  download(set, file, part.path(), progress, options);
  verify(part.path(), file, fmt::format("{} from {}", of_set(set, file), file.url));
  part.commit();
  return place;
}

}  // namespace percept::data
