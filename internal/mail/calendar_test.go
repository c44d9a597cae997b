package mail

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// invite is a small iCalendar object with LF line ends.
func invite(method string) string {
	return "BEGIN:VCALENDAR\nVERSION:2.0\n" + method + "\nBEGIN:VEVENT\nUID:1@example.com\nSUMMARY:Fitting für\n  dich\nMETHOD:X\nEND:VEVENT\nEND:VCALENDAR\n"
}

func TestCalendarIsTakenWithItsMethod(t *testing.T) {
	t.Parallel()
	want := strings.ReplaceAll(invite("METHOD:REQUEST"), "\n", "\r\n")
	for name, in := range map[string]Calendar{
		"LF":                 {"REQUEST", invite("METHOD:REQUEST")},
		"lower case":         {"request", invite("METHOD:REQUEST")},
		"CRLF":               {"REQUEST", want},
		"CR":                 {"REQUEST", strings.ReplaceAll(want, "\n", "")},
		"no end of line":     {"REQUEST", strings.TrimRight(want, "\r\n")},
		"lines at the end":   {"REQUEST", want + "\n\n"},
		"a byte order mark":  {"REQUEST", "\ufeff" + want},
		"mixed ends of line": {"REQUEST", strings.Replace(want, "\r\n", "\n", 2)},
	} {
		m, err := with(func(d *Draft) { d.Calendar = &in }).Message(noon(), DefaultCaps())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(&Calendar{"REQUEST", want}, m.Calendar); diff != "" {
			t.Errorf("%s: calendar (-want +got):\n%s", name, diff)
		}
		if f := m.Facts(); !f.Calendar || f.Bytes < 2*int64(len(want)) {
			t.Errorf("%s: facts = %+v", name, f)
		}
	}
	for _, other := range []string{"METHOD;X-A=b:REQUEST", "method:request", "METH\n OD:REQUEST"} {
		if _, err := with(func(d *Draft) { d.Calendar = &Calendar{"REQUEST", invite(other)} }).Message(noon(), DefaultCaps()); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
}

func TestCalendarIsRefused(t *testing.T) {
	t.Parallel()
	good := invite("METHOD:REQUEST")
	for name, tc := range map[string]struct {
		method, content, want string
	}{
		"another method":    {"CANCEL", good, "calendar.method method_mismatch"},
		"no such method":    {"INVITE", good, "calendar.method invalid_value"},
		"no method":         {"", good, "calendar.method invalid_value"},
		"a header in it":    {"REQUEST\r\nX: y", good, "calendar.method invalid_value"},
		"no METHOD":         {"REQUEST", invite("PRODID:x"), "calendar.content invalid_calendar"},
		"METHOD twice":      {"REQUEST", invite("METHOD:REQUEST\nMETHOD:REQUEST"), "calendar.content invalid_calendar"},
		"empty":             {"REQUEST", "", "calendar.content invalid_calendar"},
		"text":              {"REQUEST", "see you on Monday", "calendar.content invalid_calendar"},
		"an event only":     {"REQUEST", "BEGIN:VEVENT\nMETHOD:REQUEST\nEND:VEVENT\n", "calendar.content invalid_calendar"},
		"cut off":           {"REQUEST", strings.TrimSuffix(good, "END:VCALENDAR\n"), "calendar.content invalid_calendar"},
		"two of them":       {"REQUEST", good + good, "calendar.content invalid_calendar"},
		"something behind":  {"REQUEST", good + "X:y\n", "calendar.content invalid_calendar"},
		"something before":  {"REQUEST", "X:y\n" + good, "calendar.content invalid_calendar"},
		"crossed":           {"REQUEST", strings.Replace(good, "END:VEVENT", "END:VTODO", 1), "calendar.content invalid_calendar"},
		"END without BEGIN": {"REQUEST", "END:VCALENDAR\n", "calendar.content invalid_calendar"},
		"NUL":               {"REQUEST", good + "\x00", "calendar.content control_char"},
		"not UTF-8":         {"REQUEST", strings.Replace(good, "ü", "\xfc", 1), "calendar.content invalid_utf8"},
		"too long":          {"REQUEST", good + strings.Repeat("x", 1<<20), "calendar.content too_long"},
	} {
		_, err := with(func(d *Draft) { d.Calendar = &Calendar{tc.method, tc.content} }).Message(noon(), DefaultCaps())
		var got []string
		if invalid, ok := errors.AsType[*Invalid](err); ok {
			for _, f := range invalid.Fields {
				got = append(got, f.Field+" "+f.Code)
			}
		}
		if diff := cmp.Diff([]string{tc.want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := with(func(d *Draft) { d.Text, d.Calendar = "", &Calendar{"REQUEST", good} }).Message(noon(), DefaultCaps()); err == nil {
		t.Error("an invitation alone was taken: clients that know none would show nothing")
	}
}

func TestTheInviteFileIsLeftToACallerWhoAttachesOne(t *testing.T) {
	t.Parallel()
	m := &Message{Calendar: &Calendar{"REQUEST", "x"}}
	if a := m.InviteFile(); a == nil || a.Filename != "invite.ics" || string(a.Content) != "x" {
		t.Errorf("file = %+v", a)
	}
	for _, own := range []Attachment{{Filename: "Termin.ICS"}, {Filename: "a", ContentType: "text/calendar; method=REQUEST"}, {Filename: "a", ContentType: "application/ics"}} {
		if a := (&Message{Calendar: m.Calendar, Attachments: []Attachment{own}}).InviteFile(); a != nil {
			t.Errorf("beside %+v: file = %+v", own, a)
		}
	}
	if a := (&Message{}).InviteFile(); a != nil {
		t.Errorf("without an invitation: file = %+v", a)
	}
}
