// The C boundary: exceptions become messages, at::Tensor becomes mc_tensor and back.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "shim.h"

namespace medcam {

// A copy that mc_string_free frees; NULL where memory is out.
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
