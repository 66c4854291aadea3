// Shared by the .cpp files of the shim; never seen by bindgen.
#pragma once

#include <ATen/ATen.h>
#include <torch/custom_class.h>

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "guided.h"
#include "shim.h"

namespace medcam {

// One run of a layer: its name and the shape of its output.
struct Seen {
  std::string name;
  std::vector<int64_t> sizes;
};

// Takes the gradient of an activation, while a backward is interested in it.
struct Receiver : torch::CustomClassHolder {
  std::function<void(const at::Tensor&)> take;
};

// A wish for the activation of one run of a layer, and the activation once it happened.
struct Wish {
  std::string name;
  int64_t run;
  at::Tensor activation;
  // In its place, where it is written over: how to compute it once more, and who gets its gradient.
  std::function<at::Tensor()> again;
  c10::intrusive_ptr<Receiver> receiver;

  bool recorded() const { return activation.defined() || again; }
};

// What one run of a model records. Travels through the graph as an input of its own, so that
// models can run in several threads at once.
struct Tape : torch::CustomClassHolder {
  // Passes the output of a layer through; the first wish that comes true starts autograd.
  // copy: what is returned will be written to in place, so the record must not share its memory.
  // again: computes x once more, from what autograd keeps anyway, so that no copy is needed.
  at::Tensor tap(const at::Tensor& x, const std::string& name, bool copy,
                 const std::function<at::Tensor()>& again = nullptr);
  at::Tensor note_score(const at::Tensor& x, bool copy);

  std::unordered_map<std::string, int64_t> runs;
  std::vector<Seen> seen;
  std::vector<Wish> wishes;
  at::Tensor score;
  Guidance guidance;
};

char* copy_string(const std::string& text);
// The message of the exception being handled.
std::string current_message();

// Runs f; an exception of any kind becomes false and a message.
template <typename F>
bool guarded(char** error, F&& f) {
  try {
    f();
    return true;
  } catch (...) {
    *error = copy_string(current_message());
    return false;
  }
}

inline const at::Tensor& unwrap(const mc_tensor* tensor) {
  return *reinterpret_cast<const at::Tensor*>(tensor);
}

inline mc_tensor* wrap(at::Tensor tensor) {
  return reinterpret_cast<mc_tensor*>(new at::Tensor(std::move(tensor)));
}

}  // namespace medcam

struct mc_tape {
  c10::intrusive_ptr<medcam::Tape> tape;
};
