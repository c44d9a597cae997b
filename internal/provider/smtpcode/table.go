package smtpcode

import "github.com/sendgate/sendgate/internal/mail"

// rule maps replies to a reason. A nil field matches everything; codes and enhanced are patterns of path.Match, any one
// of which matches; words stand anywhere in the lower-case text, without the addresses and host names in it.
type rule struct {
	codes, enhanced, words []string
	reason                 mail.Reason
}

// rules are tried in order, the first match decides; rules with a hard reason are left out for temporary replies.
// Sources: RFC 5321 section 4.2, RFC 3463 section 3, RFC 7372, RFC 7504, RFC 7505, the IANA registry of enhanced status
// codes, Google's "SMTP error reference", Microsoft's "Email non-delivery reports in Exchange Online", Postfix's smtpd(8)
// and the replies of the large mailbox providers.
var rules = []rule{
	// About us, though the words speak of addresses and domains.
	{enhanced: []string{"[45].1.7", "[45].1.8"}, reason: mail.AuthFailure},
	{words: []string{
		"sender address rejected", "sender rejected", "sender verify failed", "sender denied", "invalid sender", "bad sender",
		"sender domain", "sender's domain", "domain of sender",
	}, reason: mail.AuthFailure},
	{words: []string{
		"sending quota", "sending limit", "rate limit", "too many messages", "too many connections", "too much mail",
		"too many recipients", "unusual rate", "greylist", "graylist", "grey-list",
	}, reason: mail.ThrottledThere},

	// Words that decide whatever the code is.
	{words: []string{
		"mailbox full", "mailbox is full", "mailbox quota", "over quota", "overquota", "quota exceeded", "exceeded quota",
		"exceeded storage", "exceeds quota", "out of storage space", "inbox is full", "not enough storage space",
	}, reason: mail.MailboxFull},
	{words: []string{
		"domain does not exist", "domain doesn't exist", "domain not found", "host not found", "unknown domain", "no such domain",
		"domain name not found", "null mx", "nullmx", "does not accept mail", "unrouteable mail domain", "all relevant mx records point to non-existent",
	}, reason: mail.InvalidDomain},
	{words: []string{
		"account has been disabled", "account disabled", "account is disabled", "mailbox disabled", "mailbox is disabled",
		"user disabled", "account inactive", "account is inactive", "mailbox is inactive", "inactive user", "inactive mailbox",
		"no longer active", "account has been suspended", "account is suspended",
	}, reason: mail.Inactive},
	{words: []string{
		"user unknown", "unknown user", "no such user", "does not exist", "doesn't exist", "unknown recipient", "recipient unknown",
		"unknown address", "no such recipient", "no such mailbox", "no mailbox here", "no such person", "user not found",
		"recipient not found", "recipientnotfound", "mailbox not found", "address not found", "invalid mailbox", "invalid recipient",
		"unknown in local recipient table", "unknown in virtual", "unknown in relay recipient table", "not listed in",
		"doesn't have a", "not a valid mailbox", "no account by that name", "unroutable address", "unrouteable address",
	}, reason: mail.InvalidAddress},
	{enhanced: []string{"5.4.1"}, words: []string{"recipient address rejected: access denied"}, reason: mail.InvalidAddress}, // Exchange Online
	{words: []string{"reputation"}, reason: mail.Reputation},

	// Codes that say one thing only.
	{enhanced: []string{"5.7.2[0-7]", "5.7.29", "5.7.30", "5.7.509", "5.7.515"}, reason: mail.AuthFailure},
	{enhanced: []string{"5.7.28", "5.7.60[6-9]", "5.7.6[1-4][0-9]"}, reason: mail.Reputation}, // mail flood; Microsoft's banned addresses
	{enhanced: []string{"[45].2.2"}, reason: mail.MailboxFull},
	{enhanced: []string{"[45].2.3", "[45].3.4"}, reason: mail.MessageTooLarge},
	{enhanced: []string{"[45].6.*"}, reason: mail.Content},

	{words: []string{
		"spam", "blocked", "blacklist", "blocklist", "block list", "black list", "denylist", "dnsbl", "is listed", "listed by",
		"listed at", "listed on", "unsolicited", "against policy", "policy violation", "local policy", "policy reasons",
		"administrative prohibition", "administratively", "relay access denied", "relaying denied", "unable to relay",
		"not permitted to relay", "relay not permitted",
	}, reason: mail.BlockedPolicy},
	{words: []string{"virus", "malware", "content rejected", "content denied", "attachment"}, reason: mail.Content},
	{words: []string{"message too large", "message too big", "message size", "size limit", "too large"}, reason: mail.MessageTooLarge},

	// The rest of the enhanced codes.
	{enhanced: []string{"5.1.2", "5.1.10", "5.4.4"}, reason: mail.InvalidDomain},
	{enhanced: []string{"5.1.[01346]"}, reason: mail.InvalidAddress},
	{enhanced: []string{"5.2.1"}, reason: mail.Inactive},
	{enhanced: []string{"4.2.1", "[45].4.5", "[45].5.3", "4.7.*"}, reason: mail.ThrottledThere},
	{enhanced: []string{"5.7.*"}, reason: mail.BlockedPolicy},
	{enhanced: []string{"[45].4.7"}, reason: mail.TimedOut},
	{enhanced: []string{"4.1.2", "[45].4.[1-4]"}, reason: mail.Connection},
	{enhanced: []string{"[45].3.*", "[45].4.*"}, reason: mail.Technical},

	{words: []string{"mailbox unavailable"}, reason: mail.InvalidAddress}, // 550 5.5.0, Microsoft's for an unknown user
	{enhanced: []string{"[45].5.*"}, reason: mail.Technical},
	{enhanced: []string{"4.1.*", "[45].2.*"}, reason: mail.Undetermined},

	{words: []string{"connection timed out", "connection refused", "connection reset", "lost connection", "no route to host", "network is unreachable"}, reason: mail.Connection},
	{words: []string{"retry time not reached", "message expired", "retry timeout exceeded", "delivery time expired"}, reason: mail.TimedOut},

	// Reply codes without an enhanced one that says anything.
	{codes: []string{"421"}, reason: mail.Connection},
	{codes: []string{"45[1245]", "50?", "555"}, reason: mail.Technical},
	{codes: []string{"521", "556"}, reason: mail.InvalidDomain}, // RFC 7504
	{codes: []string{"53?"}, reason: mail.AuthFailure},
	{codes: []string{"550", "551", "553"}, reason: mail.InvalidAddress},
	{codes: []string{"552"}, reason: mail.MailboxFull},
	{codes: []string{"571"}, reason: mail.BlockedPolicy},
}
