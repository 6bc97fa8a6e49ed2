#include <type_traits>

#include "adversarial_loss/adversarial_loss.h"
#include "common/cpu/map_reduce.h"

namespace gan_fast::CPU_CAPABILITY {

void adversarial_block(
    int storage, Kind kind, Mode mode, bool full, const Segment& s, const TermNumbers& numbers, bool stats,
    long long begin, long long end, Sums& sums) {
  auto run = [&]<Kind kKind>(std::integral_constant<Kind, kKind>) {
    map_reduce_any(
        storage, mode, full, s,
        [&]<class M>(M) { return AdversarialTerm<M, kKind>(numbers); },
        stats, begin, end, sums);
  };
  switch (kind) {
    case Kind::Linear:
      return run(std::integral_constant<Kind, Kind::Linear>{});
    case Kind::Softplus:
      return run(std::integral_constant<Kind, Kind::Softplus>{});
    case Kind::Hinge:
      return run(std::integral_constant<Kind, Kind::Hinge>{});
    case Kind::Square:
      return run(std::integral_constant<Kind, Kind::Square>{});
    case Kind::Pair:
      return run(std::integral_constant<Kind, Kind::Pair>{});
    case Kind::Average:
      return run(std::integral_constant<Kind, Kind::Average>{});
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
