package httpapi

import "strings"

// maxSuggested is the longest word that is compared, in bytes: none of our names is longer, and comparing is quadratic.
const maxSuggested = 64

// suggest returns the known word that is closest to a misspelt one, or "" if none is close.
func suggest(word string, known []string) string {
	if len(word) > maxSuggested {
		return ""
	}
	best, bestDistance := "", len(word)/3+2
	for _, k := range known {
		if d := distance(strings.ToLower(word), k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// didYouMean returns the end of a message about a misspelt word, or "".
func didYouMean(word string, known []string) string {
	if s := suggest(word, known); s != "" {
		return `; did you mean "` + s + `"?`
	}
	return ""
}

// distance is the optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
