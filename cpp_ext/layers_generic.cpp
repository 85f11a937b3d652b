#define ISA generic
#define ISA_NAME "scalar"
#include "layers_kernels.hpp"
