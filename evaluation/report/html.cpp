#include "evaluation/report/html.h"

#include <openssl/evp.h>

namespace percept::evaluation {

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  return out;
}

std::string script_json(const Value& v) {
  std::string out;
  for (char c : to_json(v)) {
    if (c == '<') out += "\\u003c";
    else if (c == '>') out += "\\u003e";
    else if (c == '&') out += "\\u0026";
    else out += c;
  }
  return out;
}

std::string base64(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');  // it ends its text with a zero
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

std::string fill(std::string_view text, const std::vector<std::pair<std::string_view, std::string_view>>& values) {
  std::string out;
  for (std::size_t at = 0;;) {
    const auto open = text.find("{{", at), close = text.find("}}", at);
    if (open == std::string_view::npos || close == std::string_view::npos) return out.append(text.substr(at));
    out.append(text.substr(at, open - at));
    const auto name = text.substr(open + 2, close - open - 2);
    for (auto& [key, value] : values)
      if (key == name) out.append(value);
    at = close + 2;
  }
}

const Value& child(const Value& v, std::string_view key) {
  static const Value nothing;
  const Value* found = v.find(key);
  return found ? *found : nothing;
}
const Value::Array& list(const Value& v, std::string_view key) {
  static const Value::Array none;
  const Value& found = child(v, key);
  return found.is_null() ? none : found.as_array();
}

}  // namespace percept::evaluation
