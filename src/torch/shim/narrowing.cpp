// Changes nodes of autograd's graph in place: hooks stay, and so does what others know of a node.
#include "narrowing.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>

#include "forgetting.h"

namespace medcam {

namespace generated = torch::autograd::generated;
using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

namespace {

// Passes on the channels of the gradient that belong to the groups whose inputs need one.
class NarrowGradient : public torch::autograd::FunctionPreHook {
 public:
  NarrowGradient(int64_t first, int64_t count) : first_(first), count_(count) {}
  variable_list operator()(const variable_list& gradients) override {
    variable_list narrowed = gradients;
    if (narrowed[0].defined()) narrowed[0] = narrowed[0].narrow(1, first_, count_);
    return narrowed;
  }

 private:
  int64_t first_;
  int64_t count_;
};

template <typename Backward, typename... Members>
bool keeps(Node* node, std::vector<SavedVariable*>& kept, Members... members) {
  auto* backward = dynamic_cast<Backward*>(node);
  if (backward) kept = {&(backward->*members)...};
  return backward;
}

std::vector<int64_t> sizes_of(const Node& node) {
  return C10_AS_INTARRAYREF_SLOW(node.input_metadata(0).shape_as_dim_vector()).vec();
}

// Whether a step acts on each channel (axis 1) alone; then `kept` is what it saved, whole tensors and vectors of
// a number for each channel.
bool is_by_channel(Node* node, std::vector<SavedVariable*>& kept) {
  using namespace torch::autograd::generated;
  if (auto* view = dynamic_cast<ViewBackward0*>(node)) {
    // Around the batch norm of an instance norm, with a batch of one.
    kept.clear();
    return C10_AS_INTARRAYREF_SLOW(view->self_sym_sizes) == sizes_of(*view);
  }
  using Norm = NativeBatchNormBackward0;
  return keeps<CloneBackward0>(node, kept) ||
         keeps<Norm>(node, kept, &Norm::input_, &Norm::weight_, &Norm::running_mean_,
                     &Norm::running_var_, &Norm::result1_, &Norm::result2_) ||
         keeps<ReluBackward0>(node, kept, &ReluBackward0::result_) ||
         keeps<LeakyReluBackward0>(node, kept, &LeakyReluBackward0::self_) ||
         keeps<LeakyReluBackward1>(node, kept, &LeakyReluBackward1::result_) ||
         keeps<ThresholdBackward0>(node, kept, &ThresholdBackward0::self_) ||
         keeps<HardtanhBackward0>(node, kept, &HardtanhBackward0::self_) ||
         keeps<EluBackward0>(node, kept, &EluBackward0::self_) ||
         keeps<EluBackward1>(node, kept, &EluBackward1::result_) ||
         keeps<SiluBackward0>(node, kept, &SiluBackward0::self_) ||
         keeps<GeluBackward0>(node, kept, &GeluBackward0::self_);
}

// Some channels of a concatenation, and where their gradient goes: nowhere if the edge is not valid.
struct Part {
  Edge edge;
  int64_t channels;
};

struct Range {
  int64_t first;
  int64_t end;
};

// The channels whose gradient is needed.
std::vector<Range> needed(const std::vector<Part>& parts) {
  std::vector<Range> ranges;
  int64_t first = 0;
  for (const Part& part : parts) {
    const int64_t end = first + part.channels;
    if (part.edge.is_valid() && part.channels > 0) {
      if (!ranges.empty() && ranges.back().end == first) {
        ranges.back().end = end;
      } else {
        ranges.push_back({first, end});
      }
    }
    first = end;
  }
  return ranges;
}

// What of the parts is in the ranges, which cut none that needs a gradient.
std::vector<Part> parts_in(const std::vector<Part>& parts, const std::vector<Range>& ranges) {
  std::vector<Part> inside;
  int64_t first = 0;
  for (const Part& part : parts) {
    const int64_t end = first + part.channels;
    for (const Range& range : ranges) {
      const int64_t channels = std::min(end, range.end) - std::max(first, range.first);
      if (channels > 0) inside.push_back({part.edge, channels});
    }
    first = end;
  }
  return inside;
}

at::Tensor pick(const at::Tensor& whole, int64_t axis, const std::vector<Range>& ranges) {
  std::vector<at::Tensor> slices;
  for (const Range& range : ranges) {
    slices.push_back(whole.narrow(axis, range.first, range.end - range.first));
  }
  return slices.size() == 1 ? slices[0] : at::cat(slices, axis);
}

class Narrowing {
 public:
  Narrowing(const Edge& root, const std::vector<Edge>& ends) : ends_(ends) {
    if (!root.function) return;
    nodes_.push_back(root.function.get());
    ++readers_[root.function.get()];
    for (size_t i = 0; i < nodes_.size(); ++i) {
      for (const Edge& next : nodes_[i]->next_edges()) {
        if (next.is_valid() && ++readers_[next.function.get()] == 1) {
          nodes_.push_back(next.function.get());
        }
      }
    }
  }

  size_t run() {
    size_t narrowed = 0;
    // As narrowing drops nodes, those that follow must be still there: they are held.
    std::vector<std::shared_ptr<Node>> held;
    for (Node* node : nodes_) held.push_back(node->getptr());
    for (Node* node : nodes_) {
      forget_input(node);
      auto convolution = as_convolution(node);
      if (convolution && narrow(*convolution)) ++narrowed;
    }
    return narrowed;
  }

 private:
  // Whether somebody wants the gradient that arrives at a node.
  bool is_watched(Node* node) const {
    const auto& hooks = node->pre_hooks();
    return !node->tensor_pre_hooks().empty() || !node->retains_grad_hooks().empty() ||
           !node->post_hooks().empty() ||
           std::any_of(hooks.begin(), hooks.end(), [](const auto& hook) {
             return !is_of_form(*hook);
           }) ||
           std::any_of(ends_.begin(), ends_.end(), [&](const Edge& end) {
             return end.function.get() == node;
           });
  }

  // The parts of the concatenation along the channels at an edge, those of parts that are concatenations
  // themselves in their place. False if it is none.
  bool append_parts(const Edge& edge, std::vector<Part>& parts) const {
    auto* cat = dynamic_cast<generated::CatBackward0*>(edge.function.get());
    if (!cat || is_watched(cat)) return false;
    const int64_t rank = static_cast<int64_t>(sizes_of(*cat).size());
    if (rank < 3 || (cat->dim != 1 && cat->dim != 1 - rank)) return false;
    std::vector<Part> own;
    for (size_t i = 0; i < cat->tensors_size_; ++i) {
      const auto& sizes = cat->tensors_args_sizes_symint[i];
      if (static_cast<int64_t>(sizes.size()) != rank ||
          cat->tensors_args_scalartypes[i] != cat->input_metadata(0).dtype().toScalarType()) {
        return false;
      }
      if (append_parts(cat->next_edge(i), own)) continue;
      own.push_back({cat->next_edge(i), sizes[1].expect_int()});
    }
    parts.insert(parts.end(), own.begin(), own.end());
    return true;
  }

  // Where the gradient of some parts goes: what a concatenation of them alone would have.
  static Edge edge_to(std::vector<Part> parts, const Node& concatenation) {
    if (parts.size() == 1) return parts[0].edge;
    const auto& metadata = concatenation.input_metadata(0);
    torch::autograd::edge_list edges;
    for (const Part& part : parts) edges.push_back(part.edge);
    auto cat = std::make_shared<generated::CatBackward0>(concatenation.sequence_nr(), std::move(edges));
    std::vector<c10::SymInt> sizes = metadata.shape_as_dim_vector().vec();
    int64_t channels = 0;
    for (const Part& part : parts) {
      sizes[1] = part.channels;
      channels += part.channels;
      cat->tensors_args_sizes_symint.push_back(sizes);
      cat->tensors_args_scalartypes.push_back(metadata.dtype().toScalarType());
    }
    cat->dim = 1;
    cat->tensors_size_ = parts.size();
    sizes[1] = channels;
    cat->add_input_metadata(metadata.options(), sizes, /*is_tensor_subclass=*/false,
                            /*is_nested=*/false, metadata.grad_dtype());
    return Edge(std::move(cat), 0);
  }

  bool narrow(Convolution& convolution) const {
    // oneDNN is often slower on fewer channels there.
    if (convolution.transposed) return false;
    // A concatenation with parts of both kinds, maybe behind steps on each channel alone, which nobody else reads.
    std::vector<Node*> between;
    std::vector<SavedVariable*> kept;
    Edge edge = convolution.node.next_edge(0);
    while (edge.input_nr == 0 && is_frozen(*edge.function) && readers_.at(edge.function.get()) == 1 &&
           !is_watched(edge.function.get()) && is_by_channel(edge.function.get(), kept)) {
      between.push_back(edge.function.get());
      edge = Edge(edge.function->next_edge(0));
    }
    std::vector<Part> parts;
    if (!append_parts(edge, parts) || !convolution.node.post_hooks().empty()) return false;
    std::vector<Range> ranges = needed(parts);
    if (ranges.empty()) return false;
    const Node& concatenation = *edge.function;
    const int64_t channels = sizes_of(concatenation)[1];
    const int64_t groups = convolution.groups.expect_int();
    if (groups > 1 || !between.empty()) {
      // From the first needed channel to the last, in whole groups.
      const int64_t of_group = groups > 1 ? channels / groups : 1;
      const int64_t last = ranges.back().end - 1;
      ranges = {{ranges.front().first / of_group * of_group, (last / of_group + 1) * of_group}};
    }
    int64_t count = 0;
    for (const Range& range : ranges) count += range.end - range.first;
    if (count == channels || (groups > 1 && !convolution.node.pre_hooks().empty())) return false;
    try {
      change(convolution, between, parts_in(parts, ranges), concatenation, ranges, channels);
    } catch (const c10::Error&) {
      // Something was written to: backward says so, if it comes here.
      return false;
    }
    return true;
  }

  // All that can fail comes before the first change.
  static void change(Convolution& convolution, const std::vector<Node*>& between,
                     const std::vector<Part>& parts, const Node& concatenation,
                     const std::vector<Range>& ranges, int64_t channels) {
    const at::NoGradGuard no_grad;
    int64_t count = 0;
    for (const Part& part : parts) count += part.channels;
    std::vector<std::function<void()>> changes;
    const auto keep = [&](SavedVariable& saved, const at::Tensor& narrowed) {
      // A view has the version counter of the whole: a write to that is noticed as before.
      auto other = std::make_shared<SavedVariable>(narrowed, /*is_output=*/false);
      changes.emplace_back([&saved, other] { saved = std::move(*other); });
    };
    for (Node* node : between) {
      std::vector<SavedVariable*> kept;
      is_by_channel(node, kept);
      TORCH_CHECK(sizes_of(*node)[1] == channels, "channels elsewhere");
      for (SavedVariable* saved : kept) {
        const at::Tensor whole = saved->unpack(node->getptr());
        if (!whole.defined() || whole.numel() == 0) continue;
        const at::Tensor narrowed = pick(whole.detach(), whole.dim() == 1 ? 0 : 1, ranges);
        if (!saved->has_hooks()) {
          keep(*saved, narrowed);
          continue;
        }
        auto* norm = as_constant_norm(node);
        TORCH_CHECK(norm && saved == &norm->input_, "saved elsewhere");
        changes.emplace_back([norm, form = Form(whole), count]() mutable {
          form.sizes[1] = count;
          put_form(*norm, std::move(form));
        });
      }
      changes.emplace_back([node, count] {
        node->mutable_input_metadata(0).mutable_shape_as_dim_vector()[1] = count;
        if (auto* view = dynamic_cast<generated::ViewBackward0*>(node)) {
          view->self_sym_sizes[1] = count;
        }
      });
    }
    const at::Tensor weight = convolution.weight.unpack().detach();
    const int64_t groups = convolution.groups.expect_int();
    if (groups == 1) {
      keep(convolution.weight, pick(weight, 1, ranges));
    } else {
      const int64_t of_group = channels / groups;
      const int64_t first_group = ranges[0].first / of_group;
      const int64_t outputs = weight.size(0) / groups;
      const Range written = {first_group * outputs, (first_group + count / of_group) * outputs};
      keep(convolution.weight, pick(weight, 0, {written}));
      changes.emplace_back([&convolution, written, left = count / of_group] {
        convolution.groups = left;
        convolution.node.add_pre_hook(
            std::make_unique<NarrowGradient>(written.first, written.end - written.first));
      });
    }
    Form form(convolution.input.unpack());
    form.sizes[1] = count;
    changes.emplace_back([&] { put_form(convolution, std::move(form)); });
    Node& last = between.empty() ? convolution.node : *between.back();
    const Edge edge = edge_to(parts, concatenation);
    for (const auto& apply : changes) apply();
    last.next_edges()[0] = edge;
  }

  const std::vector<Edge>& ends_;
  std::vector<Node*> nodes_;
  // How many edges lead to a node.
  std::unordered_map<Node*, size_t> readers_;
};

}  // namespace

size_t narrow_convolutions(const Edge& root, const std::vector<Edge>& ends) {
  return Narrowing(root, ends).run();
}

}  // namespace medcam
