/// Images: priors and classifiers are trained on them.
#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "data/loader.h"
#include "io/hdf5.h"
#include "io/idx.h"

namespace percept::data {

namespace {

/// Several sources one behind the other.
class Chain final : public SampleSource {
 public:
  explicit Chain(std::vector<std::shared_ptr<const SampleSource>> parts) : parts_(std::move(parts)) {}
  std::int64_t frames() const override {
    std::int64_t n = 0;
    for (auto& p : parts_) n += p->frames();
    return n;
  }
  void read(std::int64_t first, MutableFrames out) const override {
    Index done = 0;
    for (auto& p : parts_) {
      const Index n = std::min<Index>(out.frames - done, p->frames() - first);
      if (n > 0) {
        p->read(first, out.slice(done, n));
        done += n;
        first += n;
      }
      first -= p->frames();
    }
    if (done < out.frames)
      throw DataError("images", "frames", fmt::format("a range inside [0, {})", frames()),
                      fmt::format("{} more", out.frames - done));
  }

 private:
  std::vector<std::shared_ptr<const SampleSource>> parts_;
};

std::vector<double> all_values(const SampleSource& source) {
  std::vector<double> v(static_cast<std::size_t>(source.frames()));
  source.read(0, MutableFrames(v.data(), Scalar::f64, 1, static_cast<Index>(v.size()), 1));
  return v;
}

/// What every set of labelled images gives: streams "image" and "label", table "item".
void add_images(const Files& files, Stream image, const std::vector<double>& label,
                const std::vector<std::string>& names, std::vector<std::string> split, Recording& r) {
  if (image.frames() != static_cast<std::int64_t>(label.size()))
    throw DataError(files.set.name, "labels", fmt::format("{}, one an image", image.frames()),
                    fmt::format("{}", label.size()));
  std::vector<std::string> words;
  for (const double l : label) {
    if (!(l >= 0 && l < static_cast<double>(names.size())) || l != std::floor(l))
      throw DataError(files.set.name, "labels", fmt::format("whole numbers from 0 to {}", names.size() - 1),
                      fmt::format("{}", l));
    words.push_back(names[static_cast<std::size_t>(l)]);
  }
  Table item{"item", {numbers("label", label), texts("name", std::move(words))}};
  if (!split.empty()) item.columns.push_back(texts("split", std::move(split)));
  r.streams.push_back(std::move(image));
  r.streams.push_back(categories("label", label, names));
  r.tables.push_back(std::move(item));
}

/// The bytes 0..255 of IDX files as 0..1; `pieces`: "train", "t10k".
void load_idx(const Files& files, const std::vector<std::string>& pieces, const std::vector<std::string>& names,
              Recording& r) {
  std::vector<std::shared_ptr<const SampleSource>> images;
  std::vector<double> label;
  std::vector<std::string> split;
  for (auto& piece : pieces) {
    const auto path = files(piece + "-images-idx3-ubyte.gz");
    if (const auto info = io::read_idx_info(path); info.frame_shape() != std::vector<Index>{28, 28})
      throw DataError(path.string(), "shape", "images of 28 x 28", fmt::format("{} axes", info.shape.size()));
    images.push_back(io::open_idx(path, 1.0 / 255));
    const auto more = all_values(*io::open_idx(files(piece + "-labels-idx1-ubyte.gz")));
    label.insert(label.end(), more.begin(), more.end());
    if (pieces.size() > 1) split.resize(label.size(), piece == "train" ? "train" : "test");
  }
  add_images(files, items("image", {28, 28}, std::make_shared<Chain>(std::move(images)), Scalar::f32), label, names,
             std::move(split), r);
}

const std::vector<std::string> kDigitNames{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};

void load_mnist_t10k(const Files& files, const NoParams&, Recording& r) { load_idx(files, {"t10k"}, kDigitNames, r); }

void load_notmnist(const Files& files, const NoParams&, Recording& r) {
  load_idx(files, {"t10k"}, {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J"}, r);
}

void load_fashion_mnist(const Files& files, const NoParams&, Recording& r) {
  load_idx(files, {"train", "t10k"},
           {"t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"}, r);
}

void load_usps(const Files& files, const NoParams&, Recording& r) {
  const auto path = files("usps.h5");
  std::vector<std::shared_ptr<const SampleSource>> images;
  std::vector<double> label;
  std::vector<std::string> split;
  for (const std::string piece : {"train", "test"}) {
    images.push_back(io::open_hdf5(path, "/" + piece + "/data"));
    const auto more = all_values(*io::open_hdf5(path, "/" + piece + "/target"));
    label.insert(label.end(), more.begin(), more.end());
    split.resize(label.size(), piece);
  }
  add_images(files, items("image", {16, 16}, std::make_shared<Chain>(std::move(images)), Scalar::f32), label,
             kDigitNames, std::move(split), r);
}

}  // namespace

std::vector<Loader> image_loaders() {
  return {loader("mnist_t10k", load_mnist_t10k), loader("usps", load_usps), loader("notmnist", load_notmnist),
          loader("fashion_mnist", load_fashion_mnist)};
}

}  // namespace percept::data
