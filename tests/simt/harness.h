// Runs launches named in a request file over buffers from that file and writes the buffers back: `program request response`.
//
// Request, little endian: u32 buffers { u64 bytes, u32 misalignment, data }; u32 template_shared { i64 offset from simt::progress,
// u64 bytes }; u32 launches { u32 name length, name, u32 grid[3], u32 block[3], u32 shared bytes, u32 order, u32 argument bytes,
// arguments as one C struct, u32 pointers { u32 offset in the arguments, u32 buffer, u64 byte offset } }. Response: the buffers' data.
#pragma once

#include <string>
#include <tuple>

#include "simt.h"

namespace simt {

struct Call {
  dim3 grid, block;
  uint64_t shared_bytes;
  Order order;
  std::vector<unsigned char> arguments;
};
struct Entry {
  const char* name;
  void (*run)(const Call&);
};

template <class... P>
void call(void (*kernel)(P...), const Call& c) {
  std::tuple<std::remove_cv_t<P>...> values;
  uint64_t at = 0, widest = 1;
  auto take = [&](auto& v) {
    at = (at + alignof(decltype(v)) - 1) / alignof(decltype(v)) * alignof(decltype(v));
    widest = std::max<uint64_t>(widest, alignof(decltype(v)));
    if (at + sizeof(v) <= c.arguments.size()) std::memcpy(static_cast<void*>(&v), c.arguments.data() + at, sizeof(v));
    at += sizeof(v);
  };
  std::apply([&](auto&... v) { (take(v), ...); }, values);
  at = (at + widest - 1) / widest * widest;
  if (at != c.arguments.size()) {
    std::fprintf(stderr, "simt: the kernel's parameters take %llu bytes, the request has %zu\n", (unsigned long long)at, c.arguments.size());
    std::exit(kExitMisuse);
  }
  std::apply([&](const auto&... v) { launch(kernel, c.grid, c.block, c.shared_bytes, c.order, v...); }, values);
}

struct Reader {
  FILE* file;
  void bytes(void* to, uint64_t n) {
    if (n && std::fread(to, 1, n, file) != n) {
      std::fprintf(stderr, "simt: the request ends early\n");
      std::exit(kExitMisuse);
    }
  }
  template <class T>
  T get() {
    T v;
    bytes(&v, sizeof(T));
    return v;
  }
};

inline int serve(int argc, char** argv, const std::vector<Entry>& entries) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s request response\n", argv[0]);
    return kExitMisuse;
  }
  Reader in{std::fopen(argv[1], "rb")};
  if (!in.file) return std::perror(argv[1]), kExitMisuse;
  struct Buffer {
    char* base;
    uint64_t bytes;
    uint32_t shift;
  };
  std::vector<Buffer> buffers(in.get<uint32_t>());
  for (Buffer& b : buffers) {
    b.bytes = in.get<uint64_t>();
    b.shift = in.get<uint32_t>();
    b.base = static_cast<char*>(std::malloc(b.bytes + b.shift));
    in.bytes(b.base + b.shift, b.bytes);
  }
  for (uint32_t n = in.get<uint32_t>(); n; --n) {
    const int64_t offset = in.get<int64_t>();
    template_shared.emplace_back(offset, in.get<uint64_t>());
  }
  for (uint32_t n = in.get<uint32_t>(); n; --n) {
    std::string name(in.get<uint32_t>(), '\0');
    in.bytes(name.data(), name.size());
    uint32_t size[6];
    in.bytes(size, sizeof(size));
    Call c{{size[0], size[1], size[2]}, {size[3], size[4], size[5]}, 0, Order::kForward, {}};
    c.shared_bytes = in.get<uint32_t>();
    c.order = static_cast<Order>(in.get<uint32_t>());
    c.arguments.resize(in.get<uint32_t>());
    in.bytes(c.arguments.data(), c.arguments.size());
    for (uint32_t p = in.get<uint32_t>(); p; --p) {
      const uint32_t at = in.get<uint32_t>(), which = in.get<uint32_t>();
      const uint64_t offset = in.get<uint64_t>();
      char* pointer = buffers.at(which).base + buffers.at(which).shift + offset;
      std::memcpy(c.arguments.data() + at, &pointer, sizeof(pointer));
    }
    const auto entry = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return name == e.name; });
    if (entry == entries.end()) {
      std::fprintf(stderr, "simt: no kernel %s in this program\n", name.c_str());
      return kExitMisuse;
    }
    entry->run(c);
  }
  FILE* out = std::fopen(argv[2], "wb");
  if (!out) return std::perror(argv[2]), kExitMisuse;
  for (const Buffer& b : buffers) {
    if (b.bytes) std::fwrite(b.base + b.shift, 1, b.bytes, out);
    std::free(b.base);
  }
  return std::fclose(out) ? kExitMisuse : 0;
}

}  // namespace simt

#define SIMT_ENTRY(kernel) simt::Entry{#kernel, [](const simt::Call& c) { simt::call(kernel, c); }}
