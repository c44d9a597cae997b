package postmark

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/provider"
)

// inactiveLabel stands before the list of suppressed addresses in Postmark's texts, in lower case.
const inactiveLabel = "inactive addresses:"

// named returns the recipients of the attempt that stand in a text of Postmark's, in the order of the envelope. Postmark
// prints them in lower case. Where the text has a list of inactive addresses, only that list counts.
func named(text string, s *provider.Send) []string {
	text = inactiveList(strings.ToLower(text))
	all := s.Envelope()
	emails := make([]string, 0, len(all))
	for _, a := range all {
		emails = append(emails, a.Email)
	}
	// The longest first, each taken out where it stands: brien@x.test is a part of o'brien@x.test.
	byLength := slices.SortedFunc(slices.Values(emails), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	found := map[string]bool{}
	for _, email := range byLength {
		text, found[email] = takeOut(text, strings.ToLower(email))
	}
	return slices.DeleteFunc(emails, func(email string) bool { return !found[email] })
}

func inactiveList(text string) string {
	_, list, ok := strings.Cut(text, inactiveLabel)
	if !ok {
		return text
	}
	list, _, _ = strings.Cut(list, "inactive recipients")
	return list
}

// takeOut replaces the address by a space wherever it stands as a whole, and reports whether it did.
func takeOut(text, email string) (string, bool) {
	var b strings.Builder
	found := false
	for from := 0; ; {
		i := strings.Index(text[from:], email)
		if i < 0 {
			b.WriteString(text[from:])
			return b.String(), found
		}
		start, end := from+i, from+i+len(email)
		if startsWord(text[:start]) && endsWord(text[end:]) {
			b.WriteString(text[from:start] + " ")
			found = true
		} else {
			b.WriteString(text[from:end])
		}
		from = end
	}
}

// startsWord reports whether an address may begin after before. A quote may stand there, though it may also be part of
// a local part.
func startsWord(before string) bool {
	if before == "" {
		return true
	}
	c := before[len(before)-1]
	return !alnum(c) && c < 0x80 && !strings.ContainsRune(".!#$%&*+-/=?^_`{|}~", rune(c))
}

// endsWord reports whether a domain may end before after: a full stop may follow, but no further label.
func endsWord(after string) bool {
	if after == "" {
		return true
	}
	c := after[0]
	if c == '.' {
		return len(after) == 1 || !alnum(after[1])
	}
	return !alnum(c) && c != '-' && c < 0x80
}

func alnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
