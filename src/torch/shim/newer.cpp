// Operators that torch added after this libtorch and that PyTorch's own Python code calls.
// Scripting writes all branches of a function into the file, those for other arguments too: in
// torch 2.15 the code of F.interpolate has a branch that calls aten::_upsample_lanczos2d_aa, so
// each network that resizes names that operator, whichever mode it takes. libtorch looks operators
// up when it loads a file, not when it runs.
//
// Only what such branches reach is declared. An operator that a network calls by itself would run;
// that it is unknown is better said when the file loads.
#include "newer.h"

#include <c10/util/Exception.h>
#include <torch/csrc/jit/frontend/function_schema_parser.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/version.h>

#include <string>

namespace medcam {

using namespace torch::jit;

namespace {

struct Newer {
  const char* schema;
  // The older operator of the same arguments that computes the same, or nullptr.
  const char* same;
};

const Newer kNewer[] = {
    // F.interpolate and nn.Upsample call the second; `mode` is compared when the network runs.
    {"aten::_upsample_lanczos2d_aa(Tensor self, SymInt[2] output_size, bool align_corners, "
     "float? scales_h=None, float? scales_w=None) -> Tensor",
     nullptr},
    {"aten::_upsample_lanczos2d_aa.vec(Tensor input, SymInt[]? output_size, bool align_corners, "
     "float[]? scale_factors) -> Tensor",
     nullptr},
    // F.binary_cross_entropy calls it where it called the other in torch 2.11.
    {"aten::broadcast_shapes(int[] a, int[] b) -> int[]", "aten::_infer_size"},
};

Operation operation_of(const Newer& newer, const std::string& name) {
  const auto same = newer.same ? findOperatorFor({newer.same, ""}) : nullptr;
  if (same) return same->getOperation();
  return [name](Stack&) {
    TORCH_CHECK(false, name, " was added after torch ", TORCH_VERSION_MAJOR, ".",
                TORCH_VERSION_MINOR, ", which medcam runs on; export the network with torch ",
                TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ", or without that operator");
  };
}

}  // namespace

// For TorchScript alone, as guided.cpp does it: the dispatcher, which a fragment of the library
// `aten` would write to, belongs to whoever else uses libtorch in this process, and the fragment
// would have to be taken back in the right order when the process ends. Called before a file is
// loaded and not by a static initialiser: libtorch has all of its own operators by then, so that
// none is declared twice, and an exception reaches the caller.
void declare_newer_operators() {
  static const bool once = [] {
    for (const Newer& newer : kNewer) {
      // Its effects are those of its schema, none: a branch that is never taken may be taken out,
      // and what is never used. Folding constants tries it at worst, and leaves the call where it
      // is when it throws.
      c10::FunctionSchema schema = parseSchema(newer.schema);
      if (findOperatorFor(schema.operator_name())) continue;
      const std::string name = schema.name();
      registerOperator(
          Operator(newer.schema, operation_of(newer, name), c10::AliasAnalysisKind::FROM_SCHEMA));
    }
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace medcam
