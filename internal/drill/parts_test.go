//go:build drill || mutants

package drill

import "flag"

var (
	parts = flag.Int("parts", 1, "try one of so many parts of all")
	part  = flag.Int("part", 0, "which one: any number, of which the remainder counts")
)

// chosen reports whether what has this number is of the part that is tried.
func chosen(number int) bool { return number%*parts == *part%*parts }
