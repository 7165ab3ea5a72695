#include "reconstruction/diffusion/layers_torch.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <utility>
#include <vector>

#include "reconstruction/diffusion/kernels.h"

namespace percept::diffusion {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kBeside = at::MemoryFormat::ChannelsLast;

/// A view with the array's shape of numbers in the order of Weights: convolutions have their inputs fastest.
at::Tensor view_of(float* values, const WeightArray& a) {
  if (a.shape.size() != 4) return at::from_blob(values, a.shape, at::kFloat);
  const std::int64_t in = a.shape[1], h = a.shape[2], w = a.shape[3];
  return at::from_blob(values, {a.shape[0], in, h, w}, {h * w * in, 1, w * in, in}, at::kFloat);
}

/// Of the kernels: x, y images; gain and offset entries x channels, where one entry may stand for all images.
kernels::Field field_of(const at::Tensor& x) { return {x.size(2) * x.size(3), x.size(1), kGroups}; }

at::Tensor norm_values(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& offset, bool silu,
                       at::Tensor& moments) {
  const kernels::Field field = field_of(x);
  const std::int64_t images = x.size(0), size = field.pixels * field.channels;
  at::Tensor y = at::empty_like(x);
  moments = at::empty({images, 2 * field.groups}, at::kFloat);
  const float *from = x.data_ptr<float>(), *g = gain.data_ptr<float>(), *o = offset.data_ptr<float>();
  float *to = y.data_ptr<float>(), *m = moments.data_ptr<float>();
  const std::int64_t g_step = gain.size(0) > 1 ? gain.stride(0) : 0, o_step = offset.size(0) > 1 ? offset.stride(0) : 0;
  at::parallel_for(0, images, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n)
      kernels::norm(from + n * size, g + n * g_step, o + n * o_step, field, silu, m + n * 2 * field.groups,
                    to + n * size);
  });
  return y;
}

struct Norm : torch::autograd::Function<Norm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gain,
                            const at::Tensor& offset, bool silu) {
    at::Tensor moments;
    at::Tensor y = norm_values(x, gain, offset, silu, moments);
    context->save_for_backward({x, gain, offset, moments});
    context->saved_data["silu"] = silu;
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list d) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gain = saved[1], &offset = saved[2], d_y = d[0].contiguous(kBeside);
    const bool silu = context->saved_data["silu"].toBool();
    const kernels::Field field = field_of(x);
    const std::int64_t images = x.size(0), c = field.channels, size = field.pixels * c;
    at::Tensor d_x = at::empty_like(x), d_gain = at::empty({images, c}, at::kFloat), d_offset = at::empty_like(d_gain);
    const float *in = x.data_ptr<float>(), *g = gain.data_ptr<float>(), *o = offset.data_ptr<float>(),
                *m = saved[3].data_ptr<float>(), *from = d_y.data_ptr<float>();
    float *to = d_x.data_ptr<float>(), *to_g = d_gain.data_ptr<float>(), *to_o = d_offset.data_ptr<float>();
    const std::int64_t g_step = gain.size(0) > 1 ? gain.stride(0) : 0,
                       o_step = offset.size(0) > 1 ? offset.stride(0) : 0;
    at::parallel_for(0, images, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n)
        kernels::norm_gradient(in + n * size, g + n * g_step, o + n * o_step, field, silu, m + n * 2 * field.groups,
                               from + n * size, to + n * size, to_g + n * c, to_o + n * c);
    });
    if (g_step == 0) d_gain = d_gain.sum(0, true);
    if (o_step == 0) d_offset = d_offset.sum(0, true);
    return {d_x, d_gain, d_offset, at::Tensor()};
  }
};

/// Heads of equal size, about 32 channels each.
std::int64_t heads_of(std::int64_t channels) {
  std::int64_t heads = (channels + 31) / 32;
  while (channels % heads != 0) ++heads;
  return heads;
}

/// x: images of queries, keys and values beside each other.
at::Tensor attend_values(const at::Tensor& x, at::Tensor& weights) {
  const std::int64_t images = x.size(0), c = x.size(1) / 3, pixels = x.size(2) * x.size(3), heads = heads_of(c),
                     size = c / heads;
  at::Tensor y = at::empty({images, c, x.size(2), x.size(3)}, x.options().memory_format(kBeside));
  weights = at::empty({images, heads, pixels, kernels::padded(pixels)}, at::kFloat);
  const float* from = x.data_ptr<float>();
  float *to = y.data_ptr<float>(), *w = weights.data_ptr<float>();
  at::parallel_for(0, images, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> work(static_cast<std::size_t>(size * kernels::padded(pixels)));
    for (std::int64_t n = begin; n < end; ++n)
      for (std::int64_t h = 0; h < heads; ++h) {
        const float* q = from + n * 3 * c * pixels + h * size;
        kernels::attend(q, q + c, q + 2 * c, pixels, size, 3 * c, to + n * c * pixels + h * size, c,
                        w + (n * heads + h) * pixels * kernels::padded(pixels), work.data());
      }
  });
  return y;
}

struct Attend : torch::autograd::Function<Attend> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    at::Tensor weights;
    at::Tensor y = attend_values(x, weights);
    context->save_for_backward({x, weights});
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list d) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], d_y = d[0].contiguous(kBeside);
    const std::int64_t images = x.size(0), c = x.size(1) / 3, pixels = x.size(2) * x.size(3), heads = heads_of(c),
                       size = c / heads;
    at::Tensor d_x = at::empty_like(x);
    const float *in = x.data_ptr<float>(), *w = saved[1].data_ptr<float>(), *from = d_y.data_ptr<float>();
    float* to = d_x.data_ptr<float>();
    at::parallel_for(0, images, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> work(static_cast<std::size_t>((size + pixels) * kernels::padded(pixels)));
      for (std::int64_t n = begin; n < end; ++n)
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t at = n * 3 * c * pixels + h * size;
          kernels::attend_gradient(in + at, in + at + c, in + at + 2 * c, pixels, size, 3 * c,
                                   from + n * c * pixels + h * size, c,
                                   w + (n * heads + h) * pixels * kernels::padded(pixels), to + at, to + at + c,
                                   to + at + 2 * c, work.data());
        }
    });
    return {d_x};
  }
};

}  // namespace

struct Weights::Views {
  std::vector<at::Tensor> all;  ///< one an array
  std::map<std::string, std::size_t, std::less<>> index;
};

Weights::Weights(WeightList list) : list_(std::move(list)), views_(std::make_unique<Views>()) {
  for (std::size_t i = 0; i < list_.arrays().size(); ++i) views_->index[list_.arrays()[i].name] = i;
}
Weights::~Weights() = default;

void Weights::bind(float* values, float* gradient) {
  views_->all.clear();
  for (const WeightArray& a : list_.arrays()) {
    at::Tensor view = view_of(values, a);
    if (gradient) {
      view.set_requires_grad(true);
      view.mutable_grad() = view_of(gradient, a);
      gradient += a.size();
    }
    views_->all.push_back(view);
    values += a.size();
  }
}

const at::Tensor& Weights::operator[](const std::string& name) const { return views_->all[views_->index.at(name)]; }

void Weights::start(at::Generator& random) {
  const at::NoGradGuard no_gradient;
  for (std::size_t i = 0; i < views_->all.size(); ++i) {
    const WeightArray& a = list_.arrays()[i];
    if (a.bound > 0) views_->all[i].uniform_(-a.bound, a.bound, random);
    else views_->all[i].fill_(a.start);
  }
}

void Weights::load(const std::map<std::string, Tensor>& arrays) {
  const at::NoGradGuard no_gradient;
  for (std::size_t i = 0; i < views_->all.size(); ++i) {
    const WeightArray& a = list_.arrays()[i];
    // LibTorch only reads them
    auto* from = const_cast<std::byte*>(arrays.at(a.name).data.data());
    views_->all[i].copy_(at::from_blob(from, a.shape, at::kFloat));
  }
}

std::map<std::string, Tensor> Weights::save() const {
  std::map<std::string, Tensor> all;
  for (std::size_t i = 0; i < views_->all.size(); ++i) {
    const WeightArray& a = list_.arrays()[i];
    const at::Tensor values = views_->all[i].detach().contiguous();
    Tensor& t = all[a.name];
    t.type = Tensor::Type::f32;
    t.shape.assign(a.shape.begin(), a.shape.end());
    t.data.resize(static_cast<std::size_t>(values.numel()) * sizeof(float));
    std::memcpy(t.data.data(), values.data_ptr<float>(), t.data.size());
  }
  return all;
}

at::Tensor layers::beside(const at::Tensor& x) { return x.contiguous(kBeside); }

at::Tensor layers::convolve(const Weights& weights, const std::string& name, const at::Tensor& x, std::int64_t stride) {
  const at::Tensor& w = weights[name + ".weights"];
  const std::int64_t margin = w.size(2) / 2;
  // at::conv2d would take a slower way for single images
  return at::mkldnn_convolution(x, w, weights[name + ".bias"], {margin, margin}, {stride, stride}, {1, 1}, 1);
}

at::Tensor layers::linear(const Weights& weights, const std::string& name, const at::Tensor& x) {
  return at::linear(x, weights[name + ".weights"], weights[name + ".bias"]);
}

at::Tensor layers::normalise(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& offset, bool silu) {
  if (at::GradMode::is_enabled() && (x.requires_grad() || gain.requires_grad()))
    return Norm::apply(x, gain, offset, silu);
  at::Tensor moments;
  return norm_values(x, gain, offset, silu, moments);
}

at::Tensor layers::normalise(const Weights& weights, const std::string& name, const at::Tensor& x, bool silu) {
  return normalise(x, weights[name + ".gain"].unsqueeze(0), weights[name + ".offset"].unsqueeze(0), silu);
}

at::Tensor layers::attend(const Weights& weights, const std::string& name, const at::Tensor& x) {
  const at::Tensor in = convolve(weights, name + ".in", normalise(weights, name + ".norm", x, false));
  at::Tensor unused;
  const at::Tensor out =
      at::GradMode::is_enabled() && in.requires_grad() ? Attend::apply(in) : attend_values(in, unused);
  return convolve(weights, name + ".out", out).add_(x);
}

at::Tensor layers::drop(const at::Tensor& x, double share, at::Generator* random) {
  if (share <= 0) return x;
  return x * at::empty_like(x).bernoulli_(1 - share, *random).div_(1 - share);
}

}  // namespace percept::diffusion
