package smtp

import (
	"html"
	netmail "net/mail"
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// prose is the human-readable text of a report, up to the message that it returns. It holds the lines about single recipients
// and the rest.
type prose struct {
	text   string
	blocks []block  // one for each recipient, in the order of the text
	rest   []string // lines that belong to no block

	shared, whole *string // the replies in rest and in text, once they were searched
}

// block is what the text says about one recipient.
type block struct {
	named     string // as the reporter writes it
	recipient string // as we gave it, if the text says so: mail may have been forwarded
	lines     []string
}

const addressForm = `([^\s<>"'(),:;=]{1,200}@[^\s<>"'(),:;=]{1,255})`

// The forms in which a line begins with a recipient:
//
//	<ann@example.org>:                             qmail, sendmail, Yahoo; the reason is on the next lines
//	<ann@example.org>: host mx said: 550 5.1.1 …   Postfix, OpenSMTPD
//	    ann@example.org                            Exim, Exchange; elsewhere with a bullet
//	550 5.1.1 <ann@example.org>... User unknown    sendmail's transcript
//	>>> RCPT To:<ann@example.org>                  the same
//	Unknown user: ann@example.org                  IMail
var (
	headForm = regexp.MustCompile(`^[ \t>]*(?:[*•-][ \t]+)?` +
		`((?:(?:[45][0-9]{2}[ -]+)?(?:[45]\.[0-9]{1,3}\.[0-9]{1,3}[ \t]+)?)|(?i:rcpt to|recipient(?: address)?|(?:invalid|unknown) (?:recipient|user|address|final delivery userid)|undeliverable to|user mailbox exceeds allowed size|delivery userid)[:,]?[ \t]*)` +
		`["'<(]*` + addressForm + `[>"')]*(.*)$`)
	generatedFrom = regexp.MustCompile(`\b(?:generated|expanded) from:? <?` + addressForm)
	rcptCommand   = regexp.MustCompile(`(?i)rcpt to:\s*<([^<>\s]{1,320})>`)
	anyAddress    = regexp.MustCompile(addressForm)

	// returned matches the start of the returned message, or of its header.
	returned = regexp.MustCompile(`(?im)^[ \t>]*(?:-+ ?(?:below this line is a copy|this is a copy of|the header of the original|message headers? follow|original message|returned message|unsent message|the body of the message|message text follows|enclosed are the first)|` +
		`below is a copy of the original|message headers follow|(?:the )?(?:first|top) [0-9]+ lines of (?:your|the) (?:original )?message|original message follows|your original message|included is|old message:|received: |return-path: |message-id: |mime-version: )`)
	// succeeded matches the heading of a list of recipients that were reached.
	succeeded = regexp.MustCompile(`(?i)success`)

	markup    = regexp.MustCompile(`(?is)<(?:style|script|head)\b.*?</(?:style|script|head)>|<!--.*?-->`)
	lineBreak = regexp.MustCompile(`(?i)<(?:br|/p|/div|/tr|/li|/h[1-6]|/td)\b[^>]*>`)
	tag       = regexp.MustCompile(`</?[A-Za-z!][^<>@]*>`)
)

// plain turns HTML into text, one line for each line that is shown.
func plain(text string) string {
	text = strings.Join(strings.Fields(markup.ReplaceAllString(text, " ")), " ")
	return html.UnescapeString(tag.ReplaceAllString(lineBreak.ReplaceAllString(text, "\n"), ""))
}

// readProse splits a text into blocks and the rest. It skips lists of recipients that were reached.
func readProse(text string) *prose {
	if at := returned.FindStringIndex(text); at != nil {
		text = text[:at[0]]
	}
	p := &prose{text: text}
	at := map[string]int{}  // recipient to block
	current, empty := -1, 0 // the block that lines go to; how many blocks before it have no words yet
	margin := 0             // indent of the line that began the block: lines that are indented more belong to it
	reached := false
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimRight(line, " \t\r\n"), "<<< ")
		recipient, words, ok := head(line)
		ok = ok && (current < 0 || indent(line) <= margin)
		switch {
		case line == "":
			current, empty = -1, 0
		case strings.Contains(line, "---") && !ok:
			current, empty, reached = -1, 0, succeeded.MatchString(line)
		case reached:
		case ok && len(p.blocks) < maxReported:
			if current >= 0 && len(p.blocks[current].lines) == 0 {
				empty++
			} else {
				empty = 0
			}
			key := strings.ToLower(recipient)
			i, known := at[key]
			if !known {
				i = len(p.blocks)
				at[key] = i
				p.blocks = append(p.blocks, block{named: recipient, recipient: recipient})
			}
			current, margin = i, indent(line)
			p.add(current, empty, words)
		case current >= 0:
			if m := generatedFrom.FindStringSubmatch(line); m != nil {
				if original := canonical(m[1]); original != "" {
					p.blocks[current].recipient = original
				}
				continue
			}
			p.add(current, empty, line)
			empty = 0
		default:
			p.rest = append(p.rest, line)
		}
	}
	return p
}

// add adds a line to a block. It also adds it to the blocks directly above that have no words of their own.
func (p *prose) add(i, before int, line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	for j := max(i-before, 0); j <= i; j++ {
		p.blocks[j].lines = append(p.blocks[j].lines, line)
	}
}

// head reads a line that begins with a recipient. words is the rest of the line.
func head(line string) (recipient, words string, ok bool) {
	if !strings.Contains(line, "@") {
		return "", "", false
	}
	m := headForm.FindStringSubmatch(line)
	if m == nil {
		return "", "", false
	}
	recipient = canonical(strings.TrimRight(m[2], ".>"))
	words = strings.TrimLeft(m[3], " \t:.,-")
	if lead := strings.TrimSpace(m[1]); lead != "" && !strings.HasPrefix(strings.ToLower(lead), "rcpt") {
		words = strings.TrimSpace(line) // a code or the problem stands before the address
	}
	return recipient, words, recipient != ""
}

// of returns the block about an address, or an empty one if the text does not name it.
func (p *prose) of(addr string) block {
	for _, b := range p.blocks {
		if strings.EqualFold(b.named, addr) || strings.EqualFold(b.recipient, addr) {
			return b
		}
	}
	return block{recipient: addr}
}

// reply is the reply about a recipient: from its own block, or else from the part that is about all of them.
func (p *prose) reply(recipient string, several bool) string {
	if own := replyIn(p.of(recipient).lines); own != "" {
		return own
	}
	if several {
		return once(&p.shared, p.rest)
	}
	return once(&p.whole, strings.Split(p.text, "\n"))
}

// once caches the reply in some lines.
func once(found **string, lines []string) string {
	if *found == nil {
		reply := replyIn(lines)
		*found = &reply
	}
	return **found
}

// replyIn is the first reply in some lines, with its continuation lines: those of a multi-line reply, which repeat its code, and
// those that are folded. If there is no code, it is all the words.
func replyIn(lines []string) string {
	for i, line := range lines {
		code, enhanced := smtpcode.Find(strings.TrimSpace(line))
		if code == "" && enhanced == "" {
			continue
		}
		reply, open := strings.TrimSpace(line), strings.Contains(line, code+"-")
		for _, next := range lines[i+1:] {
			words := strings.TrimSpace(next)
			switch {
			case code != "" && open && (strings.HasPrefix(words, code+"-") || strings.HasPrefix(words, code+" ")):
				open = words[len(code)] == '-'
				words = strings.TrimLeft(words[len(code):], " -")
				reply += " " + strings.TrimLeft(strings.TrimPrefix(words, enhanced), " -")
			case indent(next) > 0 && indent(next) >= indent(line) && words != "" && !startsReply(words):
				reply += " " + words
			default:
				return reply
			}
		}
		return reply
	}
	return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
}

// startsReply reports whether a line is a reply of its own.
func startsReply(words string) bool {
	code, enhanced := smtpcode.Find(words[:min(len(words), 12)])
	return code != "" || enhanced != ""
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// only is the one address that the text names, if there is just one besides those of the report's own sender and recipient.
func (p *prose) only(own ...string) string {
	if m := rcptCommand.FindStringSubmatch(p.text); m != nil {
		return canonical(m[1])
	}
	found := ""
	for _, m := range anyAddress.FindAllString(p.text, 50) {
		addr := canonical(strings.TrimRight(m, ".>"))
		switch {
		case addr == "" || strings.EqualFold(addr, found) || mentions(own, addr):
		case found != "":
			return ""
		default:
			found = addr
		}
	}
	return found
}

// mentions reports whether one of the header fields holds an address.
func mentions(fields []string, addr string) bool {
	for _, f := range fields {
		list, err := netmail.ParseAddressList(f)
		for _, a := range list {
			if err == nil && strings.EqualFold(a.Address, addr) {
				return true
			}
		}
	}
	return false
}
