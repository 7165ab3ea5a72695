/// What the files of the LibTorch module here give each other. Internal to it.
#pragma once

#include "reconstruction/diffusion/networks.h"

namespace percept::diffusion {

TrainedWeights train_unet(const UnetTask& task);
std::unique_ptr<UnetRunner> run_unet(const UnetShape& shape, const std::map<std::string, Tensor>& arrays, int threads);
TrainedWeights train_vae(const VaeTask& task);
std::unique_ptr<VaeRunner> run_vae(const VaeShape& shape, const std::map<std::string, Tensor>& arrays, int threads);

}  // namespace percept::diffusion
