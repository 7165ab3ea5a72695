/// GIFTI files written without the code under test.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace percept::io_test {

inline std::string base64(const std::string& bytes) {
  static constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    unsigned word = 0;
    for (std::size_t b = 0; b < 3; ++b) word = word << 8 | (b < n ? static_cast<unsigned char>(bytes[i + b]) : 0U);
    for (std::size_t d = 0; d < 4; ++d) text += d <= n ? kDigits[word >> (18 - 6 * d) & 63] : '=';
  }
  return text;
}

inline std::string zlib_packed(const std::string& bytes) {
  uLongf n = compressBound(bytes.size());
  std::string packed(n, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &n, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  packed.resize(n);
  return packed;
}

template <class T>
std::string bytes_of_numbers(const std::vector<T>& values, bool big_endian = false) {
  std::string all;
  for (const T v : values) {
    char b[sizeof(T)];
    std::memcpy(b, &v, sizeof(T));
    if (big_endian) std::reverse(b, b + sizeof(T));
    all.append(b, sizeof(T));
  }
  return all;
}

struct GiftiText {
  std::string intent = "TIME_SERIES", type = "FLOAT32", order = "RowMajorOrder", encoding = "GZipBase64Binary",
              endian = "LittleEndian";
  std::vector<long> shape;
  std::string meta;  ///< as <MD><Name>..</Name><Value>..</Value></MD>
  std::string data;

  std::string xml() const {
    std::string x = "<DataArray Intent=\"NIFTI_INTENT_" + intent + "\" DataType=\"NIFTI_TYPE_" + type +
                    "\" ArrayIndexingOrder=\"" + order + "\" Dimensionality=\"" + std::to_string(shape.size()) +
                    "\" Encoding=\"" + encoding + "\" Endian=\"" + endian + "\"";
    for (std::size_t i = 0; i < shape.size(); ++i)
      x += " Dim" + std::to_string(i) + "=\"" + std::to_string(shape[i]) + "\"";
    return x + "><MetaData>" + meta + "</MetaData><Data>" + data + "</Data></DataArray>\n";
  }
};

inline std::string gifti(const std::vector<GiftiText>& arrays, const std::string& meta = "") {
  std::string x =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE GIFTI SYSTEM \"http://example.org/gifti.dtd\">\n"
      "<GIFTI Version=\"1.0\" NumberOfDataArrays=\"" +
      std::to_string(arrays.size()) + "\"><MetaData>" + meta + "</MetaData>\n";
  for (auto& a : arrays) x += a.xml();
  return x + "</GIFTI>\n";
}

/// Two triangles between four points.
inline std::vector<GiftiText> square() {
  GiftiText points, faces;
  points.intent = "POINTSET";
  points.shape = {4, 3};
  points.data = base64(zlib_packed(bytes_of_numbers(std::vector<float>{0, 0, 0, 2, 0, 0, 2, 2, 0, 0, 2, -1})));
  points.meta = "<MD><Name>AnatomicalStructurePrimary</Name><Value>CortexRight</Value></MD>";
  faces.intent = "TRIANGLE";
  faces.type = "INT32";
  faces.shape = {2, 3};
  faces.encoding = "ASCII";
  faces.data = "0 1 2\n0 2 3";
  return {points, faces};
}

}  // namespace percept::io_test
