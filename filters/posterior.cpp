#include "filters/posterior.h"

#include <fmt/format.h>

namespace percept {

PosteriorEdge::PosteriorEdge(const StreamFormat& in, const Model& model, Index states, const char* such_as,
                             const Context& context) {
  const Part *mean = in.find_part("mean"), *covariance = in.find_part("covariance");
  require(mean && covariance && mean->size() == states && covariance->size() == states * states, context, "from",
          in.describe(),
          fmt::format("an edge with the parts \"mean\" {{{}}} and \"covariance\" {{{}, {}}}, such as {} gives", states,
                      states, states, such_as));
  mean_at_ = in.part_offset("mean");
  covariance_at_ = in.part_offset("covariance");
  StreamFormat f = in;
  f.parts = {*mean};
  order_ = row_order(names_of(model.meta, "output_rows"), named_rows(f), context);
}

}  // namespace percept
