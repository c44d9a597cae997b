//go:build drill || mutants

package drill

import "flag"

var (
	parts = flag.Int("parts", 1, "divide all into so many parts, and try one of them")
	part  = flag.Int("part", 0, "the part to try: the remainder of this number by -parts, so that a count of days will do")
)

// chosen reports whether the drill or mutant with this number belongs to the part that is tried.
func chosen(number int) bool { return number%*parts == *part%*parts }
