# HEPOPS_CUDA_FAMILIES="75;80 86 89;90 100 120": GPU architectures in families. The front end runs once a family, for its
# first member, and ptxas makes the code of every member from that: seven architectures for the work of three. The last
# family's PTX goes along, for cards that are yet to come. In place of CMAKE_CUDA_ARCHITECTURES.
set(CMAKE_CUDA_ARCHITECTURES OFF)
set(cuda_architectures "")
foreach(family IN LISTS HEPOPS_CUDA_FAMILIES)
  string(REPLACE " " ";" members ${family})
  list(GET members 0 first)
  list(APPEND cuda_architectures ${members})
  list(TRANSFORM members PREPEND sm_ OUTPUT_VARIABLE code)
  list(JOIN code "," code)
  list(APPEND cuda_gencode "-gencode arch=compute_${first},code=[${code}]")
endforeach()
list(APPEND cuda_gencode "-gencode arch=compute_${first},code=compute_${first}")
list(JOIN cuda_gencode " " cuda_gencode)
string(APPEND CMAKE_CUDA_FLAGS " ${cuda_gencode}")
