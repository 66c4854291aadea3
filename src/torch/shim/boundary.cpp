#include "boundary.h"

#include <cstdlib>
#include <cstring>

namespace medcam {

char* copy_string(const std::string& text) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy) std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

std::string current_message() {
  try {
    throw;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

}  // namespace medcam

extern "C" {

char* mc_string_copy(const char* text) { return strdup(text); }

void mc_string_free(char* text) { std::free(text); }

}  // extern "C"
