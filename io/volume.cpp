#include "io/volume.h"

#ifdef __clang__
// ITK's list of what a compiler can do was generated for GCC alone, and refuses every other; clang can do all of it
#define ITK_COMPILER_DETECTION_H
#define ITK_ALIGNAS(X) alignas(X)
#define ITK_ALIGNOF(X) alignof(X)
#define ITK_CONSTEXPR constexpr
#define ITK_DELETED_FUNCTION = delete
#define ITK_DEPRECATED [[deprecated]]
#define ITK_DEPRECATED_MSG(MSG) [[deprecated(MSG)]]
#define ITK_EXTERN_TEMPLATE extern
#define ITK_FINAL final
#define ITK_NOEXCEPT noexcept
#define ITK_NOEXCEPT_EXPR(X) noexcept(X)
#define ITK_NULLPTR nullptr
#define ITK_OVERRIDE override
#define ITK_STATIC_ASSERT(X) static_assert(X, #X)
#define ITK_STATIC_ASSERT_MSG(X, MSG) static_assert(X, MSG)
#define ITK_THREAD_LOCAL thread_local
#endif

// clang-format off: ITK brings an older copy of Eigen, whose modules are skipped only where ours came first
#include <Eigen/Dense>
// clang-format on

#include <fmt/format.h>
#include <itkImage.h>
#include <itkImageFileWriter.h>
#include <itkNiftiImageIO.h>

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/files.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
/// ITK's world has x to the left and y to the back (LPS+), NIfTI's and ours to the right and the front (RAS+).
const Eigen::Vector4d kLpsToRas(-1, -1, 1, 1);

Eigen::Matrix4d ras_of(const itk::NiftiImageIO& image) {
  Eigen::Matrix4d lps = Eigen::Matrix4d::Identity();
  const unsigned axes = std::min(3U, image.GetNumberOfDimensions());
  for (unsigned c = 0; c < axes; ++c) {
    const auto direction = image.GetDirection(c);
    for (unsigned r = 0; r < axes; ++r) lps(r, c) = direction[r] * image.GetSpacing(c);
    lps(c, 3) = image.GetOrigin(c);
  }
  return kLpsToRas.asDiagonal() * lps;
}

/// The largest distance between the places of a corner, in the smallest voxel size of `expected`.
double farthest_corner(const std::array<Index, 3>& size, const Eigen::Matrix4d& found,
                       const Eigen::Matrix4d& expected) {
  double farthest = 0, smallest = HUGE_VAL;
  for (int c = 0; c < 3; ++c) smallest = std::min(smallest, expected.col(c).head<3>().norm());
  for (int corner = 0; corner < 8; ++corner) {
    Eigen::Vector4d at(0, 0, 0, 1);
    for (int a = 0; a < 3; ++a)
      if (corner >> a & 1) at[a] = static_cast<double>(size[static_cast<std::size_t>(a)] - 1);
    farthest = std::max(farthest, ((found - expected) * at).norm());
  }
  return farthest / smallest;
}
constexpr double kSamePlace = 0.01;  ///< voxels

void place(itk::ImageBase<3>& image, const Eigen::Matrix4d& affine, const std::string& file) {
  const Eigen::Matrix4d lps = kLpsToRas.asDiagonal() * affine;
  itk::ImageBase<3>::DirectionType direction;
  itk::ImageBase<3>::SpacingType spacing;
  itk::ImageBase<3>::PointType origin;
  const Eigen::Matrix3d m = lps.topLeftCorner<3, 3>();
  const Eigen::Vector3d size = m.colwise().norm();
  const Eigen::Matrix3d unit = m * size.cwiseInverse().asDiagonal();
  if (!((unit.transpose() * unit - Eigen::Matrix3d::Identity()).cwiseAbs().maxCoeff() < 1e-4))
    throw DataError(file, "affine", "axes at right angles", "shear");
  for (unsigned r = 0; r < 3; ++r) {
    for (unsigned c = 0; c < 3; ++c) direction(r, c) = unit(r, c);
    spacing[r] = size[r];
    origin[r] = lps(r, 3);
  }
  image.SetDirection(direction);
  image.SetSpacing(spacing);
  image.SetOrigin(origin);
}

std::string itk_sentence(const itk::ExceptionObject& e) {
  std::string text = e.GetDescription();
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

std::string grid_text(const Grid& g) {
  const auto& a = g.affine;
  return fmt::format("{} x {} x {} at ({:.4g}, {:.4g}, {:.4g}) mm, axes {}", g.size[0], g.size[1], g.size[2], a(0, 3),
                     a(1, 3), a(2, 3), orientation_of(a));
}
}  // namespace

void require_same_grid(const std::string& file, const Grid& found, const std::string& reference, const Grid& expected) {
  const double apart = farthest_corner(expected.size, found.affine, expected.affine);
  if (found.size != expected.size || !(apart < kSamePlace))
    throw DataError(file, "grid", fmt::format("{}, as {} has", grid_text(expected), reference),
                    found.size != expected.size
                        ? grid_text(found)
                        : fmt::format("{}, up to {:.3g} voxels apart", grid_text(found), apart));
}

Grid read_grid(const fs::path& file, const NiftiHeader& header) {
  Grid grid{header.grid(), header.affine(file.string())};
  if (header.version != 1) return grid;
  try {
    const auto io = itk::NiftiImageIO::New();  // itself, so that no factory offers the file to another of ITK's parsers
    io->SetFileName(file.string());
    io->ReadImageInformation();
    for (unsigned a = 0; a < std::min<unsigned>(3, io->GetNumberOfDimensions()); ++a)
      if (static_cast<Index>(io->GetDimensions(a)) != grid.size[a])
        throw DataError(file.string(), fmt::format("dim[{}]", a + 1),
                        fmt::format("{}, as the header says", grid.size[a]),
                        fmt::format("{} through ITK", io->GetDimensions(a)));
    const Eigen::Matrix4d affine = ras_of(*io);
    if (header.has_space() && farthest_corner(grid.size, affine, grid.affine) < kSamePlace) grid.affine = affine;
  } catch (const itk::ExceptionObject&) {
    // shear: ITK has no place for it
  }
  return grid;
}

Volume read_volume(const fs::path& file) {
  const NiftiHeader header = read_nifti_header(file);
  if (header.volumes() != 1)
    throw DataError(file.string(), "shape", "one volume", fmt::format("{} volumes", header.volumes()));
  check_nifti_length(file, header);
  Volume v{read_grid(file, header), Eigen::VectorXd(header.voxels())};
  std::vector<std::int64_t> all(static_cast<std::size_t>(header.voxels()));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  open_nifti_voxels(file, header, std::move(all), true)
      ->read(0, MutableFrames(v.values.data(), Scalar::f64, v.values.size(), 1, v.values.size()));
  return v;
}

void write_volume(const fs::path& file, const Volume& volume) {
  const std::string name = file.filename().string();
  if (!name.ends_with(".nii") && !name.ends_with(".nii.gz"))
    throw DataError(file.string(), "extension", ".nii or .nii.gz", file.extension().string());
  if (volume.values.size() != volume.grid.voxels())
    throw DataError(file.string(), "values", fmt::format("{}, one a voxel", volume.grid.voxels()),
                    fmt::format("{}", volume.values.size()));
  using Written = itk::Image<float, 3>;
  auto image = Written::New();
  Written::SizeType size;
  for (unsigned a = 0; a < 3; ++a) size[a] = static_cast<itk::SizeValueType>(volume.grid.size[a]);
  image->SetRegions(Written::RegionType(size));
  image->Allocate();
  place(*image, volume.grid.affine, file.string());
  Eigen::Map<Eigen::VectorXf>(image->GetBufferPointer(), volume.values.size()) = volume.values.cast<float>();
  // ITK decides by the name whether it packs: the file is made in a folder of its own, then put into place
  const AtomicPath work(file.string() + ".work");
  fs::create_directories(work.path());
  const fs::path written = work.path() / (name.ends_with(".gz") ? "v.nii.gz" : "v.nii");
  try {
    auto writer = itk::ImageFileWriter<Written>::New();
    writer->SetImageIO(itk::NiftiImageIO::New());
    writer->SetFileName(written.string());
    writer->SetInput(image);
    writer->Update();
  } catch (const itk::ExceptionObject& e) {
    throw DataError(file.string(), "", "a file that can be written", itk_sentence(e));
  }
  AtomicPath target(file);
  fs::rename(written, target.path());
  target.commit();
}

}  // namespace percept::io
