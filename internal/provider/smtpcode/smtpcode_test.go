package smtpcode

import (
	"path"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
)

func TestClassifyReplies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code, enhanced, text string
		want                 mail.Reason
	}{
		// Enhanced codes alone.
		{"550", "5.1.1", "", mail.InvalidAddress},
		{"550", "5.1.0", "", mail.Undetermined},
		{"553", "5.1.3", "", mail.Undetermined},
		{"550", "5.1.4", "", mail.InvalidAddress},
		{"551", "5.1.6", "", mail.InvalidAddress},
		{"550", "5.1.2", "", mail.InvalidDomain},
		{"556", "5.1.10", "", mail.InvalidDomain},
		{"", "5.4.4", "", mail.InvalidDomain},
		{"550", "5.1.7", "", mail.AuthFailure},
		{"550", "5.1.8", "", mail.AuthFailure},
		{"550", "5.2.1", "", mail.Inactive},
		{"450", "4.2.1", "", mail.ThrottledThere},
		{"552", "5.2.2", "", mail.MailboxFull},
		{"452", "4.2.2", "", mail.MailboxFull},
		{"552", "5.2.3", "", mail.MessageTooLarge},
		{"552", "5.3.4", "", mail.MessageTooLarge},
		{"550", "5.3.0", "", mail.Technical},
		{"421", "4.3.2", "", mail.Technical},
		{"", "4.4.1", "", mail.Connection},
		{"", "4.4.2", "", mail.Connection},
		{"", "4.4.3", "", mail.Connection},
		{"", "4.4.7", "", mail.TimedOut},
		{"", "5.4.7", "", mail.TimedOut},
		{"", "5.4.6", "", mail.Technical},
		{"452", "4.5.3", "", mail.ThrottledThere},
		{"501", "5.5.4", "", mail.Technical},
		{"554", "5.6.0", "", mail.Content},
		{"550", "5.6.7", "", mail.Content},
		{"421", "4.7.0", "", mail.ThrottledThere},
		{"550", "5.7.0", "", mail.BlockedPolicy},
		{"550", "5.7.1", "", mail.BlockedPolicy},
		{"550", "5.7.26", "", mail.AuthFailure},
		{"550", "5.7.515", "", mail.AuthFailure},
		{"550", "5.7.509", "", mail.AuthFailure},
		{"550", "5.7.606", "", mail.Reputation},
		{"550", "5.7.511", "", mail.BlockedPolicy},

		// Reply codes alone.
		{"550", "", "", mail.Undetermined},
		{"551", "", "", mail.Undetermined},
		{"553", "", "", mail.Undetermined},
		{"552", "", "", mail.MailboxFull},
		{"521", "", "", mail.Undetermined},
		{"556", "", "", mail.Undetermined},
		{"535", "", "", mail.AuthFailure},
		{"502", "", "", mail.Technical},
		{"451", "", "", mail.Technical},
		{"450", "", "", mail.Undetermined},
		{"421", "", "", mail.Connection},
		{"554", "", "", mail.Undetermined},
		{"550", "5.0.0", "", mail.Undetermined},

		// Words over codes.
		{"550", "5.7.1", "<ann@example.org>: Recipient address rejected: User unknown in relay recipient table", mail.InvalidAddress},
		{"554", "", "delivery error: dd This user doesn't have a yahoo.com account (ann@yahoo.com) [0]", mail.InvalidAddress},
		{"554", "", "delivery error: dd Sorry, your message to ann@yahoo.com cannot be delivered. This mailbox is disabled (554.30).", mail.Inactive},
		{"550", "5.5.0", "Requested action not taken: mailbox unavailable (S2017062302).", mail.InvalidAddress},
		{"550", "5.4.1", "Recipient address rejected: Access denied. [BN1.namprd.prod.outlook.com]", mail.InvalidAddress},
		{"550", "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", mail.InvalidAddress},
		{"550", "5.1.1", "User not listed in Domino Directory", mail.InvalidAddress},
		{"554", "5.7.1", "Mailbox full", mail.MailboxFull},
		{"450", "4.7.1", "<ann@example.org>: Recipient address rejected: Greylisted, see https://postgrey.example/", mail.ThrottledThere},
		{"550", "5.4.5", "Daily user sending quota exceeded.", mail.ThrottledThere},
		{"550", "5.7.1", "[192.0.2.1] Our system has detected that this message is likely unsolicited mail.", mail.BlockedPolicy},
		{"550", "5.7.1", "this message is likely suspicious due to the very low reputation of the sending domain", mail.Reputation},
		{"550", "5.1.1", "Message looks like spam", mail.BlockedPolicy},
		{"554", "", "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", mail.BlockedPolicy},
		{"550", "", "relay not permitted", mail.BlockedPolicy},
		{"553", "5.1.8", "Sender address rejected: Domain not found", mail.AuthFailure},
		{"550", "", "Sender verify failed", mail.AuthFailure},
		{"", "5.4.4", "Host or domain name not found. Name service error for name=example.org type=A: Host not found", mail.InvalidDomain},
		{"552", "", "message size exceeds fixed maximum message size", mail.MessageTooLarge},
		{"550", "", "virus found", mail.Content},

		// Temporary replies never end an address.
		{"450", "4.1.1", "<ann@example.org>: Recipient address rejected: unverified address: User unknown", mail.Undetermined},
		{"550", "4.4.7", "QUEUE.Expired; message expired", mail.TimedOut},
		{"", "4.4.3", "Host or domain name not found. Name service error for name=example.org type=MX: Host not found, try again", mail.Connection},
		{"450", "4.1.2", "Recipient address rejected: Domain not found", mail.Connection},
		{"451", "4.2.1", "mailbox disabled for now", mail.ThrottledThere},
		{"450", "", "mailbox unavailable", mail.Undetermined},

		// Names that are quoted say nothing.
		{"550", "5.1.1", "<spam@blocked.example.org>: Recipient address rejected: undeliverable", mail.InvalidAddress},
		{"550", "5.2.1", "host mx.antispam.example said: go to https://blocked.example/spam", mail.Inactive},

		// Codes out of the text.
		{"", "", "smtp; 550 5.1.1 <ann@example.org>: no", mail.InvalidAddress},
		{"", "", "550 5.2.2 no", mail.MailboxFull},
		{"", "5.0.0", "smtp; 550 no", mail.Undetermined},
		{"", "", "no such user", mail.InvalidAddress},
		{"", "", "connect to mx.example.org[192.0.2.1]:25: Connection timed out", mail.Connection},
		{"", "", "", mail.Undetermined},
		{"9x", "zebra", "\x00\xff", mail.Undetermined},
	} {
		if got := Classify(c.code, c.enhanced, c.text).Reason; got != c.want {
			t.Errorf("Classify(%q, %q, %q) = %s, want %s", c.code, c.enhanced, c.text, got, c.want)
		}
	}
}

func TestFindReadsCodesOutOfWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"550 5.1.1 <ann@example.org>: User unknown":                                        {"550", "5.1.1"},
		"550-5.1.1 The email account that you tried to reach does not exist.":              {"550", "5.1.1"},
		"smtp; 550 5.1.1 unknown":                                                          {"550", "5.1.1"},
		"smtp;550 5.1.10 RESOLVER":                                                         {"550", "5.1.10"},
		"host mx.example.org[192.0.2.25] said: 452 4.2.2 Over quota (in reply to RCPT TO)": {"452", "4.2.2"},
		"550 #5.1.0 Address rejected.":                                                     {"550", "5.1.0"},
		"Remote host said: 554 delivery error":                                             {"554", ""},
		"Sorry, no mailbox here by that name. (#5.1.1)":                                    {"", "5.1.1"},
		"SMTP error from remote mail server after RCPT TO:<a@x>: 550 No such user":         {"550", ""},
		"#< #5.7.1 smtp; 550 not today> #SMTP#":                                            {"550", "5.7.1"},
		"we tried 450 times in 550 minutes from 4.5.6.7 and 192.5.2.1":                     {"", ""},
		"version 1.5.1.1 of 5.1.1.2":                                                       {"", ""},
		"250 2.0.0 Ok: queued as 4XyZ":                                                     {"", ""},
		"":                                                                                 {"", ""},
		"550":                                                                              {"550", ""},
		"5.1.1":                                                                            {"", "5.1.1"},
		"550 5.1.1":                                                                        {"550", "5.1.1"},
		"the first one counts: 450 4.2.1 later\n550 5.1.1 gone":                            {"450", "4.2.1"},
		"smtp; 599 odd":                                                                    {"", ""},
		"421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred":                   {"421", "4.7.0"},
		"error 553: sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)":      {"553", "5.7.1"},
		"Action: failed, status 5.0.0. It ends here.":                                       {"", "5.0.0"},
		"<<< 550 5.1.1 <ann@example.org>... User unknown\n550 5.1.1 ann... User unknown":    {"550", "5.1.1"},
		"X-Postfix; Host or domain name not found. Name service error for name=example.org": {"", ""},
	} {
		if code, enhanced := Find(text); code != want[0] || enhanced != want[1] {
			t.Errorf("Find(%q) = %q, %q, want %q", text, code, enhanced, want)
		}
	}
}

// TestTableIsSound finds rows that can never match: a pattern that path.Match refuses, and words that are not in the
// normalised form of the text.
func TestTableIsSound(t *testing.T) {
	t.Parallel()
	for i, r := range rules {
		for _, p := range append(append([]string(nil), r.codes...), r.enhanced...) {
			if _, err := path.Match(p, "5.1.1"); err != nil {
				t.Errorf("rule %d: pattern %q: %v", i, p, err)
			}
		}
		for _, p := range append(append(phrases(nil), r.words...), r.links...) {
			if p.re != nil {
				p.re() // panics if it does not compile
			}
		}
		if r.codes == nil && r.enhanced == nil && r.words == nil {
			t.Errorf("rule %d matches everything", i)
		}
	}
}

// FuzzClassify checks that every reply gets a known class and reason, and that a temporary one never suppresses an address.
func FuzzClassify(f *testing.F) {
	f.Add("550", "5.1.1", "smtp; 550 5.1.1 user unknown")
	f.Add("", "", "450 4.1.1 user unknown")
	f.Add("", "4.1.1", "550 no such user")
	f.Fuzz(func(t *testing.T, code, enhanced, text string) {
		reason := Classify(code, enhanced, text).Reason
		if reason.Class() == "" {
			t.Errorf("Classify(%q, %q, %q) = %q, which has no class", code, enhanced, text, reason)
		}
		if strings.HasPrefix(enhanced, "4") && reason.Class() == mail.Hard {
			t.Errorf("Classify(%q, %q, %q) = %q for a temporary reply", code, enhanced, text, reason)
		}
		foundCode, foundEnhanced := Find(text)
		if !strings.Contains(text, foundCode) || !strings.Contains(text, foundEnhanced) {
			t.Errorf("Find(%q) = %q, %q: not in it", text, foundCode, foundEnhanced)
		}
	})
}

// A reply about a password is about our account only if it refuses the password. Attachments and texts can have passwords
// too.
func TestPasswordIsOursOnlyWhereItIsRefused(t *testing.T) {
	t.Parallel()
	for reply, want := range map[string]Party{
		"550 user name or password invalid":                                 Account,
		"550 Benutzername oder Passwort ungültig":                           Account,
		"550 Usuario o contraseña inválidos":                                Account,
		"550 Неверный пароль пользователя":                                  Account,
		"550 メールアドレスまたはパスワードが無効です":                                          Account,
		"554 Your password has expired":                                     Account,
		"550 mot de passe incorrect":                                        Account,
		"554 5.7.1 Password protected archives are not accepted here":       Message,
		"554 Le fichier joint est protégé par mot de passe":                 Message,
		"550 Anhang ist mit einem Kennwort geschützt":                       Message,
		"550 Encrypted attachment rejected, password required to scan it":   Message,
		"550 The zip needs a password":                                      Message,
		"554 архив защищён паролем":                                         Message,
		"554 A password is required to open the attachment":                 Message,
		"554 Archive is encrypted with a password":                          Message,
		"550 phishing: never give your password to anyone":                  Message,
		"554 Account locked, wrong password":                                Account,
		"550 the password of this profile is expired":                       Account,
		"554 encryption is required, password rejected":                     Account,
		"550 message rejected, it asks for a password":                      Unknown,
		"550 hush-smtp-password-7Qx may not mail somebody@example.com":      Unknown,
		"550 5.7.1 see https://example.com/password/reset before you go on": Unknown,
		"550 message refused by our password-leak monitor (ticket 5)":       Unknown,
	} {
		if v := Classify("", "", reply); v.Party != want {
			t.Errorf("%s = %s (%s), want %s", reply, v.Party, v.Rule, want)
		}
	}
}
