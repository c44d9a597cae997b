package smtpcode

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
)

// phrases are patterns; one must match. Most replies contain none of the words of most patterns, and a search for a word is a
// hundred times faster than a pattern. So a pattern runs only if the words that it requires are there. The whole table on one
// reply takes less than a tenth of a millisecond in this way, instead of more than one.
type phrases []phrase

type phrase struct {
	needs [][]string            // every text that matches has at least one word of each set; none if no such words are known
	re    func() *regexp.Regexp // nil if the word is the whole pattern
}

// oneOf compiles patterns and splits their top-level alternatives. It panics on a pattern that is not valid.
func oneOf(patterns ...string) phrases {
	var all phrases
	for _, p := range patterns {
		re, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			panic("smtpcode: " + err.Error()) // the table is at fault, which every test reads
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

// phraseOf makes a phrase that compiles its pattern at the first use.
func phraseOf(re *syntax.Regexp) phrase {
	p := phrase{needs: needed(re)}
	if re.Op != syntax.OpLiteral {
		// Compiling the whole table takes a third of a second, which every command would pay when it starts.
		p.re = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(re.String()) })
	}
	return p
}

// needed returns sets of words. A match contains at least one word of each set.
func needed(re *syntax.Regexp) [][]string {
	switch re.Op { //nolint:exhaustive // of the others nothing is sure
	case syntax.OpLiteral:
		return [][]string{{string(re.Rune)}}
	case syntax.OpCapture, syntax.OpPlus:
		return needed(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needed(re.Sub[0])
		}
	case syntax.OpConcat:
		var all [][]string
		for _, sub := range re.Sub {
			all = append(all, needed(sub)...)
		}
		return all
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			sets := needed(sub)
			if len(sets) == 0 {
				return nil
			}
			all = append(all, slices.MaxFunc(sets, func(a, b []string) int { return shortest(a) - shortest(b) })...)
		}
		return [][]string{all}
	}
	return nil
}

func shortest(words []string) int {
	return len(slices.MinFunc(words, func(a, b string) int { return len(a) - len(b) }))
}

// match reports whether one of the phrases is in the text.
func (ps phrases) match(text string) bool {
	return slices.ContainsFunc(ps, func(p phrase) bool {
		for _, set := range p.needs {
			if !slices.ContainsFunc(set, func(word string) bool { return strings.Contains(text, word) }) {
				return false
			}
		}
		return p.re == nil || p.re().MatchString(text)
	})
}
