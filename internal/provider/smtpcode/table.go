package smtpcode

import "github.com/sendgate/sendgate/internal/mail"

// rule maps replies to a verdict. A nil field matches everything; codes and enhanced are patterns of path.Match, and one match is
// enough. One of words and links must match: words are searched in a speech's words, links in its links.
type rule struct {
	name            string
	codes, enhanced []string
	words, links    phrases
	party           Party
	reason          mail.Reason
}

// passing are words that promise a change: a reply with them is not final.
var passing = oneOf(
	`tempora(r|l|ir)|tijdelijk|tymczasow|tillf.llig|midlertidig|ge.ici`, `maintenance|under (review|investigation)|for investigation`, `\buntil\b|meanwhile|right now|tomorrow|while migrating|being (moved|migrated)`, `(database|backend|directory)( service| server)? (error|failure|not reachable|unreachable|unavailable)`, `try (it )?again later`, `(try|retry) later`, `try again in `, `at a later time`, `not found,? try again`,
	`(user|recipient|mail ?box|account|address|domain)( or (\w+ ){0,2}\w+)? (may|might) (not |no longer |have |be |been )+(exist|valid|active|found|known|disabled|inactive|closed|deleted|full|invalid|unavailable)`,
	`(essayer|r.essayer) plus tard`, `sp.{1,2}ter (erneut|noch)`, `zeitweise|vor.bergehend|momentan`, `m.s tarde|mais tarde|pi. tardi`,
	`ldap (is |server )*(unavailable|down|error)|server (is )?down|(recipient|user)'?s? (mail )?(server|host|system)\b|server for (the |this )?(user|recipient)|lookup failure`,
	`稍后|請稍後|暂时|暫時|後ほど|一時的|(попробуйте|повторите) позже|временно`,
)

// Parts of the patterns below.
const (
	box = `(user ?(name|id)?|recipients?|mail-?boxe?s?|mail box|account|address(ee)?|alias|inbox|rcpt|local[- ]?part|mail drop|@)`
	gap = `[^.;:]*`
	// secret matches a password. It is about our account only if the reply refuses it: attachments have passwords too, and fraud
	// mail mentions them. wrong may stand before or after it; refused only after it.
	secret  = `(passwor[dt]|passphrase|contrase.a|\bclave\b|\bsenha\b|mot de passe|kennwort|has[lł]o\b|парол|密码|密碼|パスワード|비밀번호|.ifre(si|niz)?\b|jelsz|\bheslo|lozink|mật khẩu|kata sandi|סיסמ|كلمة المرور)` //nolint:gosec // a pattern, not a credential
	wrong   = `(\b(wrong|bad|invalid|incorrect|mismatch\w*|expired|missing)\b|falsch|ungültig|abgelaufen|inv[aá]lid|incorre[ct]t|caducad|expir|erron|incorrect|scadut|errat|sbagliat|onjuist|verkeerd|ongeldig|nieprawid|błędn|неверн|неправильн|просроч|invalide|错误|錯誤|不正确|不正確|无效|無効|間違|誤|잘못|틀|hatalı|yanlış|geçersiz|érvénytelen|hibás|nesprávn|neplatn|neispravn|pogrešn|sai\b|không đúng|salah|שגוי|خاطئ|خطأ|غير صحيح)`
	refused = `\b(required|rejected|failed|too old|changed|reset|not (accepted|valid|correct|set|match\w*)|(does|do|did)(n'?t| not) match|could not be verified)\b`
	// locked are words for something protected by a password, and bundle matches such things.
	locked = `(geschützt|protég|proteg|protett|cifrad|beveilig|\bchron|szyfr|защищ|加密|保护|保護|암호화|védett|zaheslovan|korumalı)`
	bundle = `\b(archives?|attachments?|zips?|rars?|files?|pdfs?|documents?)\b`
	// ours are words that mark a user or an account as one of our side.
	ours = `\b(hosting|sending|smtp|api|relay|submission|trial|login|from|authenticated)`
	// barred are words of a refusal whose reason is not the mailbox.
	barred = `\b(denied|block\w*|spam|polic\w*|permission|(allow|permitt|authori[sz]|restrict)ed|reject\w*|refus\w*|prohibited|forbidden|no access|full|over|limit\w*|quota|busy|temporar\w*)\b`
)

// noAnswer are the words for a host that was not reached. If a server answers, and with a 5xx, its "connection refused" means
// something else.
var noAnswer = oneOf(
	`connection (timed out|refused|reset|dropped|closed|failed|lost)`, `(lost|broken|bad) connection`, `no route to host|network is unreachable|host is down`, `timed? ?out`, `not found,? try again`,
	`(cname|mx) lookup failed`, `(temporary|server) (dns|name|lookup) (failure|error)|temporary lookup|servfail|dns (query|lookup) (failed|error|timeout)`, `wasn't able to establish|unable to (connect|contact)|did not accept our requests to connect`,
	`domain is not reachable|host unreachable|no answer from host|address family`,
)

// theirs are words with which an enhanced code about the mailbox or its domain is believed: no meaningful words, or some that
// name the subject of the code. With other words the server may use that code for another reason.
var theirs = append(oneOf(
	`^\W*((please|see|go|to|visit|for|more|info|information|details|no|failed|failure|error|rejected|refused|bounced?|undeliverable|unroute?able|unknown|disabled|inactive|invalid|not|found|exist\w*|closed|deleted|moved|gone|permanent\w*|delivery|smtp)\W*)*$`,
	`^not (found|known|available|valid|exist)`, box, `e-?mail (id|account)|mailing list|domain|\bmx (for|record)|\bhost( ?name)? (not|unknown)|(invalid|unknown|bad) host`,
), thingsAbroad()...)

// rules are tried in order; the first match decides. Rules with a hard reason are skipped if the reply is not final.
// Sources: RFC 5321 section 4.2, RFC 3463 section 3, RFC 7372, RFC 7504, RFC 7505, the IANA registry of enhanced status
// codes, Google's "SMTP error reference", Microsoft's "Email non-delivery reports in Exchange Online", Postfix's smtpd(8)
// and the replies in testdata. Most words are English; those of other languages are the common ones.
var rules = []rule{
	// Limits. Those of the mailbox are not ours, and a full mailbox also mentions a quota.
	{name: "mail_loop", party: Host, reason: mail.Technical, words: oneOf(
		`too many hops`, `hop ?count`, `(mail|routing|forwarding) loop`, `loops? back`, `loop(ing)? (detected|was found|message)`, `too many received`,
		`message is looping`, `loopback|points? (back )?to (itself|myself|me|us|this host)`,
	)},
	{name: "mailbox_rate", party: Mailbox, reason: mail.ThrottledThere, words: oneOf(
		`receiving (mail|messages?|e-?mails?) (at a rate|too)`, `recipient.{0,30}(receive|thread) limit`, `(recipient|user) (@ )?has exceeded (their |his |its )?(\w+ )?(rate )?limit`,
		`receive limit`, `exceeding receiving limits`,
	)},
	{name: "mailbox_rate", party: Mailbox, reason: mail.ThrottledThere, enhanced: []string{"[45].2.12[12]"}},
	{name: "greylisted", party: Host, reason: mail.ThrottledThere, words: oneOf(`gr[ea]y-? ?list`)},
	{name: "session_limit", party: Host, reason: mail.ThrottledThere, words: oneOf(
		`(messages?|e-?mails?|recipients|mails) (per|in|for|on) (this |one |a |a single |the |each )?(smtp )?(session|connection)`,
	)},
	{name: "sending_limit", party: Account, reason: mail.ThrottledThere, words: oneOf(
		`(daily|hourly|monthly|weekly|24[- ]hour)`+gap+`(limit|quota|allowance|rate)`, `(limit|quota|number)`+gap+`(per|an|each|this|for the) ?(hour|day|minute|second|month)`,
		`(exceed\w*|reached|over)`+gap+`(per|an|this|each) ?(hour|day|minute|second|month)`, `(sending|submission|outgoing|outbound|relay|smtp|message|messages|send|sender)( rate| smtp)? (limit|quota)`,
		`(quota|limit)`+gap+`(sending|outgoing|outbound|submission|for your account)`, `submissionquota|refusequota|outboundspamexception`, `(limit|quota)`+gap+`(for|on) (sending|message recipients)`,
		`max(imum)? (defers|e-?mails|messages|sending rate|number of (messages|e-?mails))`, `throttling failure`, `over-?limit`, `unusual (sending|activity)`, `sending (mail |messages |e-?mail )?too (fast|quickly|many|much)`, `exceeded your`+gap+`(limit|quota|rate)`,
		`you(r account)? ha(ve|s) (exceeded|reached) (\w+ ){0,4}(limit|quota|max\w*|allow\w*)`, `(out of|not enough|insufficient|no more|maximum) credits?|credits? exceeded`, `(plan|trial|tenant)`+gap+`(limit|quota|threshold)`,
		`too (many|much) (messages|e-?mails?|mails?)( (sent|from|in|this|per|too|\()|$|[.,!])`, `sent too many|too many to too many`,
	)},
	{name: "sending_limit", party: Account, reason: mail.ThrottledThere, enhanced: []string{"[45].1.90"}},
	{name: "mailbox_full", party: Mailbox, reason: mail.MailboxFull, words: oneOf(
		`(mail ?-?box|inbox|folder|account|maildir|user|recipient)`+gap+`\bfull\b`, `\bfull (mail ?box|inbox)`, `over ?-?quota|over (the |their |its |disk |allowed |the allowed )+quota`,
		`(exceed\w*|reached|over)`+gap+`(storage|disk ?space|mailbox (size|quota|limit)|disk quota)`, `(mailbox|storage|disk|diskspace|inode|user|blocks?)`+gap+`(quota|limit)`+gap+`exceed`,
		`(exceed\w*|reached) (its |his |their |the |email |mail |disk |storage |mailbox )*quota`, `^\W*quota (limit )?exceeded`, `(disk|storage|mailbox|user|mail|email|domain|extended) ?quota (exceed|usage|viol|limit)`,
		`(out of|not enough|insufficient|does not have enough|no) (storage |disk )+(space|left)`, `space (left on device|has been used)`, `too much mail data`, `mail file size exceeds`,
		`bo.{1,2}te .{0,20}pleine|quota d.pass`, `(postfach|mailbox|speicherplatz)`+gap+`(voll\b|ersch.{1,2}pft|berschritten)`, `(buz.n|casilla)`+gap+`(lleno|llena)|cuota excedida`,
		`casella`+gap+`piena`, `caixa`+gap+`cheia`, `skrzynka`+gap+`(pe.na|przepe)`, `переполнен`, `(空间不足|容量满|空間不足|容量超過|いっぱい)`,
	)},
	{name: "too_many_recipients", party: Host, reason: mail.ThrottledThere, words: oneOf(
		`too many recipients( for| in| per| to|$|[.,!])`, `recipients? (list|count|limit)`+gap+`(exceed|maximum|reached)`, `max(imum)? (\w+ ){0,3}recipients`, `(exceed\w*|limit) (\w+ ){0,4}recipients`, `recipients (per|in a|in one|in each) (message|mail|e-?mail)`,
	)},
	{name: "sender_rate", party: Client, reason: mail.ThrottledThere, words: oneOf(
		`frequency`, `rate[- ]?limit`, `limit(ed)? (the )?rate`, `unusual rate|connection rate|excessive (rate|volume)|unexpected volume`, `too many (connections|concurrent|sessions|smtp sessions|(failed )?(login|auth)|errors)`, `too many (new )?recipients`,
		`throttl`, `slow(er| down)`, `trop de connexions`, `слишком много|превышен лимит`, `connections? limit`, `messages?`+gap+`(temporarily )?deferred`, `permitted limits`,
	)},

	// About us, although the words mention addresses, hosts and domains.
	{name: "recipient_restricted", party: Mailbox, reason: mail.BlockedPolicy, words: oneOf(
		`resolver\.rst\.(auth|notauth|send)`, `not authorized to send to`, `allowed[- ]senders`, `mailing list`, `members?[- ]only|non-member|not subscribed|closed mailing list`, `only accept`, `recipient preferences`,
		`(recipient|user) (rejects?|refuses?|refused|blocks?|blocked)( to| you| your| mail| this| the|[.,!]|$)`, `(blocked|rejected|refused|blacklisted|disallowed) by (the |this )?(recipient|user)([^ ]| and|$)`, `not authenticated for (group|mailbox|public folder)`, `has restricted`, `user rules`, `(disabled|turned off|closed)`+gap+`\b(external|outside|strangers)`,
	)},
	{name: "recipient_restricted", party: Mailbox, reason: mail.BlockedPolicy, enhanced: []string{"5.7.124", "5.7.13[3-6]"}},
	{name: "expired", party: Host, reason: mail.TimedOut, words: oneOf(
		`(message|delivery time|retry time\w*|queue)\.? ?(has |was )?expired`, `queue\.expired`, `retry time not reached|retry timeout exceeded`, `in (the )?queue too long|delivery timeout`,
	)},
	{name: "message_format", party: Message, reason: mail.Content, words: oneOf(`(multiple|duplicate|missing|malformed) .{0,40}(addresses|headers?|subject)\b`, `not rfc`, `\b(errors-to|list-(unsubscribe|id)|resent-\w+)\b`, `(recipient|address) count`, `headers? (is |are )?(missing|invalid)`, `\ben-t.te|kopfzeile|cabecera|cabe.alho|intestazione|заголов|邮件头|ヘッダ`, `message-?id\b`)},
	{name: "no_answer", party: Host, reason: mail.Connection, codes: []string{"", "4??"}, words: noAnswer},
	{name: "unknown_users", party: Client, reason: mail.Reputation, words: oneOf(
		`(too many|excessive|number of|maximum) (\w+ ){0,3}(invalid|unknown|bad|non-?exist\w*|userid unknowns)`, `(invalid|unknown|bad|non-?exist\w*) (users|recipients|addresses)`+gap+`(exceed|limit|reached)`, `directory harvest|dictionary attack|大量`,
	)},
	{name: "credential", party: Account, reason: mail.AuthFailure, codes: []string{"53[0458]"}},
	{name: "account_blocked", party: Account, reason: mail.BlockedPolicy, words: oneOf(
		`(^|[^n] )your (smtp |e-?mail |mail |user )?(account|user|mailbox|customer|login)\b`, `used to send|(user|account) (is )?not allowed to send`, `(sending|send|mails?|relay\w*|outgoing) (paused |suspended |disabled |blocked )?(for|from|by) (this|your|the) (account|user)`, `(sending|outgoing|outbound) (e-?mail |mail |messages )?(is |was |has been )?(disabled|blocked|suspended|paused|not allowed|denied)`,
		`outbound (sender|spam)`, `can only send (test(ing)? )?e-?mails? to|sandbox|authori[sz]ed recipients`, `(for|from) (outgoing|outbound|sending)|sending (account|from)`, `not authorized to (perform|use|relay)`, `not yet activated`,
		ours+` (user|account|mailbox|customer)\b`, `sender'?s? account`, `(smtp|sending|submission|relay|api) service for (this|the|your) (account|user)`, `(can ?not|can't) send( (e-?)?mails?| messages?)?\W*$`, `(conta|cuenta|compte|konto) (de |d'|zum )(env[ií]o|envoi|versand)`,
		`\b(su|tu) (cuenta|usuario|buz.n|casilla|direcci.n)`, `\bvotre (compte|bo.te|adresse)`, `\bihre? (konto|account|postfach|adresse|benutzer)`, `\b(tuo|suo) (account|utente|indirizzo)`, `\b(tua|sua|seu|teu) (casella|conta|caixa|usu.rio|endere.o)`,
		`\b(uw|jouw) (account|adres|mailbox)`, `\btw(oje|.j|oja) (konto|adres|skrzynka)`, `ваш[аеу]? (аккаунт|адрес|ящик|уч.тн|почтов)`, `[您你]的?(的)?(帐号|账号|帐户|账户|邮箱|郵箱|地址)`,
		`hesab.n.z|adresiniz|\bditt? konto|\bdin (konto|adresse?|mailbox)|\bv[aá][sš](e|a)? ([uú][cč]e?t|adres|schr.nk|ra[cč]un|sandu.i)|\baz .n |dumneavoastr|contul dvs|σας|tilisi|osoitteesi|お客様|あなた|귀하|của bạn|\banda\b|الخاص بك|حسابك|שלך`,
	)},
	{name: "credential", party: Account, reason: mail.AuthFailure, codes: []string{"525"}, words: oneOf(`^(your |the |this )?(user|account|login|mailbox)`)},
	{name: "sender_address", party: Sender, reason: mail.AuthFailure, enhanced: []string{"[45].1.7", "[45].1.8", "5.2.252", "5.7.60"}}, // the last two are Exchange's: not allowed to send as this sender
	{name: "sender_authentication", party: Sender, reason: mail.AuthFailure, words: oneOf(
		`\bdmarc\b`, `\bspf\b`, `sender policy framework`, `\bdkim\b|domainkeys?`, `unauthenticated (e-?mail|message|mail)`, `(message|mail|sender|domain)`+gap+`not (properly )?authenticated`, `authentication (checks?|results?|information)`,
		`(postmaster|callout|callback) verif|verification failed (for|while)|\bsent: rcpt to`, `spoof|forged|forgery|impersonat|fake sender`, `\bbatv\b`, `mismatches client ip`, `purported responsible`, `sender (signature|identity)`,
	)},
	{name: "sender_authentication", party: Sender, reason: mail.AuthFailure, enhanced: []string{"[45].7.2[0-467]", "[45].7.29", "[45].7.30", "[45].7.32", "5.7.509", "5.7.515"}},
	{name: "smtputf8", party: Message, reason: mail.Content, enhanced: []string{"[45].6.7"}},
	{name: "no_tls", party: Host, reason: mail.Technical, enhanced: []string{"[45].4.317", "[45].7.32[1-4]"}},
	{name: "protected_attachment", party: Message, reason: mail.Content, words: oneOf(
		secret+`[ -]{0,3}(protected|encrypted|`+locked+`)`, `\b(protected|encrypted) (with|by|using) (\w+ ){0,2}`+secret, locked+`[^.;:@]{0,20}`+secret,
		`encrypted (\w+ )?`+bundle, bundle+`[^.;:@]{0,40}`+secret, secret+`[^.;:@]{0,40}`+bundle,
	)},
	{name: "credential", party: Account, reason: mail.AuthFailure, words: oneOf(
		`authentication`, `authenticate`, `auth(entication)? failed`, `login fail|smtp auth`, `pop[ -]before[ -]smtp|receive your mail|logged into the pop`, `unauthenticated|not (been )?authenticated`, `authentifi?cation`, `log ?in (first|required)|please log ?in`, `(invalid|bad|wrong) (login|credentials|password|user ?name or password)`, `authori[sz]ation( failed)?:|access denied: (account|user|login)`, `\(in reply to auth`, `certificate|\bkey (is |was )?(not|unknown|invalid)`, secret+`[^.;:@]{0,40}(`+wrong+`|`+refused+`)`, wrong+`[^.;:@]{0,40}`+secret, `authentifi|autentic`, `starttls`,
	)},
	{name: "client_name", party: Client, reason: mail.AuthFailure, enhanced: []string{"[45].7.25"}},
	{name: "reputation", party: Client, reason: mail.Reputation, enhanced: []string{"5.7.28", "5.7.60[6-9]", "5.7.6[1-4][0-9]"}}, // mail flood; Microsoft's banned addresses
	{
		name: "block_list", party: Client, reason: mail.BlockedPolicy,
		words: oneOf(
			`(black|block|deny|reject)-? ?list|ч[её]рн[а-яё]* спис`, `\b(dns|rh|uri?)?[rs]?bls?\b|\brbl\b|\bdnsbl\b`, `spam ?haus|spam ?cop|\bsorbs\b|barracuda|cloudmark|uceprotect`, `(is|are|was|been|currently|ip|address) listed|listed (at|by|on)`, `blocked (using|see)`,
		),
		links: oneOf(
			`spamhaus|spamcop|sorbs\.net|barracudacentral|barracudanetworks|abuseat|uceprotect|surbl|uribl|mailspike|invaluement|backscatterer|spfbl|senderscore|senderbase|cloudmark|dnsbl|mail-abuse|junkemailfilter|sender\.office\.com|ipremoval`,
			`[^/:]/\S*\b(rbl|dnsbl|bl|blacklist|blocklist|unblock)\b`, // in the path: a host is only a name
		),
	},
	{name: "sender_address", party: Sender, reason: mail.AuthFailure, words: oneOf(
		`senders? (e-?mail )?(address|verif|domain|identity|is not|was not|not )`, `sender (denied|rejected|unknown|invalid|must|has no)`, `(invalid|bad|unknown|unroutable|unrouteable|unverified|illegal|fake|null) sender`, `domain of sender`, `(unconfigured|unverified|unknown|invalid) sending domain|local sender|disallowed as`, `domain`+gap+`(unverified|not verified)|unverified domain`, `sender'?s? domain`,
		`send as\b|sendas`, `not owned by`, `address(es)? (is|are) not verified|not (a )?verified|failed the check`, `mail ?from`, `reply-?to|(your|return|reply|sending) (e-?mail )?address`, `from:? (address|header|domain)`, `envelope[- ]sender|envelope[- ]from|return[- ]?path|reverse[- ]path`,
		`\boriginat(or|ing)\b|\bremitter\b|\bauthor'?s? (address|mailbox|user)|versender|usu.rio de env`, `.metteur|exp.diteur`, `felad.\b|expeditor|αποστολ|в.дправник`, `\babsender`, `remitente|mittente|remetente|afzender|nadawc|avs.ndare|avsender|l.hett.j|g.nderen|odes.latel|odosielate|po[sš]iljat|изпращач|подател|người gửi|pengirim|مرسل|שולח`, `отправител`, `发件|发信|发送(方|者|人)|寄件|寄信|差出人|送信元|送信者|발신자|보낸 ?사람`, `not allowed to send (mail|from|as)|(allowed|authori[sz]ed|permitted) to send (\w+ )?(from|as|on behalf)`,
	)},
	{name: "client_name", party: Client, reason: mail.AuthFailure, words: oneOf(
		`\bptr\b`, `(bad|invalid|no) dns`, `reverse[- ]?(dns|host|lookup|mapping|name|resolution)`, `\br-?dns\b|\bfcrdns\b`, `\b(helo|ehlo)\b`, `name lookup failed`, `(find|resolve|verify|determine)`+gap+`(your|client|reverse|sending|relay) ?(host|name|ip|server)`,
		`unresolvable`, `dynamic (ip|host|addr)|generic (ptr|host|dns)|dial-?up`, `forward dns`, `unverif[iy]able sending`, `matches to nameserver query|may not be mail exchanger`,
	)},
	{name: "reputation", party: Client, reason: mail.Reputation, words: oneOf(`reputation`, `complaints`)},
	{name: "client", party: Client, reason: mail.BlockedPolicy, words: oneOf(
		`banned`, `your (sending )?(ip|network|server|host|mail ?server|isp|domain|access|mta)\b`, `client (host|address|ip)`, `(sending|connecting|source|sender) (ip|host|server|network|mta)`, `\bips?( address)?\b`+gap+`(block|ban|refus|reject|denied|not allowed|not valid|unknown)`,
		`(blocked|refused|rejected|denied|invalid|bad|black|accept mail from) (your )?ips?\b`, `mail server at`, `(white|allow) ?list`, `open (relay|proxy)`, `no access from|refused from`, `accept(s|ing|ed)? (any )?(e-?mails? |mails? |connections |messages )?from`, `host network`, `(the|your|this|from|unknown|invalid|bad) ip address`, `\bip[- ]?(adr|адрес|地址|アドレス|주소)|(adres\pL*|direcci.n|endere.o|indirizzo|адрес\pL*|địa chỉ|alamat) ip\b`, `messages from`, `remote ip\b|\bip check`,
	)},
	{name: "no_answer", party: Host, reason: mail.Connection, words: noAnswer},
	{name: "sender", party: Sender, reason: mail.BlockedPolicy, words: oneOf(`\bsender'?s?\b`)},

	// About the message.
	{name: "spam", party: Message, reason: mail.BlockedPolicy, words: oneOf(`spam|спам`, `mail rejet`, `\bdt:spm|\bmi:sp[bc]`, `quarantin|by (\w+ )?filter`, `unsolicited`, `\bu[bc]e\b`, `\bbulk\b`, `\bjunk`, `phish`, `abus(e|ive)`)},
	{name: "virus", party: Message, reason: mail.Content, words: oneOf(`virus|malware|infected|trojan`, `attachment|executable`)},
	{name: "message_content", party: Message, reason: mail.Content, words: oneOf(
		`content`, `(message|mail) (was |is |has been )?(filtered|format|header)`, `\bheaders?\b`, `\bmime\b`, `rfc ?(2?822|5322)`, `multiple (addresses|subject|from)`, `8-?bit`, `media error|line (limit|too long|length)`, `bare (lf|cr)`,
	)},
	{name: "message_size", party: Message, reason: mail.MessageTooLarge, words: oneOf(
		`(message|mail|file|e-?mail|size)`+gap+`too (large|big|long)`, `(message|mail) (size|length)`, `size (limit|exceed)`, `exceed\w* (the |fixed |maximum |max |our )*(message |mail )?size`, `too (large|big)`, `recipsizelimit`,
	)},
	{name: "relaying", party: Account, reason: mail.BlockedPolicy, words: oneOf(`relay(ing)?( access| mail)* (is |was )?(denied|not|prohibited|refused|rejected|disabled)|(not|n'?t|unable|refuse\w*|cannot)`+gap+`relay|relaying (disallowed|mail to)|(do not|don't) relay|local users? only|as a relay|no relay|no longer relays|mail relay|unauthori[sz]ed relay`, `rcpthosts`, `\brelais\b|rel.tilgang|ретрансл|中继|中繼|中継|リレー|릴레이|αναμετάδοσ|chuyển tiếp|retransmis`, `not (a|your) gateway`, `smtp server of your isp`, `not handle mail`)},

	{name: "policy", party: Unknown, reason: mail.BlockedPolicy, words: oneOf(`(due to|by|for|against|violates?) (\w+ ){0,3}polic(y|ies)`, `recipient polic`, `polic(y|ies)[ -](restriction|reason|violation|reject)`, `administrative prohibition`, `\b(un|not |no )acceptable`, `accept\w* (any )?((e-?)?mails?|messages) (over|via|with|without|unless|that|which|through|directly|only|sent)`)},
	{name: "service_refused", party: Unknown, reason: mail.BlockedPolicy, codes: []string{"5??"}, words: oneOf(`^(the )?service (is )?(currently )?(unavailable|not available)`)},
	{ // no word and no code says whose account it is: ours at a relay, or theirs
		name: "account_off", party: Unknown, reason: mail.BlockedPolicy, enhanced: []string{"", "5.[03457].*"},
		words: oneOf(`^(((this|the|that|sorry|error|sl|e\d+)\b)\W*)*account (is |was |has been |currently |administratively )*(disabled|deactivated|suspended|terminated|blocked)([^\w@]*$|[.;][^@]*$)`, `^(la |l'|el |a |le |das |het |il )?(cuenta|conta|compte|konto|hesap|аккаунт|уч.тная запись|帐号|账号|帳號|계정|contul|akun)(\PL+\pL+){0,3}?\PL*(d[ei]s?[hs]?abil|desa[ct]|d.sact|deaktiv|dezactiv|disatt|suspen|sospes|gesperrt|geblokk|uitgesch|gedeact|отключ|деактив|已?被?(停用|禁用)|비활성|devre|dinonakt)\pL*\W*$`),
	},
	{name: "one_of_two", party: Unknown, reason: mail.BlockedPolicy, words: oneOf( // it does not say which reason applies
		`(unknown|invalid|found|unavailable|available|exists?|valid|inactive)( \w+)?,? or (\w+ ){0,4}`+barred,
		barred+`( \w+){0,3},? or (\w+ ){0,4}(unknown|invalid|no such|not found|unavailable|not available|not exist|n't exist|nonexist|non-exist)`,
	)},

	// About the address.
	{name: "domain_unknown", party: Mailbox, reason: mail.InvalidDomain, words: oneOf(
		`null ?mx`, `name service error`+gap+`(host )?not found`, `name service error.{0,80}host not found`, `host or domain name not found`, `nxdomain`, `nonexistentdomain|nonexistent domain`, `host unknown`, `(host|domain) ?(does not|doesn't) (accept|receive) (any )?(e-?)?mail`,
		`doesn't receive email`, `had no relevant answers|couldn't find (a mail exchanger|any host)`, `recipient`+gap+`:? ?(domain (not found|unknown|does not exist|doesn't exist)|unknown domain)`, `recipient domain must exist`, `unrout(e)?able mail domain`,
		`all relevant mx records`, `\bmx\b`+gap+`: (domain name|host) not found`, `indicated no smtp service`, `no such host`, `unable to (get mx|resolve mx)`, `mail domain`+gap+`unknown`, `dns domain .{0,60}does not exist`,
	)},
	{name: "domain_unknown", party: Mailbox, reason: mail.InvalidDomain, codes: []string{""}, words: oneOf(`no mx (for|record)|has no mx|no such domain|(unknown|invalid) domain|domain( name)? (not found|unknown|does not exist|doesn't exist)|host (name )?not found|unknown host`)},
	{name: "unknown_error", party: Unknown, reason: mail.Undetermined, words: oneOf(`(unknown|unexpected|undefined) (error|problem|reason)|(error|erro|errore|erreur|fehler|b..d)\b` + gap + `(desconocid|desconhecid|sconosciut|inconnu|unbekannt)|unbekannter fehler`)},
	{name: "no_recipients", party: Host, reason: mail.Technical, codes: []string{"503"}, words: oneOf(`no valid recipients`)}, // each recipient had its own reply, which may have been temporary
	{name: "no_recipients", party: Host, reason: mail.Technical, enhanced: []string{"5.5.1"}, words: oneOf(`no valid recipients`)},
	{name: "server_fault", party: Host, reason: mail.Technical, words: oneOf(`(user|home|mail|mailbox|spool) ?(path|dir|directory|folder)\b` + gap + `\b(not?|n't) exists?`)},
	{name: "address_syntax", party: Unknown, reason: mail.Technical, words: oneOf(`^(bad|invalid|illegal|malformed|wrong|faulty) address syntax|^(malformed|faulty) address`)}, // it may be about the sender's address
	{name: "mailbox_inactive", party: Mailbox, reason: mail.Inactive, words: append(oneOf(
		box+gap+`\b(disabled|inactive|deleted|removed|retired|deactivated|de-activated|dis?s?activated|suspended|terminated|closed|discontinued|frozen|archived|not (been )?activ\w*|unactivated)\b`, `(disabled|inactive|deactivated|suspended|closed|terminated|archived) (e-?mail )?(user|account|mail ?box|recipient|address|e-?mail)`,
		`is now disabled`, `rejected: (inactive|disabled|suspended|closed)`, box+gap+`inactivity`, `no longer (active|in use)`, `has(n't| not) (entered|logged (in|on)|been accessed)`, `mail (receiving|reception) (is |has been )?disabled`, `extended inactivity`, `no recipient activity|never logged (on|in)`, `(account|mailbox|user)( (is|has))? expired`, `\binactive\b|\binactiv[oae]s?\b|\binativ[oa]\b`, `inutilizzo|falta de uso|expirad[oa]`, `deaktiviert|d.sactiv.e?|nieaktywn`, `suspend the service`, `expired (e-?mail )?`+box+`|`+box+` (is |has )?expired`,
		`disabilitat|отключен`, `(ящик|пользовател)`+gap+`заблокирован`, `(用户被禁用|帐号已停用|停用)`,
	), abroad(func(l language) string { return l.off })...)},
	{name: "mailbox_unknown", party: Mailbox, reason: mail.InvalidAddress, words: append(oneOf(
		box+gap+`\b(unknown|unrecogni[sz]ed|nonexist\w*|non-exist\w*)\b`, `(unknown|unrecogni[sz]ed|nonexist\w*|non-exist\w*) (or \w+ )?(\w+ )?`+box, `no such (\w+ )?(user|recipient|mail ?box|address|account|person|id|alias|mail drop|e-?mail|name|customer)`,
		box+gap+`(does|do|did|is|are)? ?(not?|n'?t) (\w+ )?(on this|exists?|found|known|valid|listed|present|registered|recogni[sz]ed|handled|our|hosted|ok)\b`, box+gap+`not in (\w+ ){0,3}(list|table|directory|map|database|ldap)\b`, `\be-?mail( id)? (does not|doesn't|do not|not) exist`, box+gap+`(cannot|can't|could not|couldn't) be (found|located|identified|verified)`,
		`(doesn't|does not) have an? .{0,60}account`, `not (our|my) (user|customer)`, `not (found|present in) (\w+ ){0,3}(directory|recipient|account|user)`, `unknown e-?mail`,
		`no (mail ?box|mail box|account|user|recipient|one|mail-box|valid recipients?)\b`+gap+`(here|by that name|found|with that|available|at this|under that)`, `no valid recipients`, `\bno`+gap+`by that name`, `not an? (active|recogni[sz]ed|valid|known|existing|real) (\w+ )?`+box, box+gap+`(does not|doesn't|no longer) (receive|accept)s? (any )?(incoming |inbound )?(e-?)?mails?`,
		`(unable to|can't|cannot|could not|couldn't) (find|locate|identify)( \w+){0,4} `+box, `not known (at|here|to)`, `: no mail ?box`, `(user|person|employee|recipient|@) (has )?left (the |our )?(company|organi[sz]ation|firm|school)`, `(don't|do not) know (that|this|any such) `+box, `never heard of`, `no (redirect|forwarding) entry`, box+gap+`(cannot|can't|unable to) receive`, `n't exists? (that|this|such)`, box+` (must exist|(is |has )?gone)\b`, `^[\w.]+ wasn't found at ~`, `unknown: @`, `no mail ?box for`, `not (a )?(user|customer) (of|on|at|here)`, `validrcptto`, `(invalid|illegal|wrong|bad|incorrect|undeliverable|unroutable|unrouteable|malformed|faulty)[ -]((or|unknown|inactive|e-?mail|mail|local|virtual|final|destination|delivery|mailbox|recipient|user) ){0,2}`+box,
		`(mail ?box|mail box|address|recipient|user|account) (is |was )?(marked as |flagged as )?(invalid|undeliverable|wrong|incorrect)`, `rejected: (invalid|unknown|undeliverable|nonexist|not in\b|not found)`, `not in (the |our )?(\w+ )?(recipient|user|address|account) (list|table|directory|map)`, `not a member of (the |this )?domain`, `no longer (on|exists?|here|with|works?|employed)`, box+gap+`no longer (a )?(valid|available|accepts?)`, `@ (is )?(not|no longer) (being )?used`, `domain (is )?not used (for|by) (e-?)?mail`, `(does not|doesn't) handle mail for (that|this|the) (user|recipient|address)`, `final (e-?mail )?delivery (point|address|destination)`, `list of (allowed|valid|known) recipients`, `mail (name|id) (is |was )?not (found|known|valid)`, `(does not|doesn't) have an? (e-?mail|mail ?box)\b`, `rec(ip|ipient)notfound`, `recipient not ok`,
		`\binconnue?\b|\bunbekannt\b|sconosciut|in?esistente|inexistente?|desconocid`, `\bkeine?n? (solche[rsn]? )?(benutzer|empf|postfach|konto)|aucun (utilisateur|compte|destinataire)|nessun utente|no hay (nadie|ning.n (usuario|destinatario|buz.n))|nie istnieje|nie ma takiego|нет такого`, `tuntematon|bulunamad|존재하지 ?않|찾을 수 없|不存在|存在しません|登録されていません|見つかりません|宛先不明|ユーザ.{0,6}不明`,
	), abroad(func(l language) string { return l.unknown })...)},
	{name: "address_rejected_there", party: Mailbox, reason: mail.InvalidAddress, enhanced: []string{"5.4.1"}, words: oneOf(`recipient address rejected: access denied`)}, // Exchange Online, for unknown addresses
	{name: "address_rejected_there", party: Mailbox, reason: mail.InvalidAddress, enhanced: []string{"5.1.0"}, words: oneOf(`^address rejected`)},                         // IronPort, for the same

	// Other words.
	{name: "refused", party: Unknown, reason: mail.BlockedPolicy, words: oneOf(
		`polic(y|ies)`, `block`, `administrative`, `access denied|permission|berechtigung|autoris|autorizad`, `den(y|ied)\b`, `not (allowed|permitted|authori[sz]ed|accepted here)|unsafe for|suppression`, `security`, `forbidden|prohibited|restricted`, `refused (by|due|for|because)`, `will not accept`, `go away`,
	)},
	{name: "mailbox_unavailable", party: Mailbox, reason: mail.InvalidAddress, words: append(oneOf( // the words of RFC 5321 for 550, so used for much else
		`(mail ?box|mail box|address|recipient|user|account) (@ )?(is |was )?(unavailable|unavaiable|unaviable|not available)`, `unavailable (mail )?(user|recipient|mailbox)`,
	), abroad(func(l language) string { return l.unavailable })...)},
	{name: "bad_dialogue", party: Host, reason: mail.Technical, words: oneOf(`protocol`, `syntax`, `command`, `sequence of`, `need rcpt`, `routing\.(noconnector|unreachable)|smtpsend\.dns\.invaliddata`)},

	// Enhanced codes.
	{name: "5.7_account", party: Account, reason: mail.BlockedPolicy, enhanced: []string{"5.7.57"}},
	{name: "x.2.2", party: Mailbox, reason: mail.MailboxFull, enhanced: []string{"[45].2.2"}},
	{name: "x.2.3", party: Message, reason: mail.MessageTooLarge, enhanced: []string{"[45].2.3", "[45].3.4"}},
	{name: "x.6", party: Message, reason: mail.Content, enhanced: []string{"[45].6.*"}},
	{name: "5.1.2", party: Mailbox, reason: mail.InvalidDomain, enhanced: []string{"5.1.2", "5.1.10", "5.4.4", "5.4.310"}, words: theirs},
	{name: "5.1.1", party: Mailbox, reason: mail.InvalidAddress, enhanced: []string{"5.1.[146]"}, words: theirs},
	{name: "5.2.1", party: Mailbox, reason: mail.Inactive, enhanced: []string{"5.2.1"}, words: theirs},
	{name: "4.2.1", party: Mailbox, reason: mail.ThrottledThere, enhanced: []string{"4.2.1"}},
	{name: "x.4.5", party: Host, reason: mail.ThrottledThere, enhanced: []string{"[45].4.5", "[45].5.3", "4.7.*"}},
	{name: "5.7", party: Unknown, reason: mail.BlockedPolicy, enhanced: []string{"5.7.*"}},
	{name: "x.4.7", party: Host, reason: mail.TimedOut, enhanced: []string{"[45].4.7"}},
	{name: "x.4.1", party: Host, reason: mail.Connection, enhanced: []string{"4.1.2", "[45].4.[1-4]"}},
	{name: "x.3", party: Host, reason: mail.Technical, enhanced: []string{"[45].3.*", "[45].4.*", "[45].5.*"}},

	// Reply codes without a meaningful enhanced code. Missing codes say nothing, and none is hard.
	{name: "421", party: Host, reason: mail.Connection, codes: []string{"421"}},
	{name: "45x", party: Host, reason: mail.Technical, codes: []string{"45[1245]", "50?", "555"}},
	{name: "53x", party: Account, reason: mail.AuthFailure, codes: []string{"53?"}},
	{name: "552", party: Mailbox, reason: mail.MailboxFull, codes: []string{"552"}},
	{name: "571", party: Unknown, reason: mail.BlockedPolicy, codes: []string{"571"}},
}
