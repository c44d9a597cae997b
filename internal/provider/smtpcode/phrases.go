package smtpcode

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// phrases are patterns, of which one must match. Most replies hold none of the words of most patterns, and looking for a
// word is a hundred times faster than running a pattern, so each is run only where a word is there that it can't do without.
// All of the table on one reply takes a tenth of a millisecond that way, instead of more than one.
type phrases []phrase

type phrase struct {
	needs []string       // at least one of them is in every text that matches; none if that is not known
	re    *regexp.Regexp // nil if the word is all there is
}

func oneOf(patterns ...string) phrases {
	var all phrases
	for _, p := range patterns {
		re, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			panic("smtpcode: " + err.Error()) // of the table, which every test reads
		}
		branches := []*syntax.Regexp{re}
		if re.Op == syntax.OpAlternate {
			branches = re.Sub
		}
		for _, b := range branches {
			all = append(all, phraseOf(b))
		}
	}
	return all
}

func phraseOf(re *syntax.Regexp) phrase {
	p := phrase{needs: needed(re)}
	if re.Op != syntax.OpLiteral {
		p.re = regexp.MustCompile(re.String())
	}
	return p
}

// needed gives words of which a match holds one, as long ones as possible.
func needed(re *syntax.Regexp) []string {
	switch re.Op { //nolint:exhaustive // of the others nothing is sure
	case syntax.OpLiteral:
		return []string{string(re.Rune)}
	case syntax.OpCapture, syntax.OpPlus:
		return needed(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needed(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []string
		for _, sub := range re.Sub {
			if words := needed(sub); shortest(words) > shortest(best) {
				best = words
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			words := needed(sub)
			if len(words) == 0 {
				return nil
			}
			all = append(all, words...)
		}
		return all
	}
	return nil
}

func shortest(words []string) int {
	if len(words) == 0 {
		return 0
	}
	return len(slices.MinFunc(words, func(a, b string) int { return len(a) - len(b) }))
}

func (ps phrases) match(text string) bool {
	return slices.ContainsFunc(ps, func(p phrase) bool {
		for _, word := range p.needs {
			if strings.Contains(text, word) {
				return p.re == nil || p.re.MatchString(text)
			}
		}
		return len(p.needs) == 0 && p.re.MatchString(text)
	})
}
