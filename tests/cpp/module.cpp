// A Python module for tests: the constants of csrc, and the ops that are compiled with it.
#include <pybind11/pybind11.h>

#include "../../csrc/common/constants.h"
#include "rbn_rounds_shuffled.cpp"

PYBIND11_MODULE(smnm_cpp, m) {
  m.def("constants", [] {
    pybind11::dict constants;
    constants["MAX_TOKENS"] = smnm::kMaxTokens;
    constants["N_QUANTILES"] = smnm::kNQuantiles;
    constants["TAP_UNIT"] = smnm::kTapUnit;
    constants["TAP_SHIFT"] = smnm::kTapShift;
    constants["MAX_SIGNAL"] = smnm::kMaxSignal;
    constants["MAX_FIELD"] = smnm::kMaxField;
    constants["WHITE_BITS"] = smnm::kWhiteBits;
    constants["WHITE_SCALE"] = smnm::kWhiteScale;
    constants["MAX_CANDIDATES"] = smnm::kMaxCandidates;
    constants["MAX_SCORE"] = smnm::kMaxScore;
    constants["LOG_BITS"] = smnm::kLogBits;
    constants["MAX_LOG2"] = smnm::kMaxLog2;
    constants["N_MANTISSAS"] = smnm::kNMantissas;
    constants["N_SHARES"] = smnm::kNShares;
    constants["MAX_VALUE_BITS"] = smnm::kMaxValueBits;
    constants["DEVIATION_UNIT_BITS"] = smnm::kDeviationUnitBits;
    constants["VARIANCE_UNIT_BITS"] = smnm::kVarianceUnitBits;
    constants["MAX_PATCH"] = smnm::kMaxPatch;
    constants["STRUCTURE_SEED"] = smnm::kStructureSeed;
    constants["N_BLOCKS"] = smnm::kNBlocks;
    constants["N_BANDS"] = smnm::kNBands;
    constants["MAX_TARGET_BLOCKS"] = smnm::kMaxTargetBlocks;
    constants["MAX_MARK"] = smnm::kMaxMark;
    return constants;
  });
  m.def("purposes", [] {
    pybind11::dict purposes;
    purposes["NOISE"] = static_cast<uint32_t>(smnm::kNoise);
    purposes["SIGMA"] = static_cast<uint32_t>(smnm::kSigma);
    purposes["ORDER"] = static_cast<uint32_t>(smnm::kOrder);
    purposes["TIE"] = static_cast<uint32_t>(smnm::kTie);
    purposes["CROP"] = static_cast<uint32_t>(smnm::kCrop);
    purposes["DRAW"] = static_cast<uint32_t>(smnm::kDraw);
    purposes["REVEAL"] = static_cast<uint32_t>(smnm::kReveal);
    purposes["MASK_AGAIN"] = static_cast<uint32_t>(smnm::kMaskAgain);
    return purposes;
  });
}
