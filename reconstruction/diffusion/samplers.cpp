#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {

SamplerInfo sampler_euler();
SamplerInfo sampler_heun();
SamplerInfo sampler_gradient_estimation();
SamplerInfo sampler_ddim();
SamplerInfo sampler_ddnm();
SamplerInfo sampler_diffpir();
SamplerInfo sampler_dps();
SamplerInfo sampler_daps();
SamplerInfo sampler_enkg();
SamplerInfo sampler_pcn();

const std::vector<SamplerInfo>& samplers() {
  static const std::vector<SamplerInfo> all = {sampler_euler(), sampler_heun(), sampler_gradient_estimation(),
                                               sampler_ddim(),  sampler_ddnm(), sampler_diffpir(),
                                               sampler_dps(),   sampler_daps(), sampler_enkg(),
                                               sampler_pcn()};
  return all;
}

}  // namespace percept::diffusion
