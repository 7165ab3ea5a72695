/// NIfTI files made byte by byte, without the code under test.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace percept::io_test {

struct NiftiBytes {
  int version = 1;
  bool big_endian = false;
  std::vector<std::int64_t> shape{2, 3, 2, 4};
  int datatype = 4, bitpix = 16;
  double slope = 0, intercept = 0;
  std::vector<double> pixdim{1, 2, 3, 4, 2.5};
  int units = 10;  // mm and s
  int qform_code = 0, sform_code = 1;
  std::vector<double> quaternion{0, 0, 0}, offset{0, 0, 0};
  std::vector<double> sform{2, 0, 0, -10, 0, 3, 0, -20, 0, 0, 4, -30};
  double vox_offset = 0;  // 0: behind the header and the extension
  std::string extension;  // code 32
  int slice_code = 0, dim_info = 0, intent = 0;
  double slice_duration = 0;
  const char* magic = nullptr;  // nullptr: the right one
  std::string data;             // as it lies in the file

  template <class T>
  NiftiBytes& samples(const std::vector<T>& values) {
    data.clear();
    for (const T v : values) append(data, v);
    return *this;
  }
  template <class T>
  void append(std::string& to, T v) const {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &v, sizeof(T));
    if (big_endian) std::reverse(bytes, bytes + sizeof(T));
    to.append(bytes, sizeof(T));
  }
  template <class T>
  void put(std::string& h, std::size_t at, T v) const {
    std::string bytes;
    append(bytes, v);
    h.replace(at, bytes.size(), bytes);
  }

  std::string bytes() const {
    const bool one = version == 1;
    std::string h(one ? 352 : 544, '\0');
    std::string ext;
    if (!extension.empty()) {
      h[one ? 348 : 540] = 1;
      const auto size = static_cast<std::int32_t>((8 + extension.size() + 15) / 16 * 16);
      append(ext, size);
      append(ext, std::int32_t{32});
      ext += extension;
      ext.resize(static_cast<std::size_t>(size), '\0');
    }
    const double offset_bytes = vox_offset > 0 ? vox_offset : static_cast<double>(h.size() + ext.size());
    std::vector<std::int64_t> dim(8, 1);
    dim[0] = static_cast<std::int64_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dim.begin() + 1);
    std::vector<double> pix = pixdim;
    pix.resize(8);
    if (one) {
      put(h, 0, std::int32_t{348});
      h[39] = static_cast<char>(dim_info);
      put(h, 68, static_cast<std::int16_t>(intent));
      put(h, 70, static_cast<std::int16_t>(datatype));
      put(h, 72, static_cast<std::int16_t>(bitpix));
      for (std::size_t i = 0; i < 8; ++i) {
        put(h, 40 + 2 * i, static_cast<std::int16_t>(dim[i]));
        put(h, 76 + 4 * i, static_cast<float>(pix[i]));
      }
      put(h, 108, static_cast<float>(offset_bytes));
      put(h, 112, static_cast<float>(slope));
      put(h, 116, static_cast<float>(intercept));
      h[122] = static_cast<char>(slice_code);
      h[123] = static_cast<char>(units);
      put(h, 132, static_cast<float>(slice_duration));
      put(h, 252, static_cast<std::int16_t>(qform_code));
      put(h, 254, static_cast<std::int16_t>(sform_code));
      for (std::size_t i = 0; i < 3; ++i) {
        put(h, 256 + 4 * i, static_cast<float>(quaternion[i]));
        put(h, 268 + 4 * i, static_cast<float>(offset[i]));
      }
      for (std::size_t i = 0; i < 12; ++i) put(h, 280 + 4 * i, static_cast<float>(sform[i]));
      h.replace(344, 4, std::string(magic ? magic : "n+1", 3) + '\0');
    } else {
      put(h, 0, std::int32_t{540});
      h.replace(4, 8, std::string(magic ? magic : "n+2", 3) + std::string("\0\r\n\032\n", 5));
      put(h, 12, static_cast<std::int16_t>(datatype));
      put(h, 14, static_cast<std::int16_t>(bitpix));
      for (std::size_t i = 0; i < 8; ++i) {
        put(h, 16 + 8 * i, dim[i]);
        put(h, 104 + 8 * i, pix[i]);
      }
      put(h, 168, static_cast<std::int64_t>(offset_bytes));
      put(h, 176, slope);
      put(h, 184, intercept);
      put(h, 208, slice_duration);
      put(h, 344, static_cast<std::int32_t>(qform_code));
      put(h, 348, static_cast<std::int32_t>(sform_code));
      for (std::size_t i = 0; i < 3; ++i) {
        put(h, 352 + 8 * i, quaternion[i]);
        put(h, 376 + 8 * i, offset[i]);
      }
      for (std::size_t i = 0; i < 12; ++i) put(h, 400 + 8 * i, sform[i]);
      put(h, 496, static_cast<std::int32_t>(slice_code));
      put(h, 500, static_cast<std::int32_t>(units));
      put(h, 504, static_cast<std::int32_t>(intent));
      h[524] = static_cast<char>(dim_info);
    }
    std::string file = h + ext;
    if (static_cast<double>(file.size()) < offset_bytes && offset_bytes < 1e6)
      file.resize(static_cast<std::size_t>(offset_bytes), '\0');
    return file + data;
  }
};

inline std::string gzip(const std::string& content, int level = 6) {
  z_stream z{};
  deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&z, content.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  z.avail_in = static_cast<uInt>(content.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  deflate(&z, Z_FINISH);
  packed.resize(z.total_out);
  deflateEnd(&z);
  return packed;
}

/// 0, 1, 2, ... as i16.
inline std::vector<std::int16_t> counted(std::size_t n) {
  std::vector<std::int16_t> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<std::int16_t>(i);
  return v;
}

}  // namespace percept::io_test
