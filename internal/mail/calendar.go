package mail

import (
	"fmt"
	"slices"
	"strings"
)

// Calendar is an invitation, an answer or its cancellation (iMIP, RFC 6047): an iCalendar object whose METHOD says which.
// Content has CRLF line ends.
type Calendar struct {
	Method  string `json:"method"`
	Content string `json:"content"`
}

// methods are those of iTIP (RFC 5546 section 1.4).
var methods = []string{"PUBLISH", "REQUEST", "REPLY", "ADD", "CANCEL", "REFRESH", "COUNTER", "DECLINECOUNTER"}

// calendar checks an invitation. Clients show it as one only if the part and the object in it name the same method.
func (c *checker) calendar(in *Calendar) *Calendar {
	if in == nil {
		return nil
	}
	out := &Calendar{Method: strings.ToUpper(in.Method), Content: crlf(strings.TrimPrefix(in.Content, "\ufeff"))}
	if !slices.Contains(methods, out.Method) {
		c.add("calendar.method", "invalid_value", "method is one of "+strings.Join(methods, ", "))
	}
	if len(out.Content) > c.lim.Calendar {
		c.add("calendar.content", "too_long", fmt.Sprintf("content has at most %d bytes", c.lim.Calendar))
		return out
	}
	for line := range strings.SplitSeq(out.Content, "\r\n") {
		if f := checkControls(line); f != nil {
			c.fault("calendar.content", f)
			return out
		}
	}
	method, why := calendarMethod(out.Content)
	switch {
	case why != "":
		c.add("calendar.content", "invalid_calendar", why)
	case !strings.EqualFold(method, out.Method) && slices.Contains(methods, out.Method):
		c.add("calendar.method", "method_mismatch", fmt.Sprintf("method is %s, and METHOD in the content is %.40q", out.Method, method))
	}
	return out
}

// calendarMethod reads the METHOD of an iCalendar object (RFC 5545 section 3.4), or says why there is none. It checks only
// the parts that mail depends on, and leaves the rest to the clients.
func calendarMethod(content string) (method, why string) {
	unfolded := strings.NewReplacer("\r\n ", "", "\r\n\t", "").Replace(strings.TrimSuffix(content, "\r\n"))
	var open []string
	found := 0
	for i, line := range strings.Split(unfolded, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		name, _, _ = strings.Cut(strings.ToUpper(name), ";")
		value = strings.ToUpper(strings.TrimSpace(value))
		switch {
		case len(open) == 0 && (i > 0 || name != "BEGIN" || value != "VCALENDAR"):
			return "", "content is one iCalendar object: it begins with BEGIN:VCALENDAR and ends with END:VCALENDAR"
		case name == "BEGIN":
			open = append(open, value)
		case name == "END" && value != open[len(open)-1]:
			return "", fmt.Sprintf("END in line %d does not close what is open there", i+1)
		case name == "END":
			open = open[:len(open)-1]
		case name == "METHOD" && len(open) == 1:
			method = value
			found++
		}
	}
	switch {
	case len(open) > 0:
		return "", "content ends before END:" + label(open[len(open)-1])
	case found != 1:
		return "", fmt.Sprintf("VCALENDAR has %d properties METHOD, want one", found)
	}
	return method, ""
}

// crlf makes each CRLF, bare CR and bare LF one CRLF, and puts one at the end.
func crlf(s string) string {
	s = strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(s)
	return strings.TrimRight(s, "\r\n") + "\r\n"
}

// InviteFile returns the invitation once more, as an attachment: clients without support for invitations offer it as a file,
// and some look only there. It is nil if there is no invitation, or if the caller attached a calendar.
func (m *Message) InviteFile() *Attachment {
	if m.Calendar == nil {
		return nil
	}
	for i := range m.Attachments {
		name, kind := strings.ToLower(m.Attachments[i].Filename), m.Attachments[i].ContentType
		if strings.HasSuffix(name, ".ics") || strings.HasPrefix(kind, "text/calendar") || strings.HasPrefix(kind, "application/ics") {
			return nil
		}
	}
	return &Attachment{Filename: "invite.ics", ContentType: "application/ics", Content: []byte(m.Calendar.Content)}
}
