#include <span>

#include "core/model.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  using namespace percept;
  std::map<std::string, Tensor> tensors;
  tensors["a"] = {Tensor::Type::f64, {2, 2}, std::vector<std::byte>(32)};
  tensors["b"] = {Tensor::Type::f32, {}, std::vector<std::byte>(4)};
  tensors["c"] = {Tensor::Type::i64, {3}, std::vector<std::byte>(24)};
  return {format_safetensors(tensors), format_safetensors({})};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  fuzz::try_reading([&] {
    const auto tensors = parse_safetensors(std::as_bytes(std::span(data, bytes)), "fuzz");
    for (const auto& [name, t] : tensors)
      if (t.data.size() != t.elements() * t.element_bytes()) std::abort();
    const std::string again = format_safetensors(tensors);
    const auto back = parse_safetensors(std::as_bytes(std::span(again.data(), again.size())), "again");
    if (back.size() != tensors.size()) std::abort();
  });
  return 0;
}
