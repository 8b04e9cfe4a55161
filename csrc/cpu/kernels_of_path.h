// The code of kernels.h for one path. The file that includes it has read kernels_includes.h, and
// then set the compiler's target and SMNM_LANES, the 32-bit lanes of a vector. All names are local
// to that file.
namespace smnm {
namespace {

template <class Lanes, class T>
SMNM_INLINE Lanes load(const T* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(Lanes));
  return lanes;
}

template <class Lanes, class T>
SMNM_INLINE void store(T* to, const Lanes& lanes) {
  std::memcpy(to, &lanes, sizeof(Lanes));
}

typedef int32_t IntLanes __attribute__((vector_size(SMNM_LANES * sizeof(int32_t))));

SMNM_INLINE IntLanes clamped(IntLanes v, int32_t most) {
  v = v > most ? IntLanes{} + most : v;
  return v < -most ? IntLanes{} - most : v;
}

}  // namespace
}  // namespace smnm

#ifdef SMNM_PAIRS
#include "pair_filter.h"
#else
#include "float_filter.h"
#endif
#include "dispersion_of_path.h"
#include "field_filter.h"
#include "noise_of_path.h"
#include "rbn_few_of_path.h"
#include "threshold_of_path.h"

#define SMNM_KERNELS            \
  {smnm::make_noise_maker,      \
   smnm::keep_largest<int32_t>, \
   smnm::keep_largest<int64_t>, \
   smnm::write_masks,           \
   smnm::dispersion,            \
   smnm::sweep_few}
