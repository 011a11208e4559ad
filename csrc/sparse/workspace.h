#pragma once
// Scratch memory that a thread keeps from call to call: fresh pages cost as much as the algorithms that fill them.
//
//   Workspace workspace;
//   uint64_t* keys = workspace.get<uint64_t>(n);   // not initialised, aligned to a line of the cache
//
// What a Workspace gave is taken back at its end. Up to `kept` bytes stay with the thread.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace hepops::sparse {

class Workspace {
 public:
  Workspace() : store_(store()), chunks_(store_.chunks.size()), used_(store_.used) { ++store_.depth; }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  ~Workspace() {
    if (--store_.depth > 0) {
      while (store_.chunks.size() > chunks_) store_.chunks.pop_back();
      store_.used = used_;
      return;
    }
    store_.used = 0;
    size_t bytes = 0;
    for (const Chunk& chunk : store_.chunks) bytes += chunk.bytes;
    if (store_.chunks.size() < 2 && bytes <= kept) return;
    store_.chunks.clear();  // it did not fit: one chunk for all of it next time
    if (bytes <= kept) store_.chunks.emplace_back(bytes);
  }

  template <class T>
  T* get(int64_t count) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
    const size_t bytes = (size_t(count) * sizeof(T) + line - 1) / line * line;
    if (store_.chunks.empty() || store_.used + bytes > store_.chunks.back().bytes) {
      store_.chunks.emplace_back(std::max(bytes, least));
      store_.used = 0;
    }
    std::byte* place = store_.chunks.back().memory + store_.used;
    store_.used += bytes;
    return reinterpret_cast<T*>(place);
  }

 private:
  static constexpr size_t line = 64, least = size_t(1) << 20, kept = size_t(64) << 20;

  struct Chunk {
    std::byte* memory;
    size_t bytes;
    explicit Chunk(size_t n) : memory(static_cast<std::byte*>(::operator new(n, std::align_val_t(line)))), bytes(n) {}
    Chunk(Chunk&& other) noexcept : memory(std::exchange(other.memory, nullptr)), bytes(other.bytes) {}
    Chunk& operator=(Chunk&&) = delete;
    ~Chunk() { ::operator delete(memory, std::align_val_t(line)); }
  };
  struct Store {
    std::vector<Chunk> chunks;  // what is in use, the last one at its end
    size_t used = 0;            // of the last chunk
    int depth = 0;
  };
  static Store& store() {
    static thread_local Store mine;
    return mine;
  }

  Store& store_;
  size_t chunks_, used_;  // when this one began
};

}  // namespace hepops::sparse
