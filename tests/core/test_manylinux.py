"""cmake/manylinux.cpp: a program that uses what glibc and libstdc++ gained lately runs, and asks for none of it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

CUDA_RUNTIMES = [
    Path(nvcc).resolve().parents[1] / "lib64" / "libcudart_static.a" for nvcc in [shutil.which("nvcc")] if nvcc
]

pytestmark = pytest.mark.skipif(
    not shutil.which("g++") or not shutil.which("objdump"), reason="needs GCC and binutils, as make wheel does"
)

PROGRAM = """
#include <dlfcn.h>
#include <cmath>
#include <exception>
#include <iostream>
#include <memory>
#include <memory_resource>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

struct Heap : std::pmr::memory_resource {
  void* do_allocate(size_t bytes, size_t) override { return ::operator new(bytes); }
  void do_deallocate(void* at, size_t, size_t) override { ::operator delete(at); }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

int main(int words, char**) {
  std::exception_ptr kept;
  {
    std::exception_ptr thrown;
    try {
      throw std::runtime_error("told");
    } catch (...) {
      thrown = std::current_exception();
    }
    std::vector<std::exception_ptr> owners(100, thrown);
    kept = owners[7];
    std::thread([&] { auto another = owners[3]; owners.clear(); }).join();
  }
  std::ostringstream said;
  try {
    std::rethrow_exception(kept);
  } catch (const std::exception& error) {
    said << error.what();
  }
  try {
    const int below_zero = -words;
    std::unique_ptr<int[]> none(new int[below_zero]);
    said << " allocated";
  } catch (const std::bad_array_new_length&) {
    said << " refused";
  }
  const double x = words;
  Heap memory;
  std::pmr::vector<double> values({std::exp(x), std::log(x + 1), std::pow(x + 1, .5), std::hypot(3 * x, x)}, &memory);
  said.precision(17);
  for (double value : values) said << ' ' << value;
  said << (dlopen("nowhere.so", RTLD_NOW) ? " opened" : " not opened") << (dlerror() ? ", with a reason" : "");
  std::cout << said.str() << std::endl;
}
"""


# What CUDA's runtime does with them: start threads, wait, lock, keep a value for each thread, share memory.
THREADS = """
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static pthread_mutex_t mutex;
static pthread_rwlock_t lock;
static pthread_spinlock_t spin;
static sem_t begin, end;
static int starts, sum;

static void start() { ++starts; pthread_key_create(&key, 0); }
static void* work(void* given) {
  pthread_once(&once, start);
  pthread_setspecific(key, given);
  sem_wait(&begin);
  pthread_spin_lock(&spin);
  sum += *(int*)pthread_getspecific(key);
  pthread_spin_unlock(&spin);
  pthread_rwlock_rdlock(&lock);
  pthread_rwlock_unlock(&lock);
  sem_post(&end);
  return given;
}

int main() {
  pthread_mutexattr_t recursive;
  pthread_mutexattr_init(&recursive);
  pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&mutex, &recursive);
  pthread_mutexattr_destroy(&recursive);
  pthread_rwlock_init(&lock, 0);
  pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
  sem_init(&begin, 0, 0);
  sem_init(&end, 0, 0);
  int values[4] = {1, 20, 300, 4000};
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) pthread_create(&threads[i], 0, work, &values[i]);
  printf("idle %d, ", sem_trywait(&end));
  for (int i = 0; i < 4; ++i) sem_post(&begin);
  for (int i = 0; i < 4; ++i) {
    void* back = 0;
    pthread_join(threads[i], &back);
    printf("%d ", *(int*)back);
  }
  struct timespec soon = {0, 0};
  clock_gettime(CLOCK_REALTIME, &soon);
  int last = 0;
  while (sem_timedwait(&end, &soon) == 0) ++last;
  const int twice = pthread_mutex_trylock(&mutex) == 0 && pthread_mutex_trylock(&mutex) == 0;
  const int written = pthread_rwlock_trywrlock(&lock) == 0 && pthread_rwlock_tryrdlock(&lock) != 0;
  printf("sum %d, starts %d, ended %d, twice %d, written %d, ", sum, starts, last, twice, written);
  char name[64];
  snprintf(name, sizeof name, "/hepops-%d", (int)getpid());
  const int shared = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
  printf("shared %d %d, ", shared >= 0, shm_unlink(name));
  void* self = dlopen(0, RTLD_NOW);
  const int alive = pthread_kill(pthread_self(), 0) == 0;
  printf("%s, alive %d\\n", dlvsym(self, "nothing", "GLIBC_2.2.5") ? "found" : "not found", alive);
  pthread_key_delete(key);
  return dlclose(self);
}
"""


def forwarded():
    """The symbols that CUDA's library takes under their old versions."""
    return re.findall(r"^HEPOPS_FORWARD\((\w+), ", (ROOT / "cmake" / "manylinux_cuda.cpp").read_text(), re.MULTILINE)


def late(program):
    """Symbols of glibc 2.29 and later that a program or library asks for."""
    table = subprocess.run(["objdump", "-T", program], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"GLIBC_2\.(?:29|3\d)\)?\s+(\w+)", table))


def wrapped():
    """The symbols that the linker is told to replace."""
    text = (ROOT / "cmake" / "manylinux.cmake").read_text()
    return re.search(r"hepops_wrapped ([^)]*)\)", text)[1].split()


def newest(program, family):
    table = subprocess.run(["objdump", "-T", program], capture_output=True, text=True, check=True).stdout
    return max(
        ([int(k) for k in found.split(".")] for found in re.findall(rf"\b{family}_([0-9.]+)", table)), default=[0]
    )


def test_newer_symbols_are_replaced_by_older_ones_of_the_same_values(tmp_path):
    (tmp_path / "program.cpp").write_text(PROGRAM)
    command = ["g++", "-std=gnu++20", "-O1", tmp_path / "program.cpp"]
    said = {}
    for name, more in (
        ("plain", ["-pthread", "-ldl"]),
        ("old", [ROOT / "cmake" / "manylinux.cpp", *(f"-Wl,--wrap={symbol}" for symbol in wrapped()), "-ldl"]),
    ):
        program = tmp_path / name
        subprocess.run([*command, *more, "-o", program], check=True)
        said[name] = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert said["plain"] == said["old"]  # to the last bit
    assert said["old"].startswith("told refused 2.718") and "not opened, with a reason" in said["old"]
    assert newest(tmp_path / "old", "GLIBCXX") <= [3, 4, 25] and newest(tmp_path / "old", "CXXABI") <= [1, 3, 11]
    # what a program's own start and its threads ask for is not in a library
    assert late(tmp_path / "old") <= {"__libc_start_main", "pthread_create"}


def test_threads_and_locks_of_the_old_versions_do_their_work(tmp_path):
    (tmp_path / "program.cpp").write_text(THREADS)
    folder = ROOT / "cmake"
    old = [folder / "manylinux.cpp", folder / "manylinux_cuda.cpp"]
    old += [f"-Wl,--wrap={symbol}" for symbol in [*wrapped(), *forwarded()]]
    said = {}
    for name, more in (("plain", []), ("old", old)):
        command = ["g++", "-std=gnu++20", "-O1", tmp_path / "program.cpp", *more, "-pthread", "-ldl", "-lrt"]
        subprocess.run([*command, "-o", tmp_path / name], check=True)
        said[name] = subprocess.run([tmp_path / name], capture_output=True, text=True, check=True).stdout
    assert said["plain"] == said["old"]
    assert "sum 4321, starts 1, ended 4, twice 1, written 1, shared 1 0, not found, alive 1" in said["old"]
    assert late(tmp_path / "old") <= {"__libc_start_main"}


def test_all_that_cudas_runtime_asks_for_is_forwarded(tmp_path):
    """A library of nothing but libcudart_static.a, whole, linked as libhepops_cuda.so is."""
    runtime = next((path for path in CUDA_RUNTIMES if path.exists()), None)
    if runtime is None:
        pytest.skip("needs the static library of CUDA's runtime")
    library = tmp_path / "library.so"
    options = [f"-Wl,--wrap={symbol}" for symbol in [*wrapped(), *forwarded()]]
    sources = [ROOT / "cmake" / "manylinux.cpp", ROOT / "cmake" / "manylinux_cuda.cpp"]
    whole = ["-Wl,--whole-archive", runtime, "-Wl,--no-whole-archive"]
    subprocess.run(["g++", "-std=gnu++20", "-O1", "-shared", "-fPIC", *sources, *options, *whole,
                    "-pthread", "-ldl", "-lrt", "-o", library], check=True)  # fmt: skip
    assert not late(library)
