// NoiseMaker, in one path's code.

namespace smnm {
namespace {

constexpr int64_t kBlocks = 64;  // Philox blocks drawn at a time

// Four segments of q odd integers of kWhiteBits random bits.
void fill_white_field(const PhiloxSequence& sequence, int64_t n, int32_t* out) {
  const int64_t q = (n + 3) / 4;
  uint32_t words[4 * kBlocks];
  for (int64_t b = 0; b < q; b += kBlocks) {
    philox_blocks(sequence, static_cast<uint32_t>(b), kBlocks, kBlocks, words);
    for (int j = 0; j < 4; ++j) {
      const int64_t room = std::min(q - b, n - j * q - b);
      const int64_t count = std::min(kBlocks, room);
      for (int64_t i = 0; i < count; ++i) {
        const auto bits = static_cast<int32_t>(words[j * kBlocks + i] >> (32 - kWhiteBits));
        out[j * q + b + i] = 2 * bits + 1 - (1 << kWhiteBits);
      }
    }
  }
}

// Two quantiles for each word. Gathers are slower than these insertions into a register.
SMNM_INLINE void look_up(const uint32_t* word, int64_t count, const int16_t* quantiles,
                         int16_t* low, int16_t* high) {
  int64_t i = 0;
#ifdef SMNM_X86
#define SMNM_INSERT_TWO(k)                                            \
  std::memcpy(&two, word + i + k, sizeof(two));                       \
  lows = _mm_insert_epi16(lows, quantiles[two >> 4 & 0xFFF], k);      \
  highs = _mm_insert_epi16(highs, quantiles[two >> 20 & 0xFFF], k);   \
  lows = _mm_insert_epi16(lows, quantiles[two >> 36 & 0xFFF], k + 1); \
  highs = _mm_insert_epi16(highs, quantiles[two >> 52], k + 1);
  for (; i + 8 <= count; i += 8) {
    __m128i lows = _mm_setzero_si128(), highs = _mm_setzero_si128();
    uint64_t two;
    SMNM_INSERT_TWO(0)
    SMNM_INSERT_TWO(2)
    SMNM_INSERT_TWO(4)
    SMNM_INSERT_TWO(6)
    store(low + i, lows);
    store(high + i, highs);
  }
#undef SMNM_INSERT_TWO
#endif
  for (; i < count; ++i) {
    low[i] = quantiles[word[i] >> 4 & 0xFFF];
    high[i] = quantiles[word[i] >> 20];
  }
}

// Eight segments of q quantiles: white_values() of the reference.
void fill_quantiles(const PhiloxSequence& sequence, int64_t q, const int16_t* quantiles,
                    int16_t* out) {
  uint32_t words[4 * kBlocks];
  for (int64_t b = 0; b < q; b += kBlocks) {
    philox_blocks(sequence, static_cast<uint32_t>(b), kBlocks, kBlocks, words);
    for (int j = 0; j < 4; ++j) {
      int16_t* low = out + 2 * j * q + b;
      look_up(words + j * kBlocks, std::min(kBlocks, q - b), quantiles, low, low + q);
    }
  }
}

class NoiseMakerOfPath final : public NoiseMaker {
 public:
  NoiseMakerOfPath(const Grid& grid, const NoiseTable& table)
      : grid_(grid), table_(table), filter_(grid, table) {
    if (table.white()) return;
    const Grid& p = table.torus;
    n_blocks_ = p.t > 1 ? (p.t + 7) / 8 * p.h * p.w : (p.h + 7) / 8 * p.w;
    white_.reset(new int16_t[8 * n_blocks_ + kRowSlack]);
  }

  float make(int64_t seed, int64_t sample_id, int32_t* out) override {
    const PhiloxSequence words = philox_sequence(seed, kNoise, sample_id);
    if (table_.white()) {
      fill_white_field(words, grid_.size(), out);
      return kWhiteScale;
    }
    uint32_t drawn[4];
    philox_block(philox_sequence(seed, kSigma, sample_id), 0, drawn);
    const int64_t pair = static_cast<int64_t>(uint64_t{drawn[0]} * table_.n_pairs >> 32);
    const int16_t* levels = table_.pairs + 3 * pair;
    const int64_t n_taps = table_.torus.t + table_.torus.h + table_.torus.w;
    const int n_chains = levels[1] >= 0 ? 2 : 1;
    Chain chains[2] = {{table_.taps + levels[0] * n_taps, kTapUnit}, {}};
    if (n_chains == 2) chains[1] = {table_.taps + levels[1] * n_taps, levels[2]};
    fill_quantiles(words, n_blocks_, table_.quantiles, white_.get());
    filter_.run(white_.get(), chains, n_chains, out);
    return table_.scale[pair];
  }

 private:
  Grid grid_;
  NoiseTable table_;
  FieldFilter filter_;
  int64_t n_blocks_ = 0;
  std::unique_ptr<int16_t[]> white_;
};

std::unique_ptr<NoiseMaker> make_noise_maker(const Grid& grid, const NoiseTable& table) {
  return std::make_unique<NoiseMakerOfPath>(grid, table);
}

}  // namespace
}  // namespace smnm
