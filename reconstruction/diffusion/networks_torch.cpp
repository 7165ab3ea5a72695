#include "reconstruction/diffusion/networks_torch.h"

namespace percept::diffusion {
namespace {

class TorchDiffusionNetworks final : public DiffusionNetworks {
 public:
  TrainedWeights train(const UnetTask& task) override { return train_unet(task); }
  std::unique_ptr<UnetRunner> run(const UnetShape& shape, const std::map<std::string, Tensor>& arrays,
                                  int threads) override {
    return run_unet(shape, arrays, threads);
  }
  TrainedWeights train(const VaeTask& task) override { return train_vae(task); }
  std::unique_ptr<VaeRunner> run(const VaeShape& shape, const std::map<std::string, Tensor>& arrays,
                                 int threads) override {
    return run_vae(shape, arrays, threads);
  }
};

}  // namespace

DiffusionNetworks& torch_diffusion_networks() {
  static TorchDiffusionNetworks one;
  return one;
}

}  // namespace percept::diffusion
