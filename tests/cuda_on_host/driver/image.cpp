#include "driver/image.h"

#include <elf.h>

#include <cstdint>
#include <cstring>

namespace on_host {
namespace {

// Attributes in sections `.nv.info.<kernel>`, as `cuobjdump -elf` names them. Each begins with a
// byte for its format, a byte that says which, and two bytes for its value, or for the length of
// what follows.
constexpr uint8_t kFollowed = 4;
constexpr uint8_t kMaxThreads = 0x05;
constexpr uint8_t kParameter = 0x17;

template <typename T>
T read(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void read_attributes(const unsigned char* at, const unsigned char* end, KernelImage* kernel) {
  while (at < end) {
    const uint8_t format = at[0];
    const uint8_t attribute = at[1];
    const uint16_t value = read<uint16_t>(at + 2);
    at += 4;
    if (format != kFollowed) continue;
    if (attribute == kMaxThreads) {
      kernel->max_threads =
          size_t{read<uint32_t>(at)} * read<uint32_t>(at + 4) * read<uint32_t>(at + 8);
    } else if (attribute == kParameter) {
      // Index, ordinal and offset; the size is in the upper bits of the last word.
      const size_t ordinal = read<uint16_t>(at + 4);
      if (kernel->parameters.size() <= ordinal) kernel->parameters.resize(ordinal + 1);
      kernel->parameters[ordinal] = {read<uint16_t>(at + 6), read<uint32_t>(at + 8) >> 18};
    }
    at += value;
  }
}

}  // namespace

std::map<std::string, KernelImage> read_image(const void* image) {
  const auto* bytes = static_cast<const unsigned char*>(image);
  if (std::memcmp(bytes, ELFMAG, SELFMAG) != 0) return {};
  const auto header = read<Elf64_Ehdr>(bytes);
  const auto section = [&](size_t i) {
    return read<Elf64_Shdr>(bytes + header.e_shoff + i * header.e_shentsize);
  };
  const unsigned char* names = bytes + section(header.e_shstrndx).sh_offset;
  const auto name = [&](const Elf64_Shdr& of) {
    return std::string(reinterpret_cast<const char*>(names + of.sh_name));
  };

  std::map<std::string, KernelImage> kernels;
  // The rest of the name where a section is the `prefix` of a kernel.
  const auto kernel_of = [&](const Elf64_Shdr& of, const std::string& prefix) {
    const std::string full = name(of);
    if (full.compare(0, prefix.size(), prefix) != 0) return kernels.end();
    return kernels.find(full.substr(prefix.size()));
  };
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr text = section(i);
    const std::string full = name(text);
    // The upper byte of sh_info is the number of registers.
    if (full.compare(0, 6, ".text.") == 0) kernels[full.substr(6)].registers = text.sh_info >> 24;
  }
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr part = section(i);
    if (const auto found = kernel_of(part, ".nv.info."); found != kernels.end()) {
      const unsigned char* begin = bytes + part.sh_offset;
      read_attributes(begin, begin + part.sh_size, &found->second);
    }
    if (const auto found = kernel_of(part, ".nv.shared."); found != kernels.end()) {
      found->second.shared_bytes = part.sh_size;
    }
  }
  return kernels;
}

}  // namespace on_host
